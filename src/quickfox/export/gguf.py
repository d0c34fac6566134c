"""A transformer as a GGUF file, which llama.cpp opens: a Llama, with its tokenizer.

Three things differ from Hugging Face's Llama. Tensors have other names. Rotary positions turn neighbouring numbers of
a query, not halves, so its columns change places. And the ways of splitting a text that llama.cpp knows are built in:

    char, byte    "rwkv": at each place the longest token; with one character a token, that character
    bpe           "gpt2", with the pattern of GPT-2; a tokenizer.json that splits otherwise cannot be told of
    word          none that splits as we do

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names and keys: the `gguf` library.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.config.model import ModelConfig
from quickfox.errors import UnavailableError, UsageError
from quickfox.export.llama import llama_tensors
from quickfox.export.tokenizer_json import end_of_text_name
from quickfox.models.attention import RMS_NORM_EPSILON, ROTARY_BASE
from quickfox.models.parameters import feed_forward_dim
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.bpe import BpeTokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

FILE_NAME = "model.gguf"

_ARCHITECTURE = "llama"
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_NORMAL, _CONTROL = 1, 3  # types of tokens


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raises UsageError if llama.cpp has no tokenizer that does the same."""
    if tokenizer.kind == "word":
        raise UsageError("gguf cannot hold this model: llama.cpp has no tokenizer of words; train with another one")
    if isinstance(tokenizer, BpeTokenizer) and not _splits_as_gpt2(tokenizer):
        raise UsageError(
            "gguf cannot hold this model: its tokenizer.json splits texts in a way of its own, and llama.cpp only in "
            "built-in ones, of which this program knows GPT-2's"
        )


def write_gguf(bundle: ModelBundle, directory: Path) -> None:
    """Write the file `FILE_NAME` to the folder `directory`; raises OSError if that fails.

    Args:
        bundle: of a model with the architecture "transformer", and a tokenizer that passes `check_tokenizer`.
        directory: an empty folder.

    Raises:
        UnavailableError: the library `gguf` is not installed.
    """
    try:
        from gguf import GGUFWriter
    except ModuleNotFoundError:
        raise UnavailableError(
            "the format gguf needs a library that is not installed: pip install 'quickfox[export]'"
        ) from None

    writer = GGUFWriter(directory / FILE_NAME, _ARCHITECTURE)
    _add_config(writer, bundle.config)
    _add_tokenizer(writer, bundle.tokenizer)
    for name, tensor in llama_tensors(bundle.config, bundle.parameters).items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = _neighbours_for_halves(tensor, bundle.config.num_heads)
        writer.add_tensor(_tensor_name(name), np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_config(writer: "GGUFWriter", config: ModelConfig) -> None:
    assert config.context is not None
    writer.add_vocab_size(config.vocabulary_size)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.hidden_dim)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(feed_forward_dim(config.hidden_dim))
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_heads)
    writer.add_rope_dimension_count(config.hidden_dim // config.num_heads)
    writer.add_rope_freq_base(ROTARY_BASE)
    writer.add_layer_norm_rms_eps(RMS_NORM_EPSILON)


def _add_tokenizer(writer: "GGUFWriter", tokenizer: Tokenizer) -> None:
    names = _gpt2_tokens(tokenizer) if isinstance(tokenizer, BpeTokenizer) else _rwkv_tokens(tokenizer)
    if isinstance(tokenizer, BpeTokenizer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(_merges(tokenizer))
    else:
        writer.add_tokenizer_model("rwkv")
        # llama.cpp cannot leave out a character that the model does not know: each of its bytes becomes a space.
        writer.add_unk_token_id(int(tokenizer.encode(" ")[0]) if " " in tokenizer.known_characters else 0)
    writer.add_token_list(names)
    writer.add_token_types([_NORMAL if tokenizer.token_bytes(number) else _CONTROL for number in range(len(names))])
    if tokenizer.end_of_text is not None:
        writer.add_bos_token_id(tokenizer.end_of_text)
        writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(tokenizer.end_of_text is not None)
    writer.add_add_eos_token(False)


def _rwkv_tokens(tokenizer: Tokenizer) -> list[str]:
    """The tokens, those that are no visible ASCII written as the escapes of their bytes."""
    return [
        "".join(_escape(value) for value in tokenizer.token_bytes(number)) or str(end_of_text_name(tokenizer))
        for number in range(tokenizer.vocabulary_size)
    ]


def _escape(value: int) -> str:
    return chr(value) if 0x20 < value < 0x7F and value != ord("\\") else f"\\x{value:02x}"


def _gpt2_tokens(tokenizer: BpeTokenizer) -> list[str]:
    vocabulary = dict(tokenizer.definition["model"]["vocab"])
    vocabulary |= {token["content"]: token["id"] for token in tokenizer.definition["added_tokens"]}
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _merges(tokenizer: BpeTokenizer) -> list[str]:
    """The pairs in their order, each as one string; a tokenizer.json has either form."""
    merges = tokenizer.definition["model"]["merges"]
    # llama.cpp does not load a file without merges: this one joins what no text is written with.
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges] or ["\0 \0"]


def _splits_as_gpt2(tokenizer: BpeTokenizer) -> bool:
    pre_tokenizer = tokenizer.definition["pre_tokenizer"]
    return bool(pre_tokenizer["type"] == "ByteLevel" and pre_tokenizer.get("use_regex", True))


def _tensor_name(name: str) -> str:
    """Hugging Face's name of a tensor -> llama.cpp's."""
    stem = name.removesuffix(".weight")
    if stem in _OTHER_NAMES:
        return f"{_OTHER_NAMES[stem]}.weight"
    layer, rest = stem.removeprefix("model.layers.").split(".", maxsplit=1)
    return f"blk.{layer}.{_LAYER_NAMES[rest]}.weight"


def _neighbours_for_halves(kernel: np.ndarray, num_heads: int) -> np.ndarray:
    """(H, H), in each head rows 0 .. d-1 -> rows 0, d/2, 1, d/2 + 1 and so on."""
    outputs, inputs = kernel.shape
    return kernel.reshape(num_heads, 2, outputs // (2 * num_heads), inputs).swapaxes(1, 2).reshape(outputs, inputs)
