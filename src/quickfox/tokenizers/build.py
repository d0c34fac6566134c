"""A tokenizer for a corpus, of the kind asked for."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import get_args

from quickfox.config.model import TokenizerKind
from quickfox.errors import UsageError
from quickfox.text.segmentation import iter_segments
from quickfox.text.vocabulary import build_vocabulary, count_characters
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.bpe import build_bpe_tokenizer
from quickfox.tokenizers.byte_level import SINGLE_BYTES, ByteTokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.word import build_word_tokenizer

DEFAULT_VOCABULARY_SIZE = 4096
MAX_VOCABULARY_SIZE = 2**20
"""More words than any language model of this size can learn; its file stays below the size that is read."""

_ONCE_IS_NO_PATTERN = 2


def build_tokenizer(
    kind: TokenizerKind,
    chunks: Iterable[str],
    vocabulary_size: int | None = None,
    min_count: int | None = None,
    character_counts: Counter[str] | None = None,
) -> Tokenizer:
    """The tokenizer of this kind for a text.

    Args:
        kind: of its tokens.
        chunks: the text, in pieces of any size.
        vocabulary_size: most tokens of words and subwords, >= 256; None: 4,096.
        min_count: how often a character, word or pair of subwords has to occur to be a token, >= 1; None: a character
            once, all else twice.
        character_counts: how often each character occurs in the text, if that is known already.

    Raises:
        UsageError: a number is out of its range, or the kind has no use for it; no character occurs often enough.
        NoInputError: there is no text.
    """
    if kind not in get_args(TokenizerKind):
        raise UsageError(f"tokenizer must be one of {', '.join(get_args(TokenizerKind))}, not {kind!r}")
    if vocabulary_size is not None:
        if kind not in _BUILDERS:
            raise UsageError(f"vocabulary-size is for {' and '.join(_BUILDERS)}, not for {kind}")
        if not len(SINGLE_BYTES) <= vocabulary_size <= MAX_VOCABULARY_SIZE:
            raise UsageError(
                f"vocabulary-size must be from {len(SINGLE_BYTES)}, one for each byte, to {MAX_VOCABULARY_SIZE}, "
                f"not {vocabulary_size}"
            )
    if min_count is not None and min_count < 1:
        raise UsageError(f"min-count must be at least 1, not {min_count}")
    if kind == "char":
        counts = count_characters(chunks) if character_counts is None else character_counts
        return CharacterTokenizer(build_vocabulary(counts, min_count or 1))
    if kind == "byte":
        if min_count is not None:
            raise UsageError("min-count is not for byte, which has every byte")
        return ByteTokenizer()
    size = vocabulary_size or DEFAULT_VOCABULARY_SIZE
    return _BUILDERS[kind](iter_segments(chunks), size, min_count or _ONCE_IS_NO_PATTERN)


_BUILDERS: dict[str, Callable[[Iterable[str], int, int], Tokenizer]] = {
    "word": build_word_tokenizer,
    "bpe": build_bpe_tokenizer,
}
