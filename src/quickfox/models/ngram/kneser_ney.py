"""Estimate the tables of an n-gram model by interpolated modified Kneser-Ney smoothing.

With a context h of k - 1 tokens, h' the same without its first token, and a(hw) the adjusted count of an n-gram,

    p(w | h) = alpha(w | h) + gamma(h) p(w | h'),    alpha(w | h) = (a(hw) - D(a(hw))) / sum_v a(hv)

and gamma(h) = 1 - sum_w alpha(w | h), so that the probabilities sum to 1 whichever n-grams are left out. p(w) without
context is interpolated with the uniform distribution. The adjusted count of the highest order is the count; that of a
lower order is the number of different tokens before the n-gram. The discount D has three values in each order.

(Kneser & Ney 1995, "Improved backing-off for m-gram language modeling"; Chen & Goodman 1998, "An empirical study of
smoothing techniques for language modeling", section 3.)
"""

from dataclasses import dataclass

import numpy as np

from quickfox.models.ngram.counting import ABSENT, advance_contexts, count_order, find_ngrams, smallest_count
from quickfox.models.ngram.tables import order_tensors, unigram_tensors

COUNTING_FACTOR = 4
"""N-grams of an order held while they are counted, as a multiple of those that are kept."""

_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # those of KenLM, for texts too small or too regular to estimate them


@dataclass(frozen=True, eq=False)
class NgramEstimate:
    """The tables estimated from a text.

    Attributes:
        ngrams: number of n-grams of each order, `ModelConfig.ngrams`.
        tensors: name -> array, as `parameters.ngram_specs` lists them.
        min_counts: of each order, the smallest count of an n-gram that is kept; 1 or less: all are.
    """

    ngrams: tuple[int, ...]
    tensors: dict[str, np.ndarray]
    min_counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Level:
    """The n-grams of one order.

    Attributes:
        keys: (n,) int64, see `counting`.
        counts: (n,) int64.
        suffixes: (n,) int32, index of each n-gram without its first token among those of the order below, or ABSENT.
        min_count: smallest count of an n-gram that is kept so far.
    """

    keys: np.ndarray
    counts: np.ndarray
    suffixes: np.ndarray
    min_count: int


def estimate_ngrams(
    ids: np.ndarray, vocabulary_size: int, order: int, max_ngrams: int, threads: int = 1
) -> NgramEstimate:
    """Estimates an n-gram model from a text.

    Args:
        ids: (N,) token ids of the text, any unsigned dtype, N >= 1.
        vocabulary_size: V.
        order: number of tokens of the longest n-grams, >= 1.
        max_ngrams: maximum number of n-grams of each order above 1; the rarest are left out.
        threads: number of chunks of the text processed at the same time.
    """
    tensors: dict[str, np.ndarray] = {}
    ngrams: list[int] = []
    min_counts: list[int] = []
    contexts = np.full(len(ids), ABSENT, np.int32)
    contexts[1:] = ids[:-1]
    counts = np.bincount(ids, minlength=vocabulary_size)
    level = _Level(np.arange(vocabulary_size), counts, np.zeros(vocabulary_size, np.int32), min_count=0)
    kept_index = np.zeros(1, np.int32)  # in the tables, of each n-gram of the order below, or ABSENT
    for k in range(1, order + 1):
        following = None if k == order else _count_next(ids, contexts, level, vocabulary_size, max_ngrams, threads)
        parents, tokens = np.divmod(level.keys, vocabulary_size)
        alphas = _discounted_probs(parents, _adjusted_counts(level, following))
        is_kept = kept_index[parents] != ABSENT
        min_count = level.min_count
        if k > 1:
            min_count = max(min_count, smallest_count(level.counts[is_kept], max_ngrams))
        is_kept &= level.counts >= min_count
        if k == 1:
            tensors |= unigram_tensors(alphas)
        else:
            columns = kept_index[parents[is_kept]], tokens[is_kept], alphas[is_kept]
            tensors |= order_tensors(k, *columns, num_contexts=ngrams[-1], vocabulary_size=vocabulary_size)
        ngrams.append(int(is_kept.sum()))
        min_counts.append(min_count)
        if following is not None:
            kept_index = np.where(is_kept, np.cumsum(is_kept) - 1, ABSENT).astype(np.int32)
            level = following
            advance_contexts(ids, contexts, vocabulary_size, level.keys, threads)
    return NgramEstimate(tuple(ngrams), tensors, tuple(min_counts))


def _count_next(
    ids: np.ndarray, contexts: np.ndarray, level: _Level, vocabulary_size: int, max_ngrams: int, threads: int
) -> _Level:
    """The n-grams of the order above `level`."""
    keys, counts, min_count = count_order(ids, contexts, vocabulary_size, COUNTING_FACTOR * max_ngrams, threads)
    parents, tokens = np.divmod(keys, vocabulary_size)
    suffixes = find_ngrams(level.keys, level.suffixes[parents].astype(np.int64) * vocabulary_size + tokens)
    return _Level(keys, counts, suffixes, min_count)


def _adjusted_counts(level: _Level, following: _Level | None) -> np.ndarray:
    """a(hw), (n,) int64: counts if there is no order above, else numbers of different tokens before each n-gram.

    An n-gram with none before it, at the start of the text or by what was left out, has the adjusted count 1.
    """
    if following is None:
        return level.counts
    suffixes = following.suffixes[following.suffixes != ABSENT]
    return np.maximum(np.bincount(suffixes, minlength=len(level.keys)), level.counts > 0)


def _discounted_probs(parents: np.ndarray, adjusted: np.ndarray) -> np.ndarray:
    """alpha of each n-gram, (n,) float64, from the index of its context and its adjusted count, (n,) int64 each."""
    totals = np.bincount(parents, weights=adjusted)
    probs: np.ndarray = (adjusted - estimate_discounts(adjusted)[np.minimum(adjusted, 3)]) / totals[parents]
    return probs


def estimate_discounts(adjusted: np.ndarray) -> np.ndarray:
    """D of the adjusted counts 0, 1, 2, and 3 or more, (4,) float64, from adjusted counts (n,) int64.

    (Chen & Goodman 1998, equation 26.)
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(adjusted == count)) for count in range(1, 5))
    discounts = np.array([0.0, *_FALLBACK_DISCOUNTS])
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        estimated = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (estimated >= 0).all() and (estimated <= np.arange(4)).all():
            discounts = estimated
    return discounts
