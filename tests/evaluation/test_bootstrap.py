"""Confidence intervals: of a mean as statistics knows it, and narrower for the difference between models on one set."""

import numpy as np
import pytest

from quickfox.evaluation.bootstrap import compare, estimate


def mean(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The mean of texts with the counts (1, value)."""
    return {"mean": counts[..., 1] / counts[..., 0]}


def with_ones(values: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(values), values], axis=1)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 2000)
    result = estimate(with_ones(values), mean)["mean"]
    half_width = 1.96 * values.std() / np.sqrt(len(values))
    assert result.value == pytest.approx(values.mean())
    assert result.interval == pytest.approx([result.value - half_width, result.value + half_width], abs=0.02)


def test_an_estimate_is_reproducible() -> None:
    counts = with_ones(np.arange(10.0))
    assert estimate(counts, mean) == estimate(counts, mean)


def test_the_difference_of_two_models_has_the_interval_of_paired_texts() -> None:
    generator = np.random.default_rng(2)
    difficulty = generator.normal(0.0, 10.0, 500)  # of each text, for both models
    first, second = (with_ones(difficulty + generator.normal(offset, 0.1, 500)) for offset in (0.0, 0.1))
    result = compare(first, second, mean)["mean"]
    assert result.difference.value == pytest.approx(result.second - result.first)
    assert result.difference.low > 0.05
    assert result.difference.high < 0.15


def test_equal_models_do_not_differ() -> None:
    counts = with_ones(np.arange(20.0))
    assert compare(counts, counts, mean)["mean"].difference.interval == [0.0, 0.0]
