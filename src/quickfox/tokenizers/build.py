"""Build a tokenizer of a given kind from a corpus."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain
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
"""More than a small language model can learn; the file stays below the size limit for reading."""

_DEFAULT_MIN_COUNT = 2


def build_tokenizer(
    kind: TokenizerKind,
    chunks: Iterable[str],
    vocabulary_size: int | None = None,
    min_count: int | None = None,
    character_counts: Counter[str] | None = None,
    *,
    are_independent: bool = False,
) -> Tokenizer:
    """Builds a tokenizer for a text.

    Args:
        kind: of its tokens.
        chunks: the text, in chunks of any size.
        vocabulary_size: maximum number of tokens of `word` and `bpe`, >= 256; None: 4,096.
        min_count: minimum number of occurrences of a character, word or pair of subwords, >= 1; None: 1 for
            characters, 2 for words and pairs.
        character_counts: the count of each character of the text, if known.
        are_independent: whether the chunks are texts of their own, so that no token reaches from one to the next.

    Raises:
        UsageError: as `check_tokenizer_settings`, or no character occurs often enough.
        NoInputError: there is no text.
    """
    check_tokenizer_settings(kind, vocabulary_size, min_count)
    if kind == "char":
        counts = count_characters(chunks) if character_counts is None else character_counts
        return CharacterTokenizer(build_vocabulary(counts, min_count or 1)).with_unknown_token(counts)
    if kind == "byte":
        return ByteTokenizer()
    build = build_word_tokenizer if kind == "word" else build_bpe_tokenizer
    texts = ([chunk] for chunk in chunks) if are_independent else [chunks]
    segments = chain.from_iterable(map(iter_segments, texts))
    return build(segments, vocabulary_size or DEFAULT_VOCABULARY_SIZE, min_count or _DEFAULT_MIN_COUNT)


def check_tokenizer_settings(
    kind: TokenizerKind, vocabulary_size: int | None = None, min_count: int | None = None
) -> None:
    """Checks arguments of `build_tokenizer`; raises UsageError if one is out of range or does not apply to the kind."""
    if kind not in get_args(TokenizerKind):
        raise UsageError(f"tokenizer must be one of {', '.join(get_args(TokenizerKind))}, not {kind!r}", "tokenizer")
    if vocabulary_size is not None:
        if kind in ("char", "byte"):
            raise UsageError(f"vocabulary_size is for word and bpe, not for {kind}", "vocabulary_size")
        if not len(SINGLE_BYTES) <= vocabulary_size <= MAX_VOCABULARY_SIZE:
            raise UsageError(
                f"vocabulary_size must be from {len(SINGLE_BYTES)}, one for each byte, to {MAX_VOCABULARY_SIZE}, "
                f"not {vocabulary_size}",
                "vocabulary_size",
            )
    if min_count is not None and min_count < 1:
        raise UsageError(f"min_count must be at least 1, not {min_count}", "min_count")
    if kind == "byte" and min_count is not None:
        raise UsageError("min_count does not apply to byte, which has every byte", "min_count")
