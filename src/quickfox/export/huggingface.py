"""Export of a transformer to Hugging Face transformers, as a LlamaForCausalLM and a PreTrainedTokenizerFast."""

from pathlib import Path
from typing import Any

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.checkpoints.tensors import format_tensors
from quickfox.config.model import ModelConfig
from quickfox.export.llama import llama_tensors
from quickfox.export.tokenizer_json import UNKNOWN, end_of_text_name, format_tokenizer_definition
from quickfox.files.json import format_json
from quickfox.models.attention import RMS_NORM_EPSILON, ROTARY_BASE
from quickfox.models.parameters import feed_forward_dim


def write_huggingface(bundle: ModelBundle, directory: Path) -> None:
    """Write the files of the model.

    Args:
        bundle: a model with the architecture "transformer" and no n-gram tables.
        directory: an empty directory.

    Raises:
        OSError: writing failed.
    """
    config, tokenizer = bundle.config, bundle.tokenizer
    tensors = llama_tensors(config, bundle.parameters)
    tokenizer_config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.end_of_text is not None:
        tokenizer_config |= dict.fromkeys(("bos_token", "eos_token"), end_of_text_name(tokenizer))
    generation_config: dict[str, Any] = _special_tokens(tokenizer.end_of_text)
    if tokenizer.unknown_token is not None:
        tokenizer_config["unk_token"] = UNKNOWN
        generation_config["suppress_tokens"] = [tokenizer.unknown_token.token_id]  # an input only
    files = {
        "config.json": format_json(_model_config(config, tokenizer.end_of_text)),
        "generation_config.json": format_json(generation_config),
        "model.safetensors": format_tensors(tensors, {"format": "pt"}),
        "tokenizer.json": format_tokenizer_definition(tokenizer),
        "tokenizer_config.json": format_json(tokenizer_config),
    }
    for name, data in files.items():
        (directory / name).write_bytes(data)


def _model_config(config: ModelConfig, end_of_text: int | None) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_dim,
        "intermediate_size": feed_forward_dim(config.hidden_dim),
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "head_dim": config.hidden_dim // config.num_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": RMS_NORM_EPSILON,
        "rope_theta": ROTARY_BASE,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tied_embeddings,
        "torch_dtype": "float32",
        **_special_tokens(end_of_text),
    }


def _special_tokens(end_of_text: int | None) -> dict[str, Any]:
    """Explicitly null without end-of-text token: the defaults are the ids of Llama's own vocabulary."""
    return {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": end_of_text}
