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
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from quickfox.config.model import ngram_config
from quickfox.models.language_model import Prior
from quickfox.models.ngram.counting import ABSENT, advance_contexts
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


class _Order(NamedTuple):
    """The n-grams of one order k in the text.

    Attributes:
        size: number of n-grams in the table.
        parents: (size,) int, the context of each n-gram, among those of order k - 1.
        entries: (N,) int32, of the n-gram that ends at each position, in the whole text; or ABSENT.
        min_count: the smallest count of an n-gram in the table; 1: all are in it.
    """

    size: int
    parents: np.ndarray
    entries: np.ndarray
    min_count: int


def estimate_leave_out(
    ids: np.ndarray, ngrams: tuple[int, ...], tensors: Mapping[str, np.ndarray], threads: int = 1
) -> LeaveOutTables:
    """Estimates the probabilities without each block of a text.

    Args:
        ids: (N,) token ids of the text, N >= 1.
        ngrams, tensors: the tables of the text, as for `LeaveOutModel`.
        threads: number of chunks of the text processed at the same time.
    """
    orders = range(2, len(ngrams) + 1)
    offsets, tokens = ([tensors[f"ngram.{order}.{name}"] for order in orders] for name in ("offsets", "tokens"))
    n, vocabulary_size = len(ids), ngrams[0]
    padded = np.append(ids, ids[:1])  # contexts[i + 1] is the n-gram that ends at i: one more than the positions
    contexts = np.empty(n + 1, np.int32)
    contexts[0], contexts[1:] = ABSENT, ids
    before = np.zeros(n, np.int32)  # the empty context before each token
    order = _Order(vocabulary_size, np.zeros(vocabulary_size, np.intp), contexts[1:].copy(), 1)
    unigrams, estimated, min_counts = np.empty(0), [], []
    is_context: np.ndarray | None = None  # (BLOCKS, n) bool of the order below; None: all are that occur
    for k in range(1, len(ngrams) + 1):
        longer = None
        if k < len(ngrams):
            parents = np.repeat(np.arange(ngrams[k - 1]), np.diff(offsets[k - 1]))
            advance_contexts(padded, contexts, vocabulary_size, parents * vocabulary_size + tokens[k - 1], threads)
            longer = _read_order(ngrams[k], parents, contexts[1:].copy(), order.entries)
        alphas = _estimate_order(k, ids, vocabulary_size, before, order, longer, is_context)
        if k == 1:
            unigrams = np.stack([unigram_tensors(row)["ngram.1.probs"] for row in alphas])
        else:
            estimated.append(alphas.astype(np.float32))
        min_counts.append(order.min_count)
        if is_context is not None or order.min_count > 1:
            is_context = alphas > 0
        if longer is not None:
            before[0], before[1:] = ABSENT, order.entries[:-1]
            order = longer
    return LeaveOutTables(np.maximum(unigrams, np.float32(MIN_UNIGRAM)), estimated, tuple(min_counts))


def _read_order(size: int, parents: np.ndarray, index: np.ndarray, shorter: np.ndarray) -> _Order:
    """An order above 1; `shorter` (N,): `entries` of the order below."""
    is_complete = not ((index[1:] == ABSENT) & (shorter[:-1] != ABSENT)).any()
    if is_complete:
        return _Order(size, parents, index, 1)
    counts = np.bincount(index[index != ABSENT], minlength=1)
    return _Order(size, parents, index, int(counts[counts > 0].min(initial=len(index))))


class _Units(NamedTuple):
    """All n-grams of one order in the text whose context is in the table; first those that are in the table too.

    Attributes:
        contexts: (n,) int64, the context of each.
        entries: (N,) int64, of the n-gram that ends at each position and does not start in the block before; or ABSENT.
    """

    contexts: np.ndarray
    entries: np.ndarray


