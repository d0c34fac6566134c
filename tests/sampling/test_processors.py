"""Logits processors, by hand and by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config import SamplingConfig
from quickfox.sampling.processors import apply_temperature, build_processors, keep_top_k

INFINITY = float("inf")
LOGITS = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 7.0]), min_size=1, max_size=12)  # ties are frequent


def test_temperature_divides() -> None:
    assert apply_temperature(np.array([1.0, -2.0, 0.0]), 0.5).tolist() == [2.0, -4.0, 0.0]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e300, 1.7e308])
@pytest.mark.filterwarnings("error")
def test_no_temperature_makes_a_logit_overflow(temperature: float) -> None:
    assert np.isfinite(apply_temperature(np.array([1e38, -1e38, 0.0]), temperature)).all()


def test_top_k_keeps_the_largest() -> None:
    assert keep_top_k(np.array([1.0, 3.0, 2.0, 0.0]), 2).tolist() == [-INFINITY, 3.0, 2.0, -INFINITY]


def test_top_k_on_ties_keeps_exactly_k_of_the_lowest_ids() -> None:
    assert keep_top_k(np.array([1.0, 2.0, 1.0, 1.0]), 3).tolist() == [1.0, 2.0, 1.0, -INFINITY]


def test_top_k_works_on_each_row() -> None:
    kept = keep_top_k(np.array([[[1.0, 2.0, 3.0]], [[5.0, 5.0, 4.0]]]), 1)
    assert kept.tolist() == [[[-INFINITY, -INFINITY, 3.0]], [[5.0, -INFINITY, -INFINITY]]]


@given(LOGITS, st.integers(1, 15))
def test_top_k_is_the_head_of_a_stable_sort(values: list[float], top_k: int) -> None:
    logits = np.array(values)
    order = sorted(range(len(values)), key=lambda token_id: (-values[token_id], token_id))
    expected = [value if token_id in order[:top_k] else -INFINITY for token_id, value in enumerate(values)]
    assert keep_top_k(logits, top_k).tolist() == expected
    assert logits.tolist() == values, "the logits it was given are as they were"


def test_temperature_zero_leaves_one_token() -> None:
    logits = np.array([1.0, 4.0, 4.0])
    for process in build_processors(SamplingConfig(temperature=0, top_k=2)):
        logits = process(logits)
    assert logits.tolist() == [-INFINITY, 4.0, -INFINITY]


def test_both_processors_together() -> None:
    logits = np.array([1.0, 4.0, 3.0])
    for process in build_processors(SamplingConfig(temperature=2.0, top_k=2)):
        logits = process(logits)
    assert logits.tolist() == [-INFINITY, 2.0, 1.5]
