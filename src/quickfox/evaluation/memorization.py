"""Text copied verbatim from a corpus: the longest copies in samples, and a check that prevents copies while sampling.

Substrings of equal length are compared by their polynomial hashes modulo 2^64 (Karp & Rabin 1987, "Efficient randomized
pattern-matching algorithms"). Independent of models, tokenizers and files.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from quickfox.text.hashing import Hashes, Indices, SubstringHasher

_FIRST_CHUNK = 1 << 12
_CHUNK = 1 << 18
"""Characters of a corpus hashed at a time; each needs about 50 bytes of memory."""


class CopyIndex:
    """The substrings of `max_copy` + 1 characters of a corpus, to detect a text that continues with one of them.

    It stores a hash of 8 bytes for each; building it needs twice as much. Two different substrings have the same hash
    with probability 2^-64, except for texts made to collide (Thue-Morse words of 1,024 characters). A collision bans a
    token that copies no text; a copy is never missed.

    Args:
        chunks: the corpus's text, in chunks of any length.
        max_copy: number of consecutive characters that may be copied, >= 0.
    """

    def __init__(self, chunks: Iterable[str], max_copy: int) -> None:
        self.max_copy = max_copy
        overlapping = _iter_overlapping(chunks, max_copy, _CHUNK)
        self._hashes = np.concatenate([SubstringHasher(chunk).hash_all(max_copy + 1) for _, chunk in overlapping])
        self._hashes.sort()

    def would_copy(self, text: str, token_text: str) -> bool:
        """Whether a text, followed by a token, contains a copy of more than `max_copy` characters that ends in it.

        Of the text, the last `max_copy` characters matter; the token has one or more characters.
        """
        new = text[max(0, len(text) - self.max_copy) :] + token_text
        return bool(_is_in(SubstringHasher(new).hash_all(self.max_copy + 1), self._hashes).any())


@dataclass(frozen=True)
class Copy:
    """A substring of a sample that also occurs in a corpus.

    Attributes:
        text: the substring; empty if sample and corpus have no character in common.
        sample_start: index of its first occurrence in the sample, in characters.
        corpus_start: index of its first occurrence in the corpus, in characters.
    """

    text: str
    sample_start: int = 0
    corpus_start: int = 0


def longest_copies(samples: Sequence[str], chunks: Iterable[str]) -> list[Copy]:
    """The longest substring of each sample that occurs in a corpus; of several, the first of the corpus.

    Args:
        samples: texts of any length.
        chunks: the corpus's text, in chunks of any length; iterated once.
    """
    searches = [_CopySearch(sample) for sample in samples]
    overlap = max(map(len, samples), default=0)  # so that every possible copy is within one chunk
    # Most chunks have no longer copy than the earlier ones, which is quickly seen; the first ones have, and are short.
    for offset, chunk in _iter_overlapping(chunks, overlap, max(_FIRST_CHUNK, overlap)):
        hasher = SubstringHasher(chunk)
        unfinished = [search for search in searches if search.length < len(search.sample)]
        unfinished.sort(key=attrgetter("length"))
        for length, equal in groupby(unfinished, key=attrgetter("length")):
            same_length = list(equal)
            wanted = np.sort(np.concatenate([search.hasher.hash_all(length + 1) for search in same_length]))
            starts = np.flatnonzero(_is_in_few(hasher.hash_all(length + 1), wanted))
            for search in same_length:
                search.extend(chunk, offset, hasher, starts)
    return [search.longest for search in searches]


class _CopySearch:
    """The search for the longest copy in one sample."""

    def __init__(self, sample: str) -> None:
        self.sample = sample
        self.hasher = SubstringHasher(sample)
        self.longest = Copy("")

    @property
    def length(self) -> int:
        """Number of characters of the longest copy found so far."""
        return len(self.longest.text)

    def extend(self, chunk: str, offset: int, hasher: "SubstringHasher", starts: Indices) -> None:
        """Find a longer copy in the chunk at index `offset` of the corpus, if there is one.

        Args:
            hasher: of the chunk.
            starts: indices in the chunk where longer copies may begin, ascending.
        """
        step = 1
        while step:
            length = self.length + step
            fitting = starts[starts <= len(chunk) - length]
            wanted = np.sort(self.hasher.hash_all(length))
            matching = fitting[_is_in(hasher.hash_at(fitting, length), wanted)]
            longer = next((start for start in matching.tolist() if chunk[start : start + length] in self.sample), None)
            if longer is None:
                step //= 2
                continue
            text = chunk[longer : longer + length]
            self.longest = Copy(text, self.sample.index(text), offset + longer)
            starts = matching
            step *= 2


def _is_in(hashes: Hashes, sorted_hashes: Hashes) -> npt.NDArray[np.bool_]:
    """For each hash, whether it is in an ascending array."""
    return sorted_hashes.searchsorted(hashes, "left") < sorted_hashes.searchsorted(hashes, "right")


def _is_in_few(hashes: Hashes, sorted_hashes: Hashes) -> npt.NDArray[np.bool_]:
    """`_is_in` for many hashes in a short array."""
    # A table of the first bits rejects most hashes, several times faster than a search.
    bits = max(16, (32 * len(sorted_hashes)).bit_length())
    shift = np.uint64(64 - bits)
    table = np.zeros(1 << bits, np.bool_)
    table[sorted_hashes >> shift] = True
    found: npt.NDArray[np.bool_] = table[hashes >> shift]
    found[found] = _is_in(hashes[found], sorted_hashes)
    return found


def _iter_overlapping(chunks: Iterable[str], overlap: int, first_size: int) -> Iterator[tuple[int, str]]:
    """A text in overlapping chunks with their offsets; each begins with the last `overlap` characters of the previous.

    The offset of the second chunk is `first_size`; the distance between offsets then doubles up to `_CHUNK`.
    """
    offset, size, buffer = 0, first_size, ""
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= overlap + size:
            yield offset, buffer[: overlap + size]
            offset += size
            buffer = buffer[size:]
            size = max(size, min(2 * size, _CHUNK))
    yield offset, buffer
