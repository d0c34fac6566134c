"""Count the n-grams of a token sequence order by order, in bounded memory; independent of smoothing.

The n-grams of one order are a sorted array of int64 keys,

    key = (index of the first k - 1 tokens among the (k - 1)-grams) * V + last token,

so that the n-grams form a trie, and any order and vocabulary fits: an index is below 2**31, a token below 2**24.
The tokens before each position are represented by one number, the index of that (k - 1)-gram.
"""

import numpy as np

from quickfox.system.threads import map_ahead

CHUNK_TOKENS = 2**21
"""Tokens counted at a time."""

ABSENT = -1
"""The index of an n-gram that is not in the table."""


def count_order(
    ids: np.ndarray, contexts: np.ndarray, vocabulary_size: int, max_ngrams: int, threads: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts the k-grams of a text.

    Args:
        ids: (N,) token ids, any unsigned dtype.
        contexts: (N,) int32, index of the (k - 1)-gram before each token; ABSENT: the token is not counted.
        vocabulary_size: V.
        max_ngrams: maximum size of the table; when it is exceeded, the rarest n-grams are dropped (the lossy counting
            of Manku & Motwani 2002).
        threads: number of chunks counted at the same time.

    Returns:
        keys (n,) int64, sorted; counts (n,) int64; and the smallest count that was kept.
    """
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    min_count = 1

    def count_chunk(start: int) -> tuple[np.ndarray, np.ndarray]:
        chunk = slice(start, start + CHUNK_TOKENS)
        chunk_keys = _make_keys(contexts[chunk], ids[chunk], vocabulary_size)
        return np.unique(chunk_keys[contexts[chunk] != ABSENT], return_counts=True)

    for chunk_keys, chunk_counts in map_ahead(count_chunk, range(0, len(ids), CHUNK_TOKENS), threads):
        keys, counts = _merge(keys, counts, chunk_keys, chunk_counts)
        if len(keys) > max_ngrams:
            min_count = max(min_count, smallest_count(counts, max_ngrams))
            is_kept = counts >= min_count
            keys, counts = keys[is_kept], counts[is_kept]
    return keys, counts, min_count


def advance_contexts(
    ids: np.ndarray, contexts: np.ndarray, vocabulary_size: int, keys: np.ndarray, threads: int
) -> None:
    """Replaces the index of the (k - 1)-gram before each token by that of the k-gram, in place.

    Args:
        ids, contexts, vocabulary_size, threads: as for `count_order`.
        keys: (n,) int64, the k-grams.
    """

    def find_chunk(start: int) -> np.ndarray:
        chunk = slice(start, start + CHUNK_TOKENS)
        return find_ngrams(keys, _make_keys(contexts[chunk], ids[chunk], vocabulary_size))

    # From the end of the text to its start: what a chunk writes, up to one element after it, was read before.
    starts = range(0, len(ids), CHUNK_TOKENS)[::-1]
    for start, found in zip(starts, map_ahead(find_chunk, starts, threads), strict=True):
        following = contexts[start + 1 : start + 1 + len(found)]  # shorter at the end of the text
        following[:] = found[: len(following)]
    contexts[:1] = ABSENT


def find_ngrams(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
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


def smallest_count(counts: np.ndarray, max_ngrams: int) -> int:
    """The smallest threshold with at most `max_ngrams` counts (n,) int64 at or above it."""
    if len(counts) <= max_ngrams:
        return 1
    return int(np.partition(counts, -max_ngrams - 1)[-max_ngrams - 1]) + 1


def _make_keys(contexts: np.ndarray, ids: np.ndarray, vocabulary_size: int) -> np.ndarray:
    keys: np.ndarray = contexts.astype(np.int64) * vocabulary_size + ids  # negative where the context is absent
    return keys


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
