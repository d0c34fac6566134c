"""Processors of logits and truncations: examples by hand, and properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.sampling import SamplingConfig
from quickfox.generation.logits_processors import (
    apply_count_penalties,
    apply_repetition_penalty,
    apply_temperature,
    ban_tokens,
    build_processors,
    build_truncations,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical_p,
    sort_descending,
    unnormalized_probs,
)
from quickfox.generation.token_history import TokenHistory

INFINITY = float("inf")
LOGITS = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 7.0]), min_size=1, max_size=12)  # ties are frequent
PROBABILITIES = [0.5, 0.25, 0.15, 0.1]


def unnormalized(*probabilities: float) -> np.ndarray:
    """(1, V) probabilities, scaled so that the largest is 1."""
    probs = np.array([probabilities])
    return probs / probs.max()


def kept(probs: np.ndarray) -> list[bool]:
    """Which indices of the only row are not truncated."""
    return (probs[0] > 0).tolist()


def test_temperature_divides_the_logits() -> None:
    assert apply_temperature(np.array([1.0, -2.0, 0.0]), 0.5).tolist() == [2.0, -4.0, 0.0]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e300, 1.7e308])
@pytest.mark.filterwarnings("error")
def test_no_temperature_overflows(temperature: float) -> None:
    assert np.isfinite(apply_temperature(np.array([1e38, -1e38, 0.0]), temperature)).all()


def test_repetition_penalty_lowers_logits_of_either_sign() -> None:
    logits, counts = np.array([[2.0, -2.0, 2.0, -2.0]]), np.array([[1.0, 3.0, 0.0, 0.0]])
    assert apply_repetition_penalty(logits, counts, 4.0).tolist() == [[0.5, -8.0, 2.0, -2.0]]
    assert apply_repetition_penalty(logits, counts, 0.5).tolist() == [[4.0, -1.0, 2.0, -2.0]]


def test_presence_penalty_counts_once_and_frequency_penalty_each_time() -> None:
    logits, counts = np.array([[1.0, 1.0, 1.0]]), np.array([[0.0, 1.0, 3.0]])
    assert apply_count_penalties(logits, counts, presence=0.5, frequency=0.25).tolist() == [[1.0, 0.25, -0.25]]


def test_ban_tokens_leaves_its_argument_unchanged() -> None:
    logits = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert ban_tokens(logits, [[1], []]).tolist() == [[1.0, -INFINITY], [3.0, 4.0]]
    assert logits.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.filterwarnings("error")
def test_unnormalized_probs_by_hand() -> None:
    probs = unnormalized_probs(np.array([[0.0, math.log(3), -INFINITY], [-INFINITY] * 3]))
    np.testing.assert_allclose(probs, [[1 / 3, 1, 0], [0, 0, 0]])


@given(LOGITS)
def test_sort_descending_is_stable(values: list[float]) -> None:
    probs, token_ids = sort_descending(np.array([values, values[::-1]]))
    for row, row_values in zip(token_ids.tolist(), (values, values[::-1]), strict=True):
        assert row == sorted(range(len(values)), key=lambda token_id: (-row_values[token_id], token_id))
    np.testing.assert_allclose(probs[1], np.exp(np.sort(values)[::-1] - max(values)))


@given(LOGITS, st.integers(1, 15))
def test_top_k_keeps_exactly_k_tokens_of_ties_the_lowest_ids(values: list[float], top_k: int) -> None:
    probs, token_ids = sort_descending(np.array([values]))
    assert keep_top_k(probs, top_k).shape == (1, min(top_k, len(values)))
    order = sorted(range(len(values)), key=lambda token_id: (-values[token_id], token_id))
    assert token_ids[0, :top_k].tolist() == order[:top_k]


@pytest.mark.parametrize(("top_p", "count"), [(1e-9, 1), (0.4, 1), (0.6, 2), (0.8, 3), (0.95, 4), (1.0, 4)])
def test_top_p_keeps_the_shortest_sufficient_prefix(top_p: float, count: int) -> None:
    assert kept(keep_top_p(unnormalized(*PROBABILITIES), top_p)) == [index < count for index in range(4)]


@pytest.mark.parametrize(("min_p", "count"), [(0.19, 4), (0.21, 3), (0.31, 2), (0.51, 1), (1.0, 1)])
def test_min_p_keeps_tokens_relative_to_the_most_probable(min_p: float, count: int) -> None:
    assert kept(keep_min_p(unnormalized(*PROBABILITIES), min_p)) == [index < count for index in range(4)]


def test_typical_p_of_a_row_without_tokens_keeps_none() -> None:
    assert not keep_typical_p(np.zeros((1, 3)), 0.9).any()


@pytest.mark.parametrize(
    ("typical_p", "expected"),
    [  # the entropy is 1.2080 nats, the surprisals are 0.6931, 1.3863, 1.8971, 2.3026
        (0.2, [False, True, False, False]),
        (0.7, [True, True, False, False]),
        (0.8, [True, True, True, False]),
        (1.0, [True, True, True, True]),
    ],
)
def test_typical_p_keeps_the_most_typical_tokens(typical_p: float, expected: list[bool]) -> None:
    assert kept(keep_typical_p(unnormalized(*PROBABILITIES), typical_p)) == expected


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=20), st.floats(1e-6, 1.0), st.integers(0, 2))
@pytest.mark.filterwarnings("error")
def test_truncations_keep_a_token_and_change_no_other_value(values: list[float], p: float, which: int) -> None:
    probs, _ = sort_descending(np.array([values, values]))
    truncated = (keep_top_p, keep_min_p, keep_typical_p)[which](probs, p)
    assert (truncated.max(axis=-1) > 0).all()
    assert ((truncated == probs) | (truncated == 0)).all()
    assert (truncated[0] == truncated[1]).all()


@given(st.lists(st.lists(st.floats(-20, 20), min_size=7, max_size=7), min_size=2, max_size=5))
def test_rows_are_truncated_independently(rows: list[list[float]]) -> None:
    config = SamplingConfig(top_k=5, top_p=0.9, min_p=0.01, typical_p=0.9)

    def truncated(logits: np.ndarray) -> np.ndarray:
        probs, _ = sort_descending(logits)
        for truncate in build_truncations(config, 7):
            probs = truncate(probs)
        return probs

    batch = truncated(np.array(rows))
    for row, logits in zip(batch, rows, strict=True):
        assert (row == truncated(np.array([logits]))[0]).all()


def test_the_default_configuration_has_no_processors() -> None:
    config = SamplingConfig()
    assert build_processors(config, TokenHistory(np.array([0]), 1, 3, config), None) == []
    assert build_truncations(SamplingConfig(top_k=3, top_p=1.0, min_p=0.0, typical_p=1.0), 3) == []


def test_processors_use_the_current_history() -> None:
    config = SamplingConfig(frequency_penalty=1.0, no_repeat_ngram=2, temperature=0.5, penalty_window=2)
    history = TokenHistory(np.array([0, 1, 0]), 1, 3, config)

    def process(logits: np.ndarray) -> list[list[float]]:
        for processor in build_processors(config, history, np.array([0.0, 0.0, 1.0])):
            logits = processor(logits)
        return logits.tolist()

    # 0 and 1 are in the window; 0 was followed by 1.
    assert process(np.zeros((1, 3))) == [[-2.0, -INFINITY, 2.0]]
    history.append([2])
    # 0 and 2 are in the window; 2 has not been followed by a token.
    assert process(np.zeros((1, 3))) == [[-2.0, 0.0, 0.0]]
