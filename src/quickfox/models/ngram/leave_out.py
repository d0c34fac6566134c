"""An n-gram model of a text without one of its blocks, for the positions of the text itself.

A network trained with an n-gram model needs the distributions of a model that has not counted the position itself:
otherwise the model knows every training text by heart, and says nothing of other texts. The text is divided into
BLOCKS blocks, and each block gets the distributions estimated from the others. Each block is treated as a text of its
own: n-grams that cross from one block to the next are not counted, and the start of each block is a start of the text.
So an n-gram belongs to one block, and the counts of the others are the counts of all minus those of the block.

All blocks share the tables of the whole text, and have probabilities of their own:

    alpha_j(w | h) as in `kneser_ney`, of the text without block j; 0: not in that text, or left out.

What has alpha 0 is no context. If the tables leave out n-grams for their small counts, all with a smaller count than
the smallest in the tables are left out of each block, so that the tables without a block do not depend on it either.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from quickfox.config.model import ngram_config
from quickfox.models.language_model import Prior
from quickfox.models.ngram.counting import ABSENT, SortedText, find_runs
from quickfox.models.ngram.kneser_ney import estimate_discounts
from quickfox.models.ngram.model import (
    MIN_GAMMA,
    MIN_SCALE,
    MIN_UNIGRAM,
    NgramLanguageModel,
    context_lengths,
    read_entries,
)
from quickfox.models.ngram.tables import unigram_tensors

BLOCKS = 8

_MAX_CACHED = 2**22  # probabilities after contexts of two tokens


def block_bounds(num_tokens: int) -> np.ndarray:
    """The first position of each block and the end of the last: (BLOCKS + 1,) int64."""
    return np.array([block * num_tokens // BLOCKS for block in range(BLOCKS + 1)], np.int64)


class LeaveOutTables(NamedTuple):
    """The probabilities of the n-grams of a text without each of its blocks.

    Attributes:
        unigrams: (BLOCKS, V) float32, the distributions without context.
        alphas: (BLOCKS, n) float32 of each order above 1, alpha of each n-gram.
        min_counts: of each order, the smallest count of an n-gram that is not left out; 1: none are.
    """

    unigrams: np.ndarray
    alphas: list[np.ndarray]
    min_counts: tuple[int, ...]


class LeaveOutModel:
    """The n-gram models of a text without each of its blocks.

    Attributes:
        vocabulary_size: V.
        context: number of tokens before a window that are needed as context of its first.
        min_counts: as in LeaveOutTables.

    Args:
        ngrams, tensors: the tables of the text, as in `kneser_ney.NgramEstimate`.
        leave_out: as `estimate_leave_out` returns it.
    """

    def __init__(self, ngrams: tuple[int, ...], tensors: Mapping[str, np.ndarray], leave_out: LeaveOutTables) -> None:
        self._model = NgramLanguageModel(ngram_config(ngrams[0], ngrams), tensors)
        self.vocabulary_size = ngrams[0]
        self.context = max(0, len(ngrams) - 2)
        orders, names = range(2, len(ngrams) + 1), ("offsets", "tokens")
        self._offsets, self._tokens = ([tensors[f"ngram.{order}.{name}"] for order in orders] for name in names)
        self._unigrams, self._alphas, self.min_counts = leave_out
        self._cache: np.ndarray | None = None  # (BLOCKS, n, V) float32, after each context of two tokens
        if len(ngrams) > 2 and 0 < BLOCKS * ngrams[1] * self.vocabulary_size <= _MAX_CACHED:
            contexts = np.full((BLOCKS, ngrams[1], len(ngrams) - 1), ABSENT, np.int32)
            contexts[..., 0], contexts[..., 1] = self._tokens[0], np.arange(ngrams[1])
            blocks = np.repeat(np.arange(BLOCKS), ngrams[1])
            rows = self._rows(contexts.reshape(len(blocks), -1), blocks)
            # Not below the smallest unigram, so that a product with MIN_SCALE is a normal float32, too.
            self._cache = np.maximum(rows, np.float32(MIN_UNIGRAM)).reshape(BLOCKS, ngrams[1], -1)

    def prior(self, token_ids: np.ndarray, blocks: np.ndarray) -> Prior:
        """The distributions after tokens, each without the block of its target.

        Args:
            token_ids: (B, C + T) integers, 0 <= id < V. The first C are read only as context of the others.
            blocks: (B, T) integers, the block left out of the distribution after each of the last T tokens.

        Returns:
            log_probs (B, T, V) float32; lengths (B, T) int32.
        """
        batch_size, window = blocks.shape
        contexts, _ = self._model.read(token_ids, self._model.initial_state(batch_size))  # (B, C + T, K - 1)
        contexts = contexts[:, contexts.shape[1] - window :].reshape(batch_size * window, -1)
        flat_blocks = blocks.reshape(-1).astype(np.int64)
        for length, alphas in enumerate(self._alphas[:-1], start=2):
            column = contexts[:, length - 1]
            found = np.flatnonzero(column != ABSENT)
            column[found[alphas[flat_blocks[found], column[found]] <= 0]] = ABSENT
        probs = self._rows(contexts, flat_blocks)
        lengths = context_lengths(contexts).astype(np.int32)
        return Prior(np.log(probs, out=probs).reshape(*blocks.shape, -1), lengths.reshape(blocks.shape))

    def _rows(self, contexts: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """The distributions after contexts (N, K - 1) without blocks (N,): (N, V) float32."""
        probs: np.ndarray = self._unigrams[blocks]  # (N, V), without the contexts that follow
        is_cached = np.zeros(len(contexts), bool)  # with the contexts of one and two tokens
        if self._cache is not None:
            is_cached = contexts[:, 1] != ABSENT
            probs[is_cached] = self._cache[blocks[is_cached], contexts[is_cached, 1]]
        scale = np.ones(len(contexts), np.float32)  # the product of gamma over the longer contexts
        cells, shares = [], []
        tables = zip(self._offsets, self._tokens, self._alphas, contexts.T, strict=True)
        for length, (offsets, tokens, alphas, column) in reversed(list(enumerate(tables, start=1))):
            rows, lengths, starts, index = read_entries(offsets, np.where(is_cached & (length <= 2), ABSENT, column))
            if len(rows) == 0:
                continue
            cells.append(np.repeat(rows * self.vocabulary_size, lengths) + tokens[index])
            index += np.repeat(blocks[rows] * alphas.shape[1], lengths)
            share = alphas.reshape(-1)[index]
            shares.append(share * np.repeat(scale[rows], lengths))
            scale[rows] *= np.maximum(1.0 - np.add.reduceat(share, starts), np.float32(MIN_GAMMA))
        probs *= np.maximum(scale, MIN_SCALE)[:, None]
        flat = probs.reshape(-1)
        for cell, share in zip(cells, shares, strict=True):
            flat[cell] += share  # the cells of one order are distinct
        return probs


class _Rows(NamedTuple):
    """Where the rows of a sorted text are in the text.

    Attributes:
        blocks: (N,) uint8, the block of the position of each row.
        room: (N,) uint8, the number of tokens from there to the end of the block, at most K.
        following: (N,) int32, the row of the next position; of the last position, any.
        beginning: row of the first position of a block -> the block; without empty blocks.
    """

    blocks: np.ndarray
    room: np.ndarray
    following: np.ndarray
    beginning: dict[int, int]


class _Units(NamedTuple):
    """All n-grams of one order k in a text whose context is in the tables, in lexicographic order.

    Attributes:
        contexts: (n,) int64, the number of the context of each.
        of_rows: (N,) int32, the one that begins each row, or ABSENT.
        of_table: (m,) int64, the one of each n-gram in the table; -1 for a token that does not occur in the text.
        min_count: the smallest count of an n-gram in the table; 1: all are in it.
    """

    contexts: np.ndarray
    of_rows: np.ndarray
    of_table: np.ndarray
    min_count: int


def estimate_leave_out(text: SortedText, ngrams: tuple[int, ...], tensors: Mapping[str, np.ndarray]) -> LeaveOutTables:
    """Estimates the probabilities without each block of a text.

    Args:
        text: sorted by as many tokens as the longest n-grams have.
        ngrams, tensors: the tables of the text, as for `LeaveOutModel`.
    """
    rows = _locate_rows(text)
    contexts = np.zeros(len(text.ids), np.int32)  # of each row: the empty one
    parents, keys = np.zeros(ngrams[0], np.intp), np.arange(ngrams[0])
    is_context: np.ndarray | None = None  # (BLOCKS, n) bool of the order below; None: all are that occur
    tables, min_counts = [], []
    for k in range(1, len(ngrams) + 1):
        if k > 1:
            offsets, tokens = (tensors[f"ngram.{k}.{name}"] for name in ("offsets", "tokens"))
            parents = np.repeat(np.arange(ngrams[k - 2]), np.diff(offsets))
            keys = parents * text.vocabulary_size + tokens
        units, contexts = _read_units(text, contexts, k, keys)
        alphas = _estimate_order(text, rows, k, units, parents, is_context)
        tables.append(alphas)
        min_counts.append(units.min_count)
        if is_context is not None or units.min_count > 1:
            is_context = alphas > 0
    unigrams = np.stack([unigram_tensors(row)["ngram.1.probs"] for row in tables[0]])
    return LeaveOutTables(np.maximum(unigrams, np.float32(MIN_UNIGRAM)), tables[1:], tuple(min_counts))


def _locate_rows(text: SortedText) -> _Rows:
    bounds = block_bounds(len(text.ids))
    lengths = np.diff(bounds)
    blocks = np.repeat(np.arange(BLOCKS, dtype=np.uint8), lengths)
    room = np.full(len(text.ids), text.order, np.uint8)
    for rest in range(1, text.order):
        room[(bounds[1:] - rest)[lengths >= rest]] = rest
    by_position = np.empty(len(text.ids), np.int32)
    by_position[text.starts] = np.arange(len(text.ids), dtype=np.int32)
    following = by_position.take(text.starts + 1, mode="clip")
    beginning = {int(by_position[bounds[block]]): block for block in range(BLOCKS) if lengths[block]}
    return _Rows(blocks[text.starts], room[text.starts], following, beginning)


def _read_units(text: SortedText, contexts: np.ndarray, k: int, keys: np.ndarray) -> tuple[_Units, np.ndarray]:
    """The n-grams of one order, and the numbers (N,) int32 of those in the table that begin each row, or ABSENT.

    Args:
        contexts: (N,) int32, those numbers of order k - 1.
        keys: (m,) of the n-grams in the table, sorted.
    """
    runs = find_runs(text, contexts, k, slice(0, len(contexts)))
    lengths = np.diff(runs.firsts, append=len(contexts))
    units = np.full(len(lengths), ABSENT, np.int32)
    units[runs.is_kept] = np.arange(len(runs.keys))
    of_table = np.searchsorted(runs.keys, keys)
    of_table[np.append(runs.keys, -1)[of_table] != keys] = -1
    in_table = np.full(len(runs.keys), ABSENT, np.int32)
    in_table[of_table[of_table >= 0]] = np.flatnonzero(of_table >= 0)
    numbers = np.full(len(lengths), ABSENT, np.int32)
    numbers[runs.is_kept] = in_table
    is_complete = not (in_table == ABSENT).any()
    min_count = 1 if is_complete else int(lengths[numbers != ABSENT].min(initial=len(contexts)))
    found = _Units(runs.keys // text.vocabulary_size, np.repeat(units, lengths), of_table, min_count)
    return found, np.repeat(numbers, lengths)


def _count(rows: _Rows, k: int, units: _Units) -> Iterator[np.ndarray]:
    """Number of occurrences of the n-grams in the text without each block: (n,) int64 each."""
    is_inside = (rows.room >= k) & (units.of_rows != ABSENT)
    found, blocks = units.of_rows[is_inside], rows.blocks[is_inside]
    counts = np.bincount(found, minlength=len(units.contexts))
    for block in range(BLOCKS):
        yield counts - np.bincount(found[blocks == block], minlength=len(counts))


def _count_predecessors(text: SortedText, rows: _Rows, k: int, units: _Units) -> Iterator[np.ndarray]:
    """Number of different tokens before each n-gram in the text without each block: (n,) int64 each.

    That is the number of n-grams of order k + 1 in that text that end with it; those at the start of a block have a
    token of their own before them.
    """
    firsts = np.flatnonzero(text.shared <= k)  # of each n-gram of order k + 1
    suffixes = units.of_rows[rows.following[firsts]]
    is_inside = rows.room > k
    lowest = np.minimum.reduceat(np.where(is_inside, rows.blocks, np.uint8(BLOCKS)), firsts)
    highest = np.maximum.reduceat(np.where(is_inside, rows.blocks, np.uint8(0)), firsts)
    occurs = (suffixes != ABSENT) & (lowest < BLOCKS)
    starting: dict[int, list[int]] = {}  # the blocks that each n-gram begins
    for row, block in rows.beginning.items():
        if rows.room[row] >= k and units.of_rows[row] != ABSENT:
            starting.setdefault(int(units.of_rows[row]), []).append(block)
    suffixes = np.append(suffixes[occurs], np.array(list(starting), np.int32))
    lowest = np.append(lowest[occurs], np.array([min(blocks) for blocks in starting.values()], np.uint8))
    highest = np.append(highest[occurs], np.array([max(blocks) for blocks in starting.values()], np.uint8))
    counts = np.bincount(suffixes, minlength=len(units.contexts))
    suffixes, only = suffixes[lowest == highest], lowest[lowest == highest]  # of one block
    for block in range(BLOCKS):
        yield counts - np.bincount(suffixes[only == block], minlength=len(counts))


def _estimate_order(
    text: SortedText, rows: _Rows, k: int, units: _Units, parents: np.ndarray, is_context: np.ndarray | None
) -> np.ndarray:
    """alpha of the n-grams of one order in the text without each block, (BLOCKS, m) float32.

    Args:
        parents: (m,) integers, the number of the context of each n-gram in the table.
        is_context: (BLOCKS, l) bool, whether each of them is one in the text without each block; None: all that occur.
    """
    adjusted = _count(rows, k, units) if k == text.order else _count_predecessors(text, rows, k, units)
    alphas = np.empty((BLOCKS, len(parents)), np.float32)
    for block, counts in enumerate(adjusted):
        if is_context is not None:
            counts *= is_context[block, units.contexts]
        discounts = estimate_discounts(np.bincount(np.minimum(counts, 5), minlength=6)[:5])
        totals = np.maximum(np.bincount(units.contexts, weights=counts, minlength=1), 1.0)
        kept = np.append(counts, 0)[units.of_table]
        np.divide(kept - discounts[np.minimum(kept, 3)], totals[parents], out=alphas[block], casting="same_kind")
    if units.min_count > 1:
        for row, counts in zip(alphas, _count(rows, k, units), strict=True):
            row[counts[units.of_table] < units.min_count] = 0.0
    return alphas
