"""Count the n-grams of a token sequence order by order, in bounded memory; independent of smoothing.

The n-grams of one order are a sorted array of int64 keys,

    key = (index of the first k - 1 tokens among the (k - 1)-grams) * V + last token,

so that the n-grams form a trie, and any order and vocabulary fits: an index is below 2**31, a token below 2**24.
The tokens before each position are represented by one number, the index of that (k - 1)-gram.

The n-grams of an order are counted in ranges of contexts, one after the other, each in a pass over the text. All counts
are exact, and rare n-grams can be dropped after each range.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from quickfox.system.threads import map_ahead

CHUNK_TOKENS = 2**21
"""Tokens counted at a time, about."""

_MAX_INDEXED_KEYS, _INDEXED_KEYS_PER_TOKEN = 2**25, 16  # possible keys up to which all are indexed, not searched for

ABSENT = -1
"""The index of an n-gram that is not in the table."""


class NgramCounts(NamedTuple):
    """Counts of n-grams of one order.

    Attributes:
        keys: (n,) int64, sorted.
        counts: (n,) int64, number of occurrences.
        predecessors: (n,) int64, number of different tokens before it; the start of the text counts as one.
    """

    keys: np.ndarray
    counts: np.ndarray
    predecessors: np.ndarray

    def select(self, rows: np.ndarray) -> "NgramCounts":
        """The counts of some of the n-grams."""
        return NgramCounts(*(column[rows] for column in self))


def count_ngrams(
    ids: np.ndarray, contexts: np.ndarray, context_counts: np.ndarray, vocabulary_size: int, order: int, threads: int
) -> Iterator[NgramCounts]:
    """Counts the n-grams of one order.

    Args:
        ids: (N,) token ids, uint8, uint16 or uint32.
        contexts: (N,) int32, index of the (k - 1)-gram before each token; ABSENT: the token is not counted.
        context_counts: (m,) int64, number of occurrences of each (k - 1)-gram.
        vocabulary_size: V.
        order: k.
        threads: number of ranges counted at the same time.

    Yields:
        The k-grams of each range of contexts, so that all keys are sorted.
    """

    def count_range(bounds: tuple[int, int]) -> NgramCounts:
        first, end = bounds
        triples, counts = _count_triples(ids, contexts, first, end, vocabulary_size, order)
        keys = triples // (vocabulary_size + 1)
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        sums = np.diff(np.append(0, np.cumsum(counts))[np.append(starts, len(keys))])
        return NgramCounts(keys[starts] + first * vocabulary_size, sums, np.diff(starts, append=len(keys)))

    return map_ahead(count_range, _context_ranges(context_counts, vocabulary_size), threads)


def advance_contexts(
    ids: np.ndarray, contexts: np.ndarray, vocabulary_size: int, keys: np.ndarray, threads: int
) -> None:
    """Replaces the index of the (k - 1)-gram before each token by that of the k-gram, in place.

    Args:
        ids, contexts, vocabulary_size: as for `count_ngrams`.
        keys: (n,) int64, the k-grams.
        threads: number of chunks processed at the same time.
    """

    find = _index_keys(keys, len(ids))

    def find_chunk(start: int) -> np.ndarray:
        chunk = slice(start, start + CHUNK_TOKENS)
        return find(contexts[chunk].astype(np.int64) * vocabulary_size + ids[chunk])

    # From the end of the text to its start: what a chunk writes, up to one element after it, was read before.
    starts = range(0, len(ids), CHUNK_TOKENS)[::-1]
    for start, found in zip(starts, map_ahead(find_chunk, starts, threads), strict=True):
        following = contexts[start + 1 : start + 1 + len(found)]  # shorter at the end of the text
        following[:] = found[: len(following)]
    contexts[:1] = ABSENT


def smallest_count(counts: np.ndarray, max_ngrams: int) -> int:
    """The smallest threshold with at most `max_ngrams` counts (n,) int64 at or above it."""
    if len(counts) <= max_ngrams:
        return 1
    return int(np.partition(counts, -max_ngrams - 1)[-max_ngrams - 1]) + 1


def _context_ranges(context_counts: np.ndarray, vocabulary_size: int) -> Iterator[tuple[int, int]]:
    """Ranges of contexts with at most CHUNK_TOKENS occurrences together, or of one context."""
    max_contexts = (2**63 - 1) // (vocabulary_size * (vocabulary_size + 1))  # of which triples are below 2**63
    ends = np.cumsum(context_counts)
    first = 0
    while first < len(ends):
        max_end = ends[first] - context_counts[first] + CHUNK_TOKENS
        end = max(first + 1, int(np.searchsorted(ends, max_end, side="right")))
        end = min(end, first + max_contexts)
        yield first, end
        first = end


def _count_triples(
    ids: np.ndarray, contexts: np.ndarray, first: int, end: int, vocabulary_size: int, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """The triples of context, last token and token before the context, as sorted numbers, and their counts."""
    triples, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    waiting: list[np.ndarray] = []
    for start in range(0, len(ids), CHUNK_TOKENS):
        chunk = contexts[start : start + CHUNK_TOKENS]
        positions = start + np.flatnonzero((chunk >= first) & (chunk < end))
        keys = (contexts[positions].astype(np.int64) - first) * vocabulary_size + ids[positions]
        before = np.where(positions >= order, ids[positions - order], np.int64(vocabulary_size))  # V: start of the text
        waiting.append(keys * (vocabulary_size + 1) + before)
        if sum(map(len, waiting)) >= CHUNK_TOKENS or start + CHUNK_TOKENS >= len(ids):
            triples, counts = _merge(triples, counts, *np.unique(np.concatenate(waiting), return_counts=True))
            waiting = []
    return triples, counts


def _index_keys(keys: np.ndarray, num_tokens: int) -> Callable[[np.ndarray], np.ndarray]:
    """`_find_keys` for some `keys`, faster if they fill enough of their range for a text of that length."""
    size = int(keys[-1]) + 1 if len(keys) else 0
    if size > min(_MAX_INDEXED_KEYS, _INDEXED_KEYS_PER_TOKEN * num_tokens):
        return partial(_find_keys, keys)
    table = np.full(size + 2, ABSENT, np.int32)  # of each key plus one; the first and last of what is out of range
    table[keys + 1] = np.arange(len(keys))
    return lambda wanted: table.take(wanted + 1, mode="clip")


def _find_keys(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The index of each key `wanted` (m,) int64 in `keys` (n,), or ABSENT: (m,) int32."""
    found = np.full(len(wanted), ABSENT, np.int32)
    possible = np.flatnonzero(wanted >= 0)
    if len(keys) == 0:
        return found
    # A search in order reads `keys` in order too: twice as fast, sorting included.
    order = possible[np.argsort(wanted[possible])]
    sorted_wanted = wanted[order]
    index = np.minimum(np.searchsorted(keys, sorted_wanted), len(keys) - 1)
    found[order] = np.where(keys[index] == sorted_wanted, index, ABSENT)
    return found


def _merge(
    keys: np.ndarray, counts: np.ndarray, new_keys: np.ndarray, new_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The union of two sorted tables, with the sums of their counts; `counts` is overwritten."""
    if len(keys) == 0:
        return new_keys, new_counts
    index = np.searchsorted(keys, new_keys)
    is_known = keys[np.minimum(index, len(keys) - 1)] == new_keys
    counts[index[is_known]] += new_counts[is_known]
    is_new = ~is_known
    return np.insert(keys, index[is_new], new_keys[is_new]), np.insert(counts, index[is_new], new_counts[is_new])
