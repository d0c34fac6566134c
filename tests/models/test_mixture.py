"""The mixture of a network and an n-gram model, compared with its definition."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.config.model import ngram_config
from quickfox.models.language_model import State, replace_first, select_rows
from quickfox.models.mixture import (
    MAX_WEIGHT,
    MIN_RATE,
    MIN_WEIGHT,
    PRIOR_TOKENS,
    MixtureLanguageModel,
    adapt_weights,
    softmax,
)
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.model import NgramLanguageModel
from toy_models import FixedModel, fixed_distribution, random_lstm

VOCABULARY_SIZE = 5
RANDOM = np.random.default_rng(0)
TEXT = (RANDOM.integers(0, VOCABULARY_SIZE, 400) * RANDOM.integers(0, 2, 400)).astype(np.uint8)  # half of it zeros
READ = RANDOM.integers(0, VOCABULARY_SIZE, 60)


def fixed_ngram(*probabilities: float) -> NgramLanguageModel:
    """An n-gram model of order 1 with this distribution."""
    return NgramLanguageModel(
        ngram_config(len(probabilities), (len(probabilities),)), {"ngram.1.probs": np.array(probabilities, np.float32)}
    )


def estimated_ngram(ids: np.ndarray, vocabulary_size: int, order: int) -> NgramLanguageModel:
    estimate = estimate_ngrams(ids, vocabulary_size, order, 10**9)
    return NgramLanguageModel(ngram_config(vocabulary_size, estimate.ngrams), estimate.tensors)


NETWORK = random_lstm(VOCABULARY_SIZE)
NGRAM = estimated_ngram(TEXT, VOCABULARY_SIZE, 3)
MIXTURE = MixtureLanguageModel(NETWORK, NGRAM, VOCABULARY_SIZE)
GATED_NETWORK = random_lstm(VOCABULARY_SIZE, ngram_gate=3)
GATED_MIXTURE = MixtureLanguageModel(GATED_NETWORK, NGRAM, VOCABULARY_SIZE, has_ngram_gate=True)

with_and_without_gate = pytest.mark.parametrize("mixture", [MIXTURE, GATED_MIXTURE], ids=["no gate", "gate"])


def read_in_windows(model: MixtureLanguageModel, token_ids: np.ndarray, lengths: list[int]) -> tuple[np.ndarray, State]:
    """The logits after texts (B, T) read in windows of these lengths, which sum to T, and the last state."""
    state = model.initial_state(len(token_ids))
    logits = []
    for start, end in pairwise(np.cumsum([0, *lengths])):
        window, state = model.forward(token_ids[:, start:end], state)
        logits.append(window)
    return np.concatenate(logits, axis=1), state


def weight_of(state: State) -> np.ndarray:
    """The weight of the network (B,)."""
    return state[-1][0]


def assert_same(first: tuple[np.ndarray, State], second: tuple[np.ndarray, State]) -> None:
    np.testing.assert_allclose(first[0], second[0], atol=1e-5)
    for layer, expected in zip(first[1], second[1], strict=True):
        for arrays in zip(layer, expected, strict=True):
            np.testing.assert_allclose(*arrays, atol=1e-5)


def naive_mixture(network: np.ndarray, ngram: np.ndarray, token_ids: list[int]) -> tuple[list[np.ndarray], float]:
    """The distribution after each token of one text, from those of both models (T, V), and the last weight."""
    weight, distributions = 0.5, []
    for position, token in enumerate(token_ids):
        if position > 0:
            p_network, p_ngram = network[position - 1, token], ngram[position - 1, token]
            responsibility = weight * p_network / (weight * p_network + (1 - weight) * p_ngram)
            rate = max(1 / (position + PRIOR_TOKENS), MIN_RATE)
            weight = min(max(weight + rate * (responsibility - weight), 0.01), 0.99)
        distributions.append(weight * network[position] + (1 - weight) * ngram[position])
    return distributions, weight


def test_two_tokens_by_hand() -> None:
    model = MixtureLanguageModel(fixed_distribution(0.8, 0.2), fixed_ngram(0.5, 0.5), 2)
    logits, state = model.forward(np.array([[0, 1, 0]]), model.initial_state(1))
    # After the first token, which no model predicted: 0.5 * 0.8 + 0.5 * 0.5 = 0.65.
    # Token 1: r = 0.1 / 0.35, w = 0.5 + (r - 0.5) / 17 = 0.487395; 0.487395 * 0.8 + 0.512605 * 0.5 = 0.646218.
    # Token 0: r = 0.389916 / 0.646218, w = 0.487395 + (r - 0.487395) / 18 = 0.493838; 0.648151.
    np.testing.assert_allclose(np.exp(logits[0, :, 0]), [0.65, 0.646218, 0.648151], atol=1e-6)
    np.testing.assert_allclose(np.exp(logits[0, :, 1]), [0.35, 0.353782, 0.351849], atol=1e-6)
    np.testing.assert_allclose(weight_of(state), [0.493838], atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 60])
@with_and_without_gate
def test_the_mixture_as_defined(mixture: MixtureLanguageModel, length: int) -> None:
    token_ids = READ[None, :length]
    prior, _ = NGRAM.prior(token_ids, NGRAM.initial_state(1))
    if mixture is GATED_MIXTURE:
        network, _ = GATED_NETWORK.forward(token_ids, GATED_NETWORK.initial_state(1), prior)
    else:
        network, _ = NETWORK.forward(token_ids, NETWORK.initial_state(1))
    expected, weight = naive_mixture(softmax(network)[0], np.exp(prior.log_probs[0]), READ[:length].tolist())
    logits, state = mixture.forward(token_ids, mixture.initial_state(1))
    assert (logits.shape, logits.dtype) == ((1, length, VOCABULARY_SIZE), np.float32)
    np.testing.assert_allclose(np.exp(logits[0]), expected, atol=1e-6)
    np.testing.assert_allclose(np.exp(logits).sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(weight_of(state), [weight], atol=1e-6)
    assert length < 60 or abs(weight - 0.5) > 0.01, "the weight moves"


def test_softmax_of_large_logits_is_a_new_array() -> None:
    logits = np.array([[1000, 1000 + np.log(3)], [-1000, -1200]], np.float32)
    before = logits.copy()
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.75], [1, 0]], atol=1e-4)
    np.testing.assert_array_equal(logits, before)


@with_and_without_gate
@settings(max_examples=50)
@given(ends=st.sets(st.integers(1, 59)))
def test_windows_of_any_length_equal_token_by_token(mixture: MixtureLanguageModel, ends: set[int]) -> None:
    lengths = np.diff([0, *sorted(ends), 60]).tolist()
    assert_same(read_in_windows(mixture, READ[None], lengths), EXPECTED[mixture])


EXPECTED = {mixture: read_in_windows(mixture, READ[None], [1] * 60) for mixture in (MIXTURE, GATED_MIXTURE)}


@pytest.mark.parametrize("lengths", [[20], [1, 19], [7, 13], [19, 1]])
@with_and_without_gate
def test_texts_of_a_batch_are_independent(mixture: MixtureLanguageModel, lengths: list[int]) -> None:
    texts = READ.reshape(3, 20)
    logits, state = read_in_windows(mixture, texts, lengths)
    for row in range(3):
        single = read_in_windows(mixture, texts[row : row + 1], lengths)
        assert_same((logits[row : row + 1], select_rows(state, slice(row, row + 1))), single)
    assert len(set(weight_of(state).tolist())) == 3


def test_rows_of_a_state_can_be_selected_and_replaced() -> None:
    texts = READ[:20].reshape(2, 10)
    _, state = MIXTURE.forward(texts, MIXTURE.initial_state(2))
    singles = [MIXTURE.forward(text[None], MIXTURE.initial_state(1))[1] for text in texts]
    logits, selected = MIXTURE.forward(READ[:9].reshape(3, 3), select_rows(state, np.array([1, 0, 1])))
    for row, text in enumerate([1, 0, 1]):
        expected = MIXTURE.forward(READ[None, 3 * row : 3 * row + 3], singles[text])
        assert_same((logits[row : row + 1], select_rows(selected, slice(row, row + 1))), expected)
    replaced = replace_first(state, MIXTURE.initial_state(1))
    logits, _ = MIXTURE.forward(READ[:4].reshape(2, 2), replaced)
    fresh, _ = MIXTURE.forward(READ[None, :2], MIXTURE.initial_state(1))
    continued, _ = MIXTURE.forward(READ[None, 2:4], singles[1])
    np.testing.assert_allclose(logits, np.concatenate([fresh, continued]), atol=1e-5)


@pytest.mark.parametrize("length", [1, 20])
@with_and_without_gate
def test_the_given_state_is_not_changed(mixture: MixtureLanguageModel, length: int) -> None:
    _, state = mixture.forward(READ[None, :10], mixture.initial_state(1))
    before = [array.copy() for layer in state for array in layer]
    first, _ = mixture.forward(READ[None, :length], state)
    copy = first.copy()
    mixture.forward(READ[None, 5 : 5 + length], state)
    second, _ = mixture.forward(READ[None, :length], state)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, copy)
    for array, expected in zip((array for layer in state for array in layer), before, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_context_is_that_of_the_network() -> None:
    network = FixedModel([0.0, 0.0])
    assert MixtureLanguageModel(network, fixed_ngram(0.5, 0.5), 2).context is None
    network.context = 7
    assert MixtureLanguageModel(network, fixed_ngram(0.5, 0.5), 2).context == 7


@pytest.mark.parametrize(("network", "ngram", "is_network_better"), [(0.9, 0.6, True), (0.6, 0.9, False)])
def test_the_weight_goes_to_the_better_model(network: float, ngram: float, is_network_better: bool) -> None:
    model = MixtureLanguageModel(fixed_distribution(network, 1 - network), fixed_ngram(ngram, 1 - ngram), 2)
    token_ids = (np.arange(2000) % 10 == 9).astype(np.int64)[None]  # one in ten is a 1
    _, state = model.forward(token_ids, model.initial_state(1))
    (weight,) = weight_of(state)
    assert weight > 0.8 if is_network_better else weight < 0.2
    _, later = model.forward(1 - token_ids, state)  # one in ten is a 0: the other model is better
    assert weight_of(later)[0] < weight if is_network_better else weight_of(later)[0] > weight


@settings(max_examples=50)
@given(
    probs=st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(2.0**-60, 1, width=32)), min_size=1, max_size=40),
    weight=st.sampled_from([1e-6, 0.5, 1 - 1e-5]),
    count=st.sampled_from([0, 10, 1000, 2**24]),
)
def test_weights_stay_within_their_bounds(probs: list[tuple[float, float]], weight: float, count: int) -> None:
    network, ngram = np.array(probs, np.float32).T[:, None]
    start = np.array([weight], np.float32), np.array([count], np.float32)
    weights, last, read = adapt_weights(*start, network, ngram)
    assert ((weights >= MIN_WEIGHT) & (weights <= MAX_WEIGHT)).all()
    assert last == weights[:, -1]
    assert read == min(count + len(probs), 2**24)  # float32 counts no further; the rate is constant by then


@pytest.mark.parametrize("token", [0, 1])
def test_weights_reach_their_bounds_when_one_model_is_always_right(token: int) -> None:
    model = MixtureLanguageModel(FixedModel([0.0, -200.0]), fixed_ngram(1e-3, 1 - 1e-3), 2)
    _, state = model.forward(np.full((1, 10_000), token), model.initial_state(1))
    assert weight_of(state) == [MAX_WEIGHT if token == 0 else MIN_WEIGHT]
    _, later = model.forward(np.full((1, 300), 1 - token), state)  # the other model: its weight returns soon
    assert weight_of(later)[0] < 0.4 if token == 0 else weight_of(later)[0] > 0.6


def test_a_certain_network_and_a_token_that_both_exclude() -> None:
    ngram = estimated_ngram(np.zeros(1000, np.uint8), 3, 6)  # it has seen token 0 only
    model = MixtureLanguageModel(FixedModel([0.0, -200.0, -200.0]), ngram, 3)
    zeros, ones = np.zeros((1, 5000), np.int64), np.ones((1, 20), np.int64)
    state = model.initial_state(1)
    with np.errstate(divide="raise", invalid="raise"):
        for token_ids in (zeros, zeros, ones, zeros, ones[:, :1], ones[:, :1]):
            logits, state = model.forward(token_ids, state)
            assert np.isfinite(logits).all()
            assert all(np.isfinite(array).all() for array in state[-1])
            assert 0 < weight_of(state).item() < 1
