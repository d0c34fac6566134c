"""Count the n-grams of all orders up to K of a token sequence, from one sort of its positions.

The rows of a `SortedText` are the positions of the text in the order of the K tokens from each of them on: a suffix
array (Manber & Myers 1993, "Suffix arrays") whose comparisons end after K tokens. Each n-gram of order k <= K is a run
of rows that share their first k tokens, and the runs are in lexicographic order, so that the n-grams of all orders form
a trie. An n-gram of order k is numbered by its place in that order, among the n-grams that are kept; with c the number
of its first k - 1 tokens, its key is the int64 c V + last token.

The n-grams of an order are counted in chunks of rows, one after the other. All counts are exact, and rare n-grams can
be dropped after each chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from quickfox.system.threads import map_ahead

CHUNK_TOKENS = 2**21
"""Rows sorted or counted at a time, about."""

ABSENT = -1
"""The number of an n-gram that is not kept."""

_MAX_LEADING = 2**16  # different first tokens by which the positions are divided before they are sorted
_MAX_WORD = 2**63  # of an int64, exclusive


@dataclass(frozen=True, eq=False)
class SortedText:
    """The positions of a text of N tokens, sorted by the K tokens from each of them on.

    Attributes:
        ids: (N,) token ids.
        vocabulary_size: V.
        order: K.
        starts: (N,) int32, the position of each row.
        shared: (N,) uint8, how many of its first K tokens a row shares with the row before it; 0 for the first. The
            array of longest common prefixes (LCP) of a suffix array, up to K.
        repeated: (N,) uint8, one less than `shared` of the row of the position before, at least 0; 0 for the start of
            the text. Of the rows of an n-gram of order k < K, those with less than k are as many as there are different
            tokens before it, the start of the text being one; of order K, all rows have less.
    """

    ids: np.ndarray
    vocabulary_size: int
    order: int
    starts: np.ndarray
    shared: np.ndarray
    repeated: np.ndarray


def sort_text(ids: np.ndarray, vocabulary_size: int, order: int, threads: int = 1) -> SortedText:
    """Sorts the positions of a text.

    Args:
        ids: (N,) token ids, uint8, uint16 or uint32, N >= 1.
        vocabulary_size: V.
        order: K, >= 1.
        threads: number of parts sorted at the same time.
    """
    base = vocabulary_size + 1
    symbols = np.zeros(len(ids) + order, np.min_scalar_type(vocabulary_size))  # 0: the end of the text
    symbols[: len(ids)] = ids
    symbols[: len(ids)] += 1
    starts, shared = np.empty(len(ids), np.int32), np.empty(len(ids), np.uint8)

    def sort_part(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        words = _pack(symbols, positions, base, order)
        rows = np.argsort(words[0]) if len(words) == 1 else np.lexsort(words[::-1])
        return positions[rows], _count_shared([word[rows] for word in words], base, order)

    first = 0
    parts = _divide_positions(symbols, np.arange(len(ids), dtype=np.int32), base, order)
    for part, part_shared in map_ahead(sort_part, parts, threads):
        if first:
            neighbors = symbols[part[0] :][:order] == symbols[starts[first - 1] :][:order]
            part_shared[0] = np.argmin(np.append(neighbors, False))
        rows = slice(first, first + len(part))
        starts[rows], shared[rows] = part, part_shared
        first += len(part)
    by_position = np.empty(len(ids) + 1, np.uint8)  # of the position before
    by_position[0], by_position[starts + 1] = 0, np.maximum(shared, 1) - 1
    return SortedText(ids, vocabulary_size, order, starts, shared, by_position[starts])


def _divide_positions(
    symbols: np.ndarray, positions: np.ndarray, base: int, order: int, first: int = 0
) -> Iterator[np.ndarray]:
    """Positions in parts of at most CHUNK_TOKENS, in the order of their symbols; all have the same `first` symbols."""
    chunks = [slice(start, start + CHUNK_TOKENS) for start in range(0, len(positions), CHUNK_TOKENS)]
    if len(chunks) == 1 or first == order:  # in the latter case they are equal
        yield from (positions[chunk] for chunk in chunks)
        return
    end = first + 1
    while end < order and base ** (end + 1 - first) <= _MAX_LEADING:
        end += 1
    counts = np.zeros(base ** (end - first), np.int64)
    leading = np.empty(len(positions), np.min_scalar_type(len(counts) - 1))
    for chunk in chunks:
        leading[chunk] = _number(symbols, positions[chunk], base, range(first, end))
        counts += np.bincount(leading[chunk], minlength=len(counts))
    ends = np.cumsum(counts)
    lowest, done = 0, 0
    while done < len(positions):
        nonempty, full = np.searchsorted(ends, [done, done + CHUNK_TOKENS], "right").tolist()
        limit = max(nonempty + 1, full)
        part = positions  # not copied if it is all of them, as in a text of one token
        if ends[limit - 1] - done < len(positions):
            parts = [positions[chunk][(leading[chunk] >= lowest) & (leading[chunk] < limit)] for chunk in chunks]
            part = np.concatenate(parts)
        yield from _divide_positions(symbols, part, base, order, end)
        lowest, done = limit, int(ends[limit - 1])


def _pack(symbols: np.ndarray, positions: np.ndarray, base: int, order: int) -> list[np.ndarray]:
    """The symbols from each position on as digits of numbers, the first symbols in the first number, (n,) int64."""
    return [_number(symbols, positions, base, digits) for digits in _digits(base, order)]


def _number(symbols: np.ndarray, positions: np.ndarray, base: int, digits: range) -> np.ndarray:
    """The symbols at some distances from each position as the digits of a number: (n,) int64."""
    number = np.zeros(len(positions), np.int64)
    for distance in digits:
        number *= base
        number += symbols[positions + distance]
    return number


def _count_shared(words: list[np.ndarray], base: int, order: int) -> np.ndarray:
    """`SortedText.shared` of some rows, from `_pack` of them; 0 for the first."""
    shared = np.zeros(len(words[0]), np.uint8)
    is_equal = np.ones(len(shared) - 1, bool)  # in all words before
    for word, digits in zip(words, _digits(base, order), strict=True):
        for rest in range(len(digits))[::-1]:
            first_digits = word // base**rest
            # Two ends of the text are never compared: the shorter of two rows differs from the other there.
            shared[1:] += is_equal & (first_digits[1:] == first_digits[:-1])
        is_equal &= word[1:] == word[:-1]
    return shared


def _digits(base: int, order: int) -> list[range]:
    """The symbols of each number of `_pack`: as many as fit in 63 bits."""
    size = 1
    while base ** (size + 1) <= _MAX_WORD:
        size += 1
    return [range(first, min(first + size, order)) for first in range(0, order, size)]


class NgramCounts(NamedTuple):
    """Counts of n-grams of one order.

    Attributes:
        keys: (n,) int64, sorted.
        counts: (n,) int32, number of occurrences.
        adjusted: (n,) int32, number of different tokens before it, where the start of the text counts as one; of the
            highest order, `counts`.
    """

    keys: np.ndarray
    counts: np.ndarray
    adjusted: np.ndarray

    def select(self, rows: np.ndarray) -> "NgramCounts":
        """The counts of some of the n-grams."""
        return NgramCounts(*(column[rows] for column in self))


class Runs(NamedTuple):
    """The runs of rows of a chunk that share their first k tokens.

    Attributes:
        firsts: (m,) int64, the first row of each run, counted from the start of the chunk.
        is_kept: (m,) bool, whether it is an n-gram whose context is kept, and not a shorter end of the text.
        keys: (n,) int64, of those n-grams.
    """

    firsts: np.ndarray
    is_kept: np.ndarray
    keys: np.ndarray


def count_ngrams(text: SortedText, contexts: np.ndarray, order: int, threads: int = 1) -> Iterator[NgramCounts]:
    """Counts the n-grams of one order.

    Args:
        text: the text.
        contexts: (N,) int32, the number of the (k - 1)-gram that begins each row; ABSENT: the row is not counted.
        order: k.
        threads: number of chunks counted at the same time.

    Yields:
        The k-grams of each chunk of rows, so that all keys are sorted.
    """

    def count_chunk(rows: slice) -> NgramCounts:
        firsts, is_kept, keys = find_runs(text, contexts, order, rows)
        counts = np.diff(firsts, append=rows.stop - rows.start)[is_kept]
        adjusted = np.add.reduceat(text.repeated[rows] < order, firsts, dtype=np.int32)[is_kept]
        return NgramCounts(keys, counts.astype(np.int32), adjusted)

    return map_ahead(count_chunk, _iter_chunks(text.shared, order), threads)


def advance_contexts(text: SortedText, contexts: np.ndarray, order: int, keys: np.ndarray, threads: int = 1) -> None:
    """Replaces the number of the (k - 1)-gram that begins each row by that of the k-gram, in place.

    Args:
        text, contexts, order, threads: as for `count_ngrams`.
        keys: (n,) int64, the k-grams that are kept, sorted.
    """

    def find_chunk(rows: slice) -> np.ndarray:
        firsts, is_kept, wanted = find_runs(text, contexts, order, rows)
        numbers = np.full(len(firsts), ABSENT, np.int32)
        if len(keys):
            found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            numbers[is_kept] = np.where(keys[found] == wanted, found, ABSENT)
        return np.repeat(numbers, np.diff(firsts, append=rows.stop - rows.start))

    chunks = list(_iter_chunks(text.shared, order))
    for rows, numbers in zip(chunks, map_ahead(find_chunk, chunks, threads), strict=True):
        contexts[rows] = numbers


def smallest_count(counts: np.ndarray, max_ngrams: int) -> int:
    """The smallest threshold with at most `max_ngrams` counts (n,) at or above it."""
    if len(counts) <= max_ngrams:
        return 1
    return int(np.partition(counts, -max_ngrams - 1)[-max_ngrams - 1]) + 1


def _iter_chunks(shared: np.ndarray, order: int) -> Iterator[slice]:
    """Chunks of about CHUNK_TOKENS rows that end with a run of an order."""
    start = 0
    while start < len(shared):
        end = min(start + CHUNK_TOKENS, len(shared))
        while end < len(shared) and shared[end] >= order:  # a long run ends in a later chunk
            following = shared[end : end + CHUNK_TOKENS] < order
            end += int(following.argmax()) if following.any() else len(following)
        yield slice(start, end)
        start = end


def find_runs(text: SortedText, contexts: np.ndarray, order: int, rows: slice) -> Runs:
    """The runs of an order k in a chunk of rows, which begins and ends with a run; arguments as for `count_ngrams`."""
    firsts = np.flatnonzero(text.shared[rows] < order)
    run_contexts, ends = contexts[rows][firsts], text.starts[rows][firsts] + (order - 1)
    is_kept = (run_contexts != ABSENT) & (ends < len(text.ids))
    keys = run_contexts[is_kept].astype(np.int64) * text.vocabulary_size
    keys += text.ids[ends[is_kept]]
    return Runs(firsts, is_kept, keys)
