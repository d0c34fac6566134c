"""The characters of a corpus: counting them, and choosing those that a model shall know.

A character is a Unicode code point. Texts are taken as they are: nothing is normalised, folded or stripped, so that
what a model reads and writes is what the corpus holds. Knows no files and no token ids.
"""

import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.system.threads import available_threads, map_ahead

CodePoints = npt.NDArray[np.unsignedinteger[Any]]

_PIECE = 2**17
"""Characters counted at a time, at least; twice as many took more memory and were not counted faster."""

SURROGATES = range(0xD800, 0xE000)
"""The code points of halves of characters of UTF-16."""


@dataclass(frozen=True)
class Vocabulary:
    """The characters a model knows; a character's place in the order is its token id.

    Attributes:
        characters: different single characters, sorted by code point, at least one.
        min_count: how often a character had to occur in the corpus to be one of them, >= 1.

    Raises:
        DataError: the characters or the count are not as described, or one is a lone surrogate, which is half a
            character of UTF-16 and occurs in no UTF-8 text.
    """

    characters: tuple[str, ...]
    min_count: int = 1

    def __post_init__(self) -> None:
        if not self.characters:
            raise DataError("a vocabulary needs at least one character")
        if self.min_count < 1:
            raise DataError(f"min_count must be at least 1, not {reprlib.repr(self.min_count)}")
        for character in self.characters:
            if len(character) != 1:
                raise DataError(f"{character[:20]!r} is not a single character")
            if ord(character) in SURROGATES:
                raise DataError(f"U+{ord(character):04X} is a lone surrogate, not a character")
        for before, after in pairwise(self.characters):
            if before == after:
                raise DataError(f"{describe_characters([after])} is in the vocabulary twice")
            if before > after:
                raise DataError(f"characters must be sorted by code point: {after!r} comes before {before!r}")


def count_characters(chunks: Iterable[str]) -> Counter[str]:
    """How often each character occurs in a text that comes in chunks of any length."""
    totals = np.zeros(0, dtype=np.int64)  # indexed by code point
    for counts in map_ahead(_count_code_points, _gathered(chunks), available_threads()):
        totals, counts = sorted((totals, counts), key=len, reverse=True)
        totals[: len(counts)] += counts
    return Counter({chr(code): int(totals[code]) for code in np.flatnonzero(totals)})


def _gathered(chunks: Iterable[str]) -> Iterator[list[CodePoints]]:
    """The code points of the text, as arrays of one type that are together large enough for their counts, a number for
    each code point there is, to be next to nothing."""
    waiting: list[CodePoints] = []
    length = 0
    for chunk in chunks:
        codes = np.frombuffer(chunk.encode(), np.uint8) if chunk.isascii() else code_points(chunk)
        if waiting and (length >= _PIECE or codes.dtype != waiting[0].dtype):
            yield waiting
            waiting, length = [], 0
        waiting.append(codes)
        length += len(codes)
    if waiting:
        yield waiting


def _count_code_points(parts: list[CodePoints]) -> npt.NDArray[np.int64]:
    """How often each code point occurs, up to the highest that does, or somewhat beyond it."""
    if parts[0].dtype != np.uint8:
        return np.bincount(np.concatenate(parts, dtype=np.int64))  # the type in which NumPy counts, converted to once
    # Pairs of ASCII characters are half as many, and counted almost twice as fast.
    codes = np.concatenate(parts)
    even = len(codes) // 2 * 2
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=0x10000)
    by_first_and_second = pairs.reshape(0x100, 0x100)
    counts: npt.NDArray[np.int64] = (by_first_and_second.sum(axis=0) + by_first_and_second.sum(axis=1))[:0x80]
    counts[codes[even:]] += 1
    return counts


def build_vocabulary(counts: Counter[str], min_count: int = 1) -> Vocabulary:
    """The vocabulary of the characters that occur at least `min_count` times.

    Raises:
        UsageError: `min_count` is below 1, or so high that no character is left.
        NoInputError: no characters were counted.
    """
    if min_count < 1:
        raise UsageError(f"min-count must be at least 1, not {min_count}")
    if not counts:
        raise NoInputError("the corpus has no characters to build a vocabulary from")
    characters = tuple(sorted(character for character, count in counts.items() if count >= min_count))
    if not characters:
        commonest, count = counts.most_common(1)[0]
        raise UsageError(
            f"min-count {min_count} leaves no character: the commonest, {describe_characters([commonest])}, "
            f"occurs {count} times; choose a lower one"
        )
    return Vocabulary(characters, min_count)


def code_points(text: str) -> CodePoints:
    """The code points of a text: (number of characters,) uint32. Lone surrogates pass, for others to refuse."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def describe_characters(characters: Iterable[str], limit: int = 5) -> str:
    """Characters named for a message, fit for one line of any terminal: `'é' (U+00E9), '\\x07' (U+0007) and others`."""
    shown = list(islice(characters, limit + 1))
    names = [f"{character!r} (U+{ord(character):04X})" for character in shown[:limit]]
    return ", ".join(names) + (" and others" if len(shown) > limit else "")
