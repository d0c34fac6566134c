"""The tensors of a transformer as those of a Llama model: a matrix per projection, (outputs, inputs) as in PyTorch."""

from collections.abc import Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.parameters import ATTENTION_PROJECTIONS, EMBEDDING, FEED_FORWARD_PROJECTIONS


def llama_tensors(config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of the equivalent `LlamaForCausalLM`, with Hugging Face's names.

    Args:
        config: of a model with the architecture "transformer".
        parameters: name -> float32 array, as `parameters.parameter_shapes(config)` lists them.

    Returns:
        name -> float32 array, a view of a parameter; without `lm_head.weight` if the embeddings are tied.
    """
    tensors = {"model.embed_tokens.weight": parameters[EMBEDDING], "model.norm.weight": parameters["norm.weight"]}
    for layer in range(config.num_layers):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        query, key, value = np.split(parameters[f"{ours}.attention.input_kernel"], ATTENTION_PROJECTIONS, axis=1)
        gate, up = np.split(parameters[f"{ours}.feed_forward.input_kernel"], FEED_FORWARD_PROJECTIONS, axis=1)
        tensors |= {
            f"{theirs}.input_layernorm.weight": parameters[f"{ours}.attention_norm.weight"],
            f"{theirs}.self_attn.q_proj.weight": query.T,
            f"{theirs}.self_attn.k_proj.weight": key.T,
            f"{theirs}.self_attn.v_proj.weight": value.T,
            f"{theirs}.self_attn.o_proj.weight": parameters[f"{ours}.attention.output_kernel"].T,
            f"{theirs}.post_attention_layernorm.weight": parameters[f"{ours}.feed_forward_norm.weight"],
            f"{theirs}.mlp.gate_proj.weight": gate.T,
            f"{theirs}.mlp.up_proj.weight": up.T,
            f"{theirs}.mlp.down_proj.weight": parameters[f"{ours}.feed_forward.output_kernel"].T,
        }
    if not config.tied_embeddings:
        tensors["lm_head.weight"] = parameters["output.kernel"].T
    return tensors
