"""How much of a held-out text also occurs in the training text, in bounded memory.

Windows of both texts are compared by their hashes, sum_i t_i B^i mod 2^64 (Karp & Rabin 1987), and of many only those
whose hash falls on a fixed fraction of all values, the same in both texts (Manber 1994, "Finding similar files in a
large file system"). A document that is shorter than a window is compared as a whole.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from quickfox.data.dataset import Tokens

Hashes = npt.NDArray[np.uint64]

MAX_FINGERPRINTS = 2**14
"""Maximum number of hashes of the held-out text that are kept, about: the share is then exact to about 0.4 %."""

MAX_READ_TOKENS = 2**25
"""Tokens read of each text, a second or so; of a longer one, parts at equal distances, which may miss copies."""

_PARTS = 32
_CHUNK_LENGTH = 2**20
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_MIXER = np.uint64(0xBF58476D1CE4E5B9)


def measure_overlap(training: Tokens, held_out: Tokens, window: int, end_of_text: int | None) -> float:
    """The share of the held-out text that occurs in the training text, from 0 to 1, about; at least, if a text is long.

    Args:
        training, held_out: the tokens of both texts.
        window: number of tokens that must be the same for a part of the text to count as the same.
        end_of_text: the token after each document; None: plain texts.
    """
    fraction = max(1, min(len(held_out), MAX_READ_TOKENS) // MAX_FINGERPRINTS)
    hashes, weights = _collect(held_out, window, end_of_text, fraction)
    if len(hashes) == 0:
        return 0.0
    is_found = np.zeros(len(hashes), bool)
    for other, _ in _iter_fingerprints(training, window, end_of_text, fraction):
        index = np.minimum(np.searchsorted(hashes, other), len(hashes) - 1)
        is_found[index[hashes[index] == other]] = True
    return float(weights[is_found].sum() / weights.sum())


def _collect(
    tokens: Tokens, window: int, end_of_text: int | None, fraction: int
) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The different hashes of a text, sorted, and the number of tokens for which each stands."""
    parts = list(_iter_fingerprints(tokens, window, end_of_text, fraction))
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    hashes, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    different, index = np.unique(hashes, return_inverse=True)
    return different, np.bincount(index, weights, minlength=len(different)).astype(np.int64)


def _iter_fingerprints(
    tokens: Tokens, window: int, end_of_text: int | None, fraction: int
) -> Iterator[tuple[Hashes, npt.NDArray[np.int64]]]:
    """The hashes of windows and short documents, one in `fraction`, with the number of tokens of each."""
    powers, inverses = _powers(min(_CHUNK_LENGTH, len(tokens)) + window + 2)
    for first, last in _ranges(len(tokens)):
        before = max(0, first - window - 1)  # the longest short document, and the end of the one before it
        ids = tokens.ids[before:last]
        sums = np.zeros(len(ids) + 1, np.uint64)
        np.cumsum((ids.astype(np.uint64) + np.uint64(1)) * powers[: len(ids)], out=sums[1:])
        is_end = ids == end_of_text if end_of_text is not None else np.zeros(len(ids), bool)
        starts, lengths = _units(is_end, window, new=first - before, is_first=before == 0)
        hashes = (sums[starts + lengths] - sums[starts]) * inverses[starts]
        kept = ((hashes * _MIXER) >> np.uint64(40)) % np.uint64(fraction) == 0
        yield hashes[kept], np.where(lengths[kept] < window, lengths[kept] * fraction, fraction)


def _ranges(length: int) -> Iterator[tuple[int, int]]:
    """The chunks of a text, or of parts of it at equal distances."""
    parts = 1 if length <= MAX_READ_TOKENS else _PARTS
    part_length = min(length, MAX_READ_TOKENS) // parts
    for part in range(parts):
        start = part * length // parts
        for first in range(start, start + part_length, _CHUNK_LENGTH):
            yield first, min(first + _CHUNK_LENGTH, start + part_length)


def _units(
    is_end: npt.NDArray[np.bool_], window: int, *, new: int, is_first: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The start and length of the windows within documents, and of the shorter documents, that end after `new` tokens.

    `is_first`: whether the chunk starts with a document.
    """
    n = len(is_end)
    positions = np.arange(n)
    last_end = np.maximum.accumulate(np.where(is_end, positions, -1))  # at or before each position
    stops = np.arange(max(new + 1, window), n + 1)  # of windows, exclusive
    stops = stops[last_end[stops - 1] < stops - window] if len(stops) else stops
    ends = np.flatnonzero(is_end)
    previous = np.append(-1 if is_first else -n, ends[:-1]) if len(ends) else ends
    is_short = (ends - previous - 1 < window) & (ends - previous > 1) & (ends >= new)
    starts = np.concatenate([stops - window, previous[is_short] + 1])
    return starts, np.concatenate([np.full(len(stops), window), (ends - previous - 1)[is_short]])


def _powers(length: int) -> tuple[Hashes, Hashes]:
    """B^i and B^-i mod 2^64."""
    powers, inverses = np.ones((2, length), np.uint64)
    powers[1:], inverses[1:] = np.uint64(_BASE), np.uint64(pow(_BASE, -1, 2**64))
    return np.cumprod(powers, dtype=np.uint64), np.cumprod(inverses, dtype=np.uint64)
