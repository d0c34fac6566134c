"""What a text has copied verbatim from a corpus: found in samples afterwards, or foreseen while they are drawn.

Windows, which are all stretches of one length, are compared by their polynomial hashes (Karp and Rabin, "Efficient
randomized pattern-matching algorithms", 1987), modulo 2^64. Knows texts, neither models nor tokens nor files.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from quickfox.text.vocabulary import code_points

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
"""Of the polynomials, modulo 2^64; an arbitrary odd number, because only those have an inverse."""

_FIRST_BLOCK = 1 << 12
_BLOCK = 1 << 18
"""Characters of a corpus to hash at a time, in some 50 bytes each."""


class CopyIndex:
    """The stretches of `max_copy` + 1 characters of a corpus, to tell whether a text goes on with one of them.

    It keeps a hash of 8 bytes for each, twice as much while it is built. Hashes of two stretches are the same once in
    2^64 times, but for words made to collide (Thue and Morse's, of 1,024 characters); then a text is taken for a copy
    that is none, and a token not drawn that might have been. A copy is never missed.

    Args:
        chunks: the corpus's text, in pieces of any length.
        max_copy: how many characters may be copied, >= 0.
    """

    def __init__(self, chunks: Iterable[str], max_copy: int) -> None:
        self.max_copy = max_copy
        blocks = _iter_blocks(chunks, max_copy, _BLOCK)
        self._hashes = np.concatenate([_Windows(block).hashes(max_copy + 1) for _, block in blocks])
        self._hashes.sort()

    def would_copy(self, before: str, piece: str) -> bool:
        """Whether a text would hold more than `max_copy` characters of the corpus in a row, ending inside of `piece`.

        Args:
            before: the text so far, of which the last `max_copy` characters matter.
            piece: what would follow: one or more characters.
        """
        new = before[max(0, len(before) - self.max_copy) :] + piece
        return bool(_are_among(_Windows(new).hashes(self.max_copy + 1), self._hashes).any())


@dataclass(frozen=True)
class Copy:
    """A stretch of a sample that is in a corpus too.

    Attributes:
        text: the stretch; empty if sample and corpus have no character in common.
        sample_start: the first place in the sample where it is, in characters.
        corpus_start: the first place in the corpus where it is, in characters.
    """

    text: str
    sample_start: int = 0
    corpus_start: int = 0


def longest_copies(samples: Sequence[str], chunks: Iterable[str]) -> list[Copy]:
    """The longest stretch of each sample that is copied verbatim from a corpus; of several, the corpus's first.

    Args:
        samples: texts of any length.
        chunks: the corpus's text, in pieces of any length; read once.
    """
    searches = [_Search(sample) for sample in samples]
    overlap = max(map(len, samples), default=0)  # so that every possible copy is in one block as a whole
    # Most blocks have nothing longer than was found before, which is seen at once; the first have, and are small.
    for offset, block in _iter_blocks(chunks, overlap, max(_FIRST_BLOCK, overlap)):
        windows = _Windows(block)
        unfinished = sorted((search for search in searches if not search.is_over), key=attrgetter("length"))
        for length, group in groupby(unfinished, key=attrgetter("length")):
            alike = list(group)
            wanted = np.sort(np.concatenate([search.windows.hashes(length + 1) for search in alike]))
            starts = np.flatnonzero(_are_among_few(windows.hashes(length + 1), wanted))
            for search in alike:
                search.lengthen(block, offset, windows, starts)
    return [search.found for search in searches]


class _Search:
    """The search for the longest copy in one sample."""

    def __init__(self, sample: str) -> None:
        self.sample = sample
        self.windows = _Windows(sample)
        self.found = Copy("")

    @property
    def length(self) -> int:
        """The characters of the longest copy so far."""
        return len(self.found.text)

    @property
    def is_over(self) -> bool:
        return self.length == len(self.sample)

    def lengthen(self, block: str, offset: int, windows: "_Windows", starts: Places) -> None:
        """Find a longer copy, if there is one in a block of the corpus.

        Args:
            block: the text.
            offset: its place in the corpus.
            windows: its windows.
            starts: the places in it where longer copies may begin, ascending.
        """
        step = 1
        while step:
            length = self.length + step
            fitting = starts[starts <= len(block) - length]
            wanted = np.sort(self.windows.hashes(length))
            matching = fitting[_are_among(windows.hashes_at(fitting, length), wanted)]
            longer = next((start for start in matching.tolist() if block[start : start + length] in self.sample), None)
            if longer is None:
                step //= 2
                continue
            text = block[longer : longer + length]
            self.found = Copy(text, self.sample.index(text), offset + longer)
            starts = matching
            step *= 2


class _Windows:
    """The windows of a text: the hash of the characters c, d, e is c + d b + e b^2, that of any length alike.

    With the sums of c b + d b^2 + ... up to every place in the text, a window's hash is the difference of two, scaled.
    """

    def __init__(self, text: str) -> None:
        codes = code_points(text).astype(np.uint64)
        self._sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes * _powers(_BASE, len(codes)), out=self._sums[1:])
        self._scales = _powers(_INVERSE, len(codes))

    def hashes(self, length: int) -> Hashes:
        """Of all windows of `length` characters, >= 1, in the order of the text; none if it is shorter."""
        differences = self._sums[length:] - self._sums[:-length]
        return differences * self._scales[: len(differences)]

    def hashes_at(self, starts: Places, length: int) -> Hashes:
        """Of the windows of `length` characters that begin at `starts`; all are within the text."""
        return (self._sums[starts + length] - self._sums[starts]) * self._scales[starts]


@lru_cache(maxsize=4)  # a third of the time of `would_copy`, which asks for the same few over and over
def _powers(base: int, count: int) -> Hashes:
    """b, b^2, ..., b^count, modulo 2^64; not to be changed."""
    return np.multiply.accumulate(np.full(count, base, np.uint64))


def _are_among(hashes: Hashes, ordered: Hashes) -> npt.NDArray[np.bool_]:
    """For each hash whether it is among those of an ascending array."""
    return ordered.searchsorted(hashes, "left") < ordered.searchsorted(hashes, "right")


def _are_among_few(hashes: Hashes, ordered: Hashes) -> npt.NDArray[np.bool_]:
    """The same for many hashes among few."""
    # Most are told by their first bits, in a table, which is several times faster than a search.
    bits = max(16, (32 * len(ordered)).bit_length())
    rest = np.uint64(64 - bits)
    table = np.zeros(1 << bits, np.bool_)
    table[ordered >> rest] = True
    found: npt.NDArray[np.bool_] = table[hashes >> rest]
    found[found] = _are_among(hashes[found], ordered)
    return found


def _iter_blocks(chunks: Iterable[str], overlap: int, first_size: int) -> Iterator[tuple[int, str]]:
    """A text in blocks with their places in it; each begins with the last `overlap` characters of the one before.

    Args:
        chunks: the text, in pieces of any length.
        overlap: >= 0.
        first_size: characters by which the second block begins later than the first; it doubles up to `_BLOCK`.
    """
    offset, size, held = 0, first_size, ""
    for chunk in chunks:
        held += chunk
        while len(held) >= overlap + size:
            yield offset, held[: overlap + size]
            offset += size
            held = held[size:]
            size = max(size, min(2 * size, _BLOCK))
    yield offset, held
