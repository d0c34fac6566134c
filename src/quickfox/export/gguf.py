"""Export of a transformer and its tokenizer to llama.cpp, as a GGUF file of a Llama model.

Three things differ from Hugging Face's Llama. Tensors have other names. Rotary embeddings rotate pairs of adjacent
elements instead of pairs across the halves, so the rows of the query and key matrices are permuted. And the tokenizers
of llama.cpp are built in:

    char, byte    "rwkv": greedy longest match, which with one character per token is that character
    bpe           "gpt2" with GPT-2's pre-tokenizer; others are recognized by name only
    word          no equivalent

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names and keys: the `gguf` library.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.config.model import ModelConfig
from quickfox.errors import UnavailableError, UsageError
from quickfox.export.llama import llama_tensors
from quickfox.export.tokenizer_json import UNKNOWN, end_of_text_name
from quickfox.models.attention import RMS_NORM_EPSILON, ROTARY_BASE
from quickfox.models.parameters import feed_forward_dim
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.bpe import BpeTokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

FILE_NAME = "model.gguf"

_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3  # token types


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raises UsageError if llama.cpp has no equivalent tokenizer."""
    if tokenizer.kind == "word":
        raise UsageError(
            "gguf does not support the word tokenizer of this model: train with tokenizer bpe, char or byte"
        )
    if isinstance(tokenizer, BpeTokenizer):
        pre_tokenizer = tokenizer.definition["pre_tokenizer"]
        if pre_tokenizer["type"] != "ByteLevel" or not pre_tokenizer.get("use_regex", True):
            raise UsageError(
                "gguf does not support the pre-tokenizer of this model's tokenizer.json, only GPT-2's: train with "
                "tokenizer bpe"
            )


def write_gguf(bundle: ModelBundle, directory: Path) -> None:
    """Write the file `FILE_NAME`.

    Args:
        bundle: a model with the architecture "transformer", a tokenizer that passes `check_tokenizer`, and no n-gram
            tables.
        directory: an empty directory.

    Raises:
        UnavailableError: the package `gguf` is not installed.
        OSError: writing failed.
    """
    try:
        from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
    except ModuleNotFoundError:
        raise UnavailableError(
            "format gguf requires the package gguf, which is not installed: pip install 'quickfox[export]'"
        ) from None

    writer = GGUFWriter(directory / FILE_NAME, "llama")
    _add_config(writer, bundle.config)
    _add_tokenizer(writer, bundle.tokenizer)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, bundle.config.num_layers)
    for name, tensor in llama_tensors(bundle.config, bundle.parameters).items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = _interleave_halves(tensor, bundle.config.num_heads)
        gguf_name = names.get_name(name, try_suffixes=(".weight",))
        assert gguf_name is not None, name
        writer.add_tensor(gguf_name, np.ascontiguousarray(tensor))
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
    if isinstance(tokenizer, BpeTokenizer):
        names = _gpt2_tokens(tokenizer)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(_merges(tokenizer))
    else:
        tokens = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocabulary_size)]
        names = [_escape(token) or str(end_of_text_name(tokenizer)) for token in tokens]
        writer.add_tokenizer_model("rwkv")
        if tokenizer.unknown_token is not None:
            names[tokenizer.unknown_token.token_id] = UNKNOWN
            writer.add_unk_token_id(tokenizer.unknown_token.token_id)  # one for each byte of an unknown character
        else:  # llama.cpp cannot leave out unknown characters: each of their bytes becomes a space
            writer.add_unk_token_id(int(tokenizer.encode(" ")[0]) if " " in tokenizer.known_characters else 0)
    writer.add_token_list(names)
    types = [_NORMAL if tokenizer.token_bytes(token_id) else _CONTROL for token_id in range(len(names))]
    if tokenizer.unknown_token is not None:
        types[tokenizer.unknown_token.token_id] = _UNKNOWN
    writer.add_token_types(types)
    if tokenizer.end_of_text is not None:
        writer.add_bos_token_id(tokenizer.end_of_text)
        writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(tokenizer.end_of_text is not None)
    writer.add_add_eos_token(False)


def _escape(token: bytes) -> str:
    """A token as text, in which bytes that are not printable ASCII, and the backslash, are \\xNN."""
    return "".join(chr(value) if 0x20 < value < 0x7F and value != ord("\\") else f"\\x{value:02x}" for value in token)


def _gpt2_tokens(tokenizer: BpeTokenizer) -> list[str]:
    vocabulary = dict(tokenizer.definition["model"]["vocab"])
    vocabulary |= {token["content"]: token["id"] for token in tokenizer.definition["added_tokens"]}
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _merges(tokenizer: BpeTokenizer) -> list[str]:
    """The merges in order, each as one string; a tokenizer.json contains strings or pairs."""
    merges = tokenizer.definition["model"]["merges"]
    # llama.cpp does not load a file without merges; this one never applies, as byte-level tokens contain no NUL.
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges] or ["\0 \0"]


def _interleave_halves(kernel: np.ndarray, num_heads: int) -> np.ndarray:
    """(H, H) with the rows 0 ... d - 1 of each head in the order 0, d/2, 1, d/2 + 1, ..."""
    outputs, inputs = kernel.shape
    return kernel.reshape(num_heads, 2, outputs // (2 * num_heads), inputs).swapaxes(1, 2).reshape(outputs, inputs)
