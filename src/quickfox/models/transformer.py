"""Inference of the transformer in NumPy: decoder-only, in the parameterization of Llama.

    x = embedding of the token
    x = x + attention(norm(x)) Wo            for each layer; queries and keys rotated by their positions
    x = x + swiglu(norm(x) Wi) Wd
    logits = norm(x) W                       W is the transposed embedding if the embeddings are tied

(Vaswani et al. 2017, "Attention is all you need"; Touvron et al. 2023, "LLaMA", for RMSNorm before each sublayer,
rotary position embeddings, SwiGLU and no biases.)
"""

from collections.abc import Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.attention import (
    attend,
    attention_mask,
    empty_cache,
    rms_norm,
    rotary_angles,
    rotate,
    split_heads,
    swiglu,
)
from quickfox.models.inputs import Frames, input_table
from quickfox.models.language_model import LayerTrace, State
from quickfox.models.network import Network


class TransformerLanguageModel(Network):
    """The transformer; for its arguments see `registry.build_language_model`.

    Its state is one cache per layer; the cached keys are already rotated.
    """

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray], frames: Frames | None = None) -> None:
        super().__init__(config, parameters)
        assert config.context is not None
        self.context = config.context
        self._cache_shape = (config.num_heads, config.context, config.hidden_dim // config.num_heads)
        self._parameters = parameters
        self._inputs = input_table(config, parameters, frames)
        self._num_layers = config.num_layers

    def initial_state(self, batch_size: int) -> State:
        return tuple(empty_cache(batch_size, *self._cache_shape) for _ in range(self._num_layers))

    def _hidden(
        self, token_ids: np.ndarray, state: State, traces: list[LayerTrace] | None = None
    ) -> tuple[np.ndarray, State]:
        parameters = self._parameters
        num_heads, context, head_dim = self._cache_shape
        window, positions_read = token_ids.shape[1], state[0][2]
        mask = attention_mask(positions_read, window, context)
        positions = positions_read[:, None] + np.arange(window)  # (B, T)
        cosine, sine = (angles[:, None] for angles in rotary_angles(positions, head_dim))  # (B, 1, T, d/2)
        x = self._inputs[token_ids]  # (B, T) -> (B, T, H)
        new_state = []
        for layer, cache in enumerate(state):
            attention, feed_forward = f"layers.{layer}.attention", f"layers.{layer}.feed_forward"
            normalized = rms_norm(x, parameters[f"{attention}_norm.weight"])
            projected = normalized @ parameters[f"{attention}.input_kernel"]  # (B, T, H) -> (B, T, 3H)
            queries, keys, values = split_heads(projected, num_heads)  # (B, heads, T, d) each
            queries, keys = rotate(queries, cosine, sine), rotate(keys, cosine, sine)
            attended, cache, weights = attend(queries, keys, values, cache, mask)  # (B, T, H)
            x = x + attended @ parameters[f"{attention}.output_kernel"]
            normalized = rms_norm(x, parameters[f"{feed_forward}_norm.weight"])
            gate_and_up = normalized @ parameters[f"{feed_forward}.input_kernel"]  # (B, T, H) -> (B, T, 2F)
            x = x + swiglu(gate_and_up) @ parameters[f"{feed_forward}.output_kernel"]  # (B, T, F) -> (B, T, H)
            new_state.append(cache)
            if traces is not None:
                traces.append(LayerTrace(f"layers.{layer}", x, attention=weights))
        return rms_norm(x, parameters["norm.weight"]), tuple(new_state)  # (B, T, H)
