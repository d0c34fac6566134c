"""One token a word, a run of punctuation or a white space; words that are not in the vocabulary are spelled in bytes.

    {"format_version": 1, "type": "word", "words": [" the", " and", ", ", ...]}

The single space before a word belongs to it, as in the tokenizer of GPT-2 (Radford et al. 2019), so that most words
take one token and the pieces of a text, put together, are the text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy.typing as npt

from quickfox.errors import DataError
from quickfox.text.segmentation import iter_segments
from quickfox.text.vocabulary import SURROGATES
from quickfox.tokenizers.byte_level import SINGLE_BYTES, ByteLevelTokenizer

_PIECE = re.compile(r" ?\w+| ?[^\w\s]+|\s")


@dataclass(frozen=True)
class WordTokenizer(ByteLevelTokenizer):
    """Ids 0 to 255 are the single bytes, then come the words, then, if `has_end_of_text`, the end of text.

    Attributes:
        words: different pieces of text of more than one byte each, as `split_into_words` makes them.

    Raises:
        DataError: the words are not as described.
    """

    words: tuple[str, ...]
    has_end_of_text: bool = False

    def __post_init__(self) -> None:
        for word in self.words:
            if not _PIECE.fullmatch(word) or any(ord(character) in SURROGATES for character in word):
                raise DataError(f"{word[:20]!r} is not a word with at most one space before it")
            if len(word.encode()) == 1:
                raise DataError(f"{word!r} is a byte, which needs no place among the words")
        if len(self._ids) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise DataError(f"{twice[:20]!r} is in the vocabulary twice")

    @property
    def kind(self) -> Literal["word"]:
        return "word"

    @cached_property
    def tokens(self) -> Sequence[bytes]:
        end = [b""] if self.has_end_of_text else []
        return [*SINGLE_BYTES, *(word.encode() for word in self.words), *end]

    @property
    def end_of_text(self) -> int | None:
        return len(SINGLE_BYTES) + len(self.words) if self.has_end_of_text else None

    def with_end_of_text(self) -> "WordTokenizer":
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        return {"words": list(self.words)}

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, start=len(SINGLE_BYTES))}

    def _encode_known(self, text: str) -> npt.ArrayLike:
        ids: list[int] = []
        for segment in iter_segments([text]):
            for piece in split_into_words(segment):
                known = self._ids.get(piece)
                if known is None:
                    ids.extend(piece.encode())
                else:
                    ids.append(known)
        return ids


def split_into_words(text: str) -> list[str]:
    """The words, runs of punctuation and white spaces that the text consists of, each with the space before it."""
    return _PIECE.findall(text)


def build_word_tokenizer(segments: Iterable[str], vocabulary_size: int, min_count: int = 1) -> WordTokenizer:
    """A tokenizer for the most frequent words of a text.

    Args:
        segments: the text, as `iter_segments` cuts it.
        vocabulary_size: most tokens, >= 256; fewer if the text has no more words.
        min_count: how often a word has to occur, >= 1.
    """
    counts: Counter[str] = Counter()
    for segment in segments:
        counts.update(split_into_words(segment))
    frequent = [word for word, count in counts.items() if count >= min_count and len(word.encode()) > 1]
    frequent.sort(key=lambda word: (-counts[word], word))
    return WordTokenizer(tuple(frequent[: vocabulary_size - len(SINGLE_BYTES)]))
