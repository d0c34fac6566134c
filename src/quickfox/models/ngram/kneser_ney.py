"""Estimate the tables of an n-gram model by interpolated modified Kneser-Ney smoothing.

With a context h of k - 1 tokens, h' the same without its first token, and a(hw) the adjusted count of an n-gram,

    p(w | h) = alpha(w | h) + gamma(h) p(w | h'),    alpha(w | h) = (a(hw) - D(a(hw))) / sum_v a(hv)

and gamma(h) = 1 - sum_w alpha(w | h), so that the probabilities sum to 1 whichever n-grams are left out. p(w) without
context is interpolated with the uniform distribution. The adjusted count of the highest order is the count; that of a
lower order is the number of different tokens before the n-gram, the start of the text being one. The discount D has
three values in each order. The n-grams of a context that are left out for their small counts still add to these sums
and numbers.

(Kneser & Ney 1995, "Improved backing-off for m-gram language modeling"; Chen & Goodman 1998, "An empirical study of
smoothing techniques for language modeling", section 3.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from quickfox.models.ngram.counting import (
    NgramCounts,
    SortedText,
    advance_contexts,
    count_ngrams,
    smallest_count,
    sort_text,
)
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


class _Level(NamedTuple):
    """The n-grams of one order that are kept: their keys and alpha, (n,) each, and the smallest count kept."""

    keys: np.ndarray
    alphas: np.ndarray
    min_count: int


def estimate_ngrams(
    ids: np.ndarray, vocabulary_size: int, order: int, max_ngrams: int, threads: int = 1
) -> NgramEstimate:
    """Estimates an n-gram model from token ids; arguments are those of `sort_text` and `estimate_sorted`."""
    return estimate_sorted(sort_text(ids, vocabulary_size, order, threads), max_ngrams, threads)


def estimate_sorted(text: SortedText, max_ngrams: int, threads: int = 1) -> NgramEstimate:
    """Estimates an n-gram model from a text.

    Args:
        text: sorted by as many tokens as the longest n-grams have.
        max_ngrams: maximum number of n-grams of each order above 1; the rarest are left out.
        threads: number of parts of the text processed at the same time.
    """
    vocabulary_size = text.vocabulary_size
    contexts = np.zeros(len(text.ids), np.int32)  # the empty context of each row
    level = _estimate_level(count_ngrams(text, contexts, 1, threads), 1, vocabulary_size, vocabulary_size)
    alphas = np.zeros(vocabulary_size)
    alphas[level.keys] = level.alphas
    tensors = unigram_tensors(alphas)
    ngrams, min_counts = [vocabulary_size], [0]
    contexts[:] = text.ids[text.starts]  # all tokens are unigrams
    for k in range(2, text.order + 1):
        level = _estimate_level(count_ngrams(text, contexts, k, threads), ngrams[-1], vocabulary_size, max_ngrams)
        parents, tokens = np.divmod(level.keys, vocabulary_size)
        tensors |= order_tensors(
            k, parents, tokens, level.alphas, num_contexts=ngrams[-1], vocabulary_size=vocabulary_size
        )
        ngrams.append(len(level.keys))
        min_counts.append(level.min_count)
        if k < text.order:
            advance_contexts(text, contexts, k, level.keys, threads)
    return NgramEstimate(tuple(ngrams), tensors, tuple(min_counts))


def _estimate_level(parts: Iterator[NgramCounts], num_contexts: int, vocabulary_size: int, max_ngrams: int) -> _Level:
    """The n-grams of one order that are kept, from the counts of all."""
    totals = np.zeros(num_contexts)  # the sum of the adjusted counts of each context
    frequencies = np.zeros(5, np.int64)  # the number of n-grams with each adjusted count from 0 to 4
    kept, min_count = [NgramCounts(np.zeros(0, np.int64), *np.zeros((2, 0), np.int32))], 1
    for part in parts:
        if len(part.keys) == 0:
            continue
        frequencies += np.bincount(np.minimum(part.adjusted, 5), minlength=6)[:5]
        contexts = part.keys // vocabulary_size
        sums = np.bincount(contexts - contexts[0], weights=part.adjusted)  # of the contexts of the part
        totals[contexts[0] : contexts[0] + len(sums)] += sums
        kept.append(part.select(part.counts >= min_count))
        if sum(len(waiting.keys) for waiting in kept) > COUNTING_FACTOR * max_ngrams:
            kept, min_count = _prune(kept, max_ngrams, min_count)
    ((keys, _, adjusted),), min_count = _prune(kept, max_ngrams, min_count)
    alphas = (adjusted - estimate_discounts(frequencies)[np.minimum(adjusted, 3)]) / totals[keys // vocabulary_size]
    return _Level(keys, alphas, min_count)


def _prune(kept: list[NgramCounts], max_ngrams: int, min_count: int) -> tuple[list[NgramCounts], int]:
    """The parts as one, without the rarest n-grams, and the smallest count that remains."""
    merged = NgramCounts(*(np.concatenate(column) for column in zip(*kept, strict=True)))
    min_count = max(min_count, smallest_count(merged.counts, max_ngrams))  # of counts already pruned it may be 1
    return [merged.select(merged.counts >= min_count)], min_count


def estimate_discounts(frequencies: np.ndarray) -> np.ndarray:
    """D of the adjusted counts 0, 1, 2, and 3 or more, (4,) float64.

    (Chen & Goodman 1998, equation 26.)

    Args:
        frequencies: (5,) int64, number of n-grams with each adjusted count from 0 to 4.
    """
    n1, n2, n3, n4 = frequencies[1:].tolist()
    discounts = np.array([0.0, *_FALLBACK_DISCOUNTS])
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        estimated = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (estimated >= 0).all() and (estimated <= np.arange(4)).all():
            discounts = estimated
    return discounts
