"""Confidence intervals by the bootstrap: of measures of many texts, and of the difference between two models.

The texts are resampled with replacement, and the measure computed for each resample; the interval is from the 2.5th to
the 97.5th percentile (Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13). Two models are
compared on the same resamples, so that texts that are hard for both do not widen the interval of the difference
(Koehn 2004, "Statistical significance tests for machine translation evaluation").
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)
_RANDOM_SEED = 0

Counts = npt.NDArray[Any]
Measure = Callable[[Counts], dict[str, npt.NDArray[np.float64]]]
"""Summed counts, (..., k) -> name of each measure -> (...)."""


@dataclass(frozen=True)
class Estimate:
    """A measure with its 95 % confidence interval.

    Attributes:
        value: of all texts.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def interval(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True)
class Comparison:
    """A measure of two models on the same texts.

    Attributes:
        first: of the first model.
        second: of the second model.
        difference: second - first.
    """

    first: float
    second: float
    difference: Estimate


def estimate(counts: Counts, measure: Measure) -> dict[str, Estimate]:
    """The measures of texts with their intervals.

    Args:
        counts: (n, k) counts of each text, n >= 1.
        measure: the measures of summed counts.
    """
    values = measure(counts.sum(axis=0))
    resampled = measure(_resample(counts))
    return {name: _make_estimate(float(values[name]), resampled[name]) for name in values}


def compare(first: Counts, second: Counts, measure: Measure) -> dict[str, Comparison]:
    """The measures of two models on the same n texts, (n, k) counts each; see `estimate`."""
    values = [measure(counts.sum(axis=0)) for counts in (first, second)]
    columns = first.shape[1]
    sums = _resample(np.concatenate([first, second], axis=1))  # (RESAMPLES, 2 k)
    resampled = [measure(sums[:, :columns]), measure(sums[:, columns:])]
    comparisons = {}
    for name in values[0]:
        a, b = (float(each[name]) for each in values)
        comparisons[name] = Comparison(a, b, _make_estimate(b - a, resampled[1][name] - resampled[0][name]))
    return comparisons


def _resample(counts: Counts) -> Counts:
    """The summed counts of RESAMPLES resamples of n texts: (n, k) -> (RESAMPLES, k)."""
    generator = np.random.Generator(np.random.Philox(_RANDOM_SEED))
    n = len(counts)
    return np.stack([np.bincount(generator.integers(n, size=n), minlength=n) @ counts for _ in range(RESAMPLES)])


def _make_estimate(value: float, resampled: npt.NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(resampled, PERCENTILES)
    return Estimate(value, float(low), float(high))


def standard_error(bin_sums: np.ndarray, bin_counts: np.ndarray) -> float | None:
    """The standard error of the mean of correlated losses, by the method of batch means.

    Losses of neighboring tokens are correlated, so that s / sqrt(n) would be too small. The text is divided into K bins
    of consecutive losses, long enough to be nearly independent; bin k has n_k losses with the sum S_k. With
    n = sum_k n_k and the mean m, the standard error is

        sqrt(K / (K - 1) * sum_k (S_k - m n_k)^2) / n

    which for bins of equal length is the standard deviation of the bin means divided by sqrt(K) (Conway 1963); for bins
    of different lengths it is the ratio estimator of Cochran, Sampling Techniques, 1977, chapter 6.

    Args:
        bin_sums: S_k, of any shape.
        bin_counts: n_k, of the same shape; empty bins do not count.

    Returns:
        The standard error; None with less than two bins.
    """
    bins, n = int(np.count_nonzero(bin_counts)), float(bin_counts.sum())
    if bins < 2:
        return None
    deviations = bin_sums - bin_sums.sum() / n * bin_counts
    return float(np.sqrt(bins / (bins - 1) * np.square(deviations).sum()) / n)