def _read_units(k: int, ids: np.ndarray, vocabulary_size: int, before: np.ndarray, order: _Order) -> _Units:
    crossing = (block_bounds(len(ids))[:-1, None] + np.arange(k - 1)).reshape(-1)
    crossing = crossing[crossing < len(ids)]
    index = order.entries.astype(np.int64)
    is_other = (index == ABSENT) & (before != ABSENT)
    index[crossing], is_other[crossing] = ABSENT, False
    others = np.flatnonzero(is_other)
    keys, index[others] = np.unique(before[others] * np.int64(vocabulary_size) + ids[others], return_inverse=True)
    index[others] += order.size
    return _Units(np.concatenate([order.parents, keys // vocabulary_size]), index)


def _count(ids: np.ndarray, entries: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Number of occurrences of n-grams in the text without each block: (size,) int64 each."""
    bounds = block_bounds(len(ids))
    counts = np.bincount(entries + 1, minlength=size + 1)  # bin 0 is of ABSENT
    for start, end in pairwise(bounds):
        yield (counts - np.bincount(entries[start:end] + 1, minlength=size + 1))[1:]


def _count_predecessors(
    k: int, ids: np.ndarray, vocabulary_size: int, units: _Units, longer: _Order
) -> Iterator[np.ndarray]:
    """Number of different tokens before each n-gram in the text without each block: (n,) int64 each.

    That is the number of n-grams of order k + 1 in that text that end with it; those at the start of a block have the
    token V before them.
    """
    bounds = block_bounds(len(ids))
    extended = longer.entries.astype(np.int64)  # the n-grams of order k + 1, numbered as units are
    starts = (bounds[:-1, None] + np.arange(k)).reshape(-1)
    extended[starts[starts < len(ids)]] = ABSENT
    others = np.flatnonzero((extended == ABSENT) & (units.entries != ABSENT))
    tokens = ids[others - k].astype(np.int64)
    tokens[np.isin(others, bounds[:-1] + k - 1)] = vocabulary_size
    keys, extended[others] = np.unique(units.entries[others] * (vocabulary_size + 1) + tokens, return_inverse=True)
    extended[others] += longer.size

    positions = np.flatnonzero((extended != ABSENT) & (units.entries != ABSENT))
    found = extended[positions]
    blocks = np.repeat(np.arange(BLOCKS, dtype=np.int8), np.diff(bounds))[positions]
    # Of several values for one index, the last is assigned.
    suffixes = np.full(longer.size + len(keys), ABSENT, np.int32)
    suffixes[found] = units.entries[positions]
    first, last = np.zeros((2, len(suffixes)), np.int8)
    last[found] = blocks
    first[found[::-1]] = blocks[::-1]

    single = np.flatnonzero((first == last) & (suffixes != ABSENT))  # in one block only
    order = single[np.argsort(first[single], kind="stable")]
    ends = np.cumsum(np.bincount(first[single], minlength=BLOCKS))
    counts = np.bincount(suffixes[suffixes != ABSENT], minlength=len(units.contexts))
    for lost in np.split(suffixes[order], ends[:-1]):
        yield counts - np.bincount(lost, minlength=len(counts))


def _estimate_order(
    k: int,
    ids: np.ndarray,
    vocabulary_size: int,
    before: np.ndarray,
    order: _Order,
    longer: _Order | None,
    is_context: np.ndarray | None,
) -> np.ndarray:
    """alpha of the n-grams of one order in the text without each block, (BLOCKS, n) float32."""
    units = _read_units(k, ids, vocabulary_size, before, order)
    if longer is None:
        adjusted = _count(ids, units.entries, len(units.contexts))
    else:
        adjusted = _count_predecessors(k, ids, vocabulary_size, units, longer)
    alphas = np.empty((BLOCKS, order.size), np.float32)
    for block, counts in enumerate(adjusted):
        if is_context is not None:
            counts *= is_context[block, units.contexts]
        discounts = estimate_discounts(np.bincount(np.minimum(counts, 5), minlength=6)[:5])
        totals = np.maximum(np.bincount(units.contexts, weights=counts), 1.0)
        kept = counts[: order.size]
        discounted = kept - discounts[np.minimum(kept, 3)]
        np.divide(discounted, totals[order.parents], out=alphas[block], casting="same_kind")
    if order.min_count > 1:
        entries = order.entries.astype(np.int64)
        entries[units.entries == ABSENT] = ABSENT
        for row, counts in zip(alphas, _count(ids, entries, order.size), strict=True):
            row[counts < order.min_count] = 0.0
    return alphas
