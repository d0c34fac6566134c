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
