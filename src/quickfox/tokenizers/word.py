"""One token per word, run of punctuation or whitespace character; unknown words are encoded as bytes.

    {"format_version": 1, "type": "word", "words": [" the", " and", ", ", ...]}

A single space before a word is part of it, as in the tokenizer of GPT-2 (Radford et al. 2019), so that most words take
one token and the concatenated words are the text.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy.typing as npt

from quickfox.errors import DataError
from quickfox.text.segmentation import iter_segments
from quickfox.text.vocabulary import SURROGATES
from quickfox.tokenizers.byte_level import SINGLE_BYTES, ByteLevelTokenizer

_WORD = re.compile(r" ?\w+| ?[^\w\s]+|\s")
"""Splits a text without loss into words, runs of punctuation and whitespace, each with the space before it."""


MAX_WORD_CHARACTERS = 64
"""Length of the longest word that a built vocabulary has; longer ones are rare, and are spelled in bytes."""

_LONGEST_WORD = 2**12  # characters at the end of a text in which its last word begins


@dataclass(frozen=True)
class WordTokenizer(ByteLevelTokenizer):
    """Tokenizer of words; ids 0 to 255 are the single bytes, then come the words, then the end of text.

    Attributes:
        words: distinct texts that _WORD matches, each of more than one byte.
        has_end_of_text: whether there is an end-of-text token.

    Raises:
        DataError: the words are not as described.
    """

    kind = "word"
    words: tuple[str, ...]
    has_end_of_text: bool = False

    def __post_init__(self) -> None:
        for word in self.words:
            if not _WORD.fullmatch(word) or any(ord(character) in SURROGATES for character in word):
                raise DataError(f"{word[:20]!r} is not a word with at most one space before it")
            if len(word.encode()) == 1:
                raise DataError(f"{word!r} is a single byte, which is a token already")
        if len(self._ids) < len(self.words):
            ((twice, _),) = Counter(self.words).most_common(1)
            raise DataError(f"{twice[:20]!r} is in the vocabulary twice")

    @cached_property
    def tokens(self) -> Sequence[bytes]:
        end = [b""] if self.has_end_of_text else []
        return [*SINGLE_BYTES, *(word.encode() for word in self.words), *end]

    def with_end_of_text(self) -> Self:
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        return {"words": list(self.words)}

    def safe_length(self, text: str) -> int:
        last = ""
        for last in _WORD.findall(text[-_LONGEST_WORD:]):  # noqa: B007 - the last is the result
            pass
        return len(text) if last.isspace() and last != " " else len(text) - len(last)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, start=len(SINGLE_BYTES))}

    def _encode_known(self, texts: Sequence[str]) -> tuple[npt.ArrayLike, Sequence[int]]:
        ids: list[int] = []
        ends = [0]
        for text in texts:
            for segment in iter_segments([text]):
                for word in _WORD.findall(segment):
                    known = self._ids.get(word)
                    if known is None:
                        ids.extend(word.encode())
                    else:
                        ids.append(known)
            ends.append(len(ids))
        return ids, [end - start for start, end in itertools.pairwise(ends)]


def build_word_tokenizer(segments: Iterable[str], vocabulary_size: int, min_count: int = 1) -> WordTokenizer:
    """A tokenizer of the most frequent words of a text, of at most MAX_WORD_CHARACTERS.

    Args:
        segments: the text, from `iter_segments`.
        vocabulary_size: maximum number of tokens, >= 256.
        min_count: minimum number of occurrences of a word, >= 1.
    """
    counts: Counter[str] = Counter()
    for segment in segments:
        counts.update(_WORD.findall(segment))
    frequent = [
        word
        for word, count in counts.items()
        if count >= min_count and len(word) <= MAX_WORD_CHARACTERS and len(word.encode()) > 1
    ]
    frequent.sort(key=lambda word: (-counts[word], word))
    return WordTokenizer(tuple(frequent[: vocabulary_size - len(SINGLE_BYTES)]))
