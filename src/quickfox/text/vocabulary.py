"""Count the characters of a corpus and choose a model's vocabulary.

A character is a Unicode code point. Texts are neither normalized nor stripped, so that a model reads and writes what
is in the corpus. Independent of files and token ids.
"""

import reprlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.system.threads import available_threads, map_ahead

CodePoints = npt.NDArray[np.unsignedinteger[Any]]

_MIN_COUNTED_CHARACTERS = 2**17
"""Minimum number of characters counted at a time; twice as many took more memory and no less time."""

SURROGATES = range(0xD800, 0xE000)
"""Code points that only UTF-16 uses, in pairs."""


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a model; the index of a character is its token id.

    Attributes:
        characters: distinct characters, sorted by code point, at least one.
        min_count: minimum number of occurrences in the corpus, >= 1.

    Raises:
        DataError: the characters or the count are not as described, or one is an unpaired surrogate, which cannot
            occur in UTF-8 text.
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
                raise DataError(f"U+{ord(character):04X} is an unpaired surrogate, not a character")
        for before, after in pairwise(self.characters):
            if before == after:
                raise DataError(f"{describe_characters([after])} is in the vocabulary twice")
            if before > after:
                raise DataError(f"characters must be sorted by code point: {after!r} comes before {before!r}")


def count_characters(chunks: Iterable[str]) -> Counter[str]:
    """Counts each character of a text in chunks of any length."""
    totals = np.zeros(0, dtype=np.int64)  # indexed by code point
    for counts in map_ahead(_count_code_points, _merge_chunks(chunks), available_threads()):
        totals, counts = sorted((totals, counts), key=len, reverse=True)
        totals[: len(counts)] += counts
    return Counter({chr(code): int(totals[code]) for code in np.flatnonzero(totals)})


def _merge_chunks(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in chunks large enough to make the fixed cost of counting small."""
    merged: list[str] = []
    length = 0
    for chunk in chunks:
        merged.append(chunk)
        length += len(chunk)
        if length >= _MIN_COUNTED_CHARACTERS:
            yield "".join(merged)
            merged, length = [], 0
    if merged:
        yield "".join(merged)


def _count_code_points(text: str) -> npt.NDArray[np.int64]:
    """Counts of the code points from 0 to at least the highest that occurs."""
    if not text.isascii():
        return np.bincount(code_points(text).astype(np.int64))  # the dtype in which NumPy counts
    # Counting pairs of ASCII characters is almost twice as fast.
    codes = np.frombuffer(text.encode(), np.uint8)
    even = len(codes) // 2 * 2
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=0x10000)
    by_first_and_second = pairs.reshape(0x100, 0x100)
    counts: npt.NDArray[np.int64] = (by_first_and_second.sum(axis=0) + by_first_and_second.sum(axis=1))[:0x80]
    counts[codes[even:]] += 1
    return counts


def build_vocabulary(counts: Counter[str], min_count: int = 1) -> Vocabulary:
    """The vocabulary of the characters that occur at least `min_count` times, >= 1.

    Raises:
        UsageError: `min_count` is above all counts.
        NoInputError: there are no characters.
    """
    if not counts:
        raise NoInputError("the corpus has no characters to build a vocabulary from")
    characters = tuple(sorted(character for character, count in counts.items() if count >= min_count))
    if not characters:
        character, count = counts.most_common(1)[0]
        raise UsageError(
            f"min_count {min_count} excludes every character: the most frequent, {describe_characters([character])}, "
            f"occurs {count} times; choose a lower one",
            "min_count",
        )
    return Vocabulary(characters, min_count)


def leave_out_unknown(text: str, known: Container[str]) -> tuple[str, Counter[str]]:
    """The characters of a text that are in `known`, and the count of each of the others."""
    unknown = Counter(character for character in text if character not in known)
    return "".join(character for character in text if character not in unknown) if unknown else text, unknown


def code_points(text: str) -> CodePoints:
    """The code points of a text, those of unpaired surrogates too: (number of characters,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def describe_characters(characters: Iterable[str], limit: int = 5) -> str:
    """Characters in one printable line: `'é' (U+00E9), '\\x07' (U+0007) and others`."""
    shown = list(islice(characters, limit + 1))
    names = [f"{character!r} (U+{ord(character):04X})" for character in shown[:limit]]
    return ", ".join(names) + (" and others" if len(shown) > limit else "")
