"""The mixture of a network and an n-gram model, compared with its definition."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.config.model import MAX_EXPONENT, ngram_config
from quickfox.models.language_model import State, replace_first, select_rows
from quickfox.models.mixture import (
    MIN_RATE,
    PRIOR_TOKENS,
    RATE_OF_DIFFERENCE,
    RATE_OF_SUM,
    MixtureLanguageModel,
    begin_sampling,
    initial_mixing,
    mix,
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
GATED_MIXTURE = MixtureLanguageModel(GATED_NETWORK, NGRAM, VOCABULARY_SIZE)

with_and_without_gate = pytest.mark.parametrize("mixture", [MIXTURE, GATED_MIXTURE], ids=["no gate", "gate"])


def read_in_windows(model: MixtureLanguageModel, token_ids: np.ndarray, lengths: list[int]) -> tuple[np.ndarray, State]:
    """The logits after texts (B, T) read in windows of these lengths, which sum to T, and the last state."""
    state = model.initial_state(len(token_ids))
    logits = []
    for start, end in pairwise(np.cumsum([0, *lengths])):
        window, state = model.forward(token_ids[:, start:end], state)
        logits.append(window)
    return np.concatenate(logits, axis=1), state


def exponents_of(state: State) -> np.ndarray:
    """(a, b) of each text, (B, 2)."""
    return state[-1][0]


def assert_same(first: tuple[np.ndarray, State], second: tuple[np.ndarray, State]) -> None:
    np.testing.assert_allclose(first[0], second[0], atol=1e-5)
    for layer, expected in zip(first[1], second[1], strict=True):
        for arrays in zip(layer, expected, strict=True):
            np.testing.assert_allclose(*arrays, atol=1e-5)


def naive_mixture(network: np.ndarray, ngram: np.ndarray, token_ids: list[int]) -> tuple[np.ndarray, list[float]]:
    """The distribution after each token of one text, from the logarithms of both models (T, V); the last exponents."""
    a, b, distributions = 0.5, 0.5, []
    for position, token in enumerate(token_ids):
        if position > 0:
            before = distributions[-1]
            slope_a, slope_b = (
                sum(before * model[position - 1]) - model[position - 1, token] for model in (network, ngram)
            )
            rate = max(1 / (position + PRIOR_TOKENS), MIN_RATE)
            # The sum a + b and the difference a - b, each with its own rate.
            total = a + b - rate * RATE_OF_SUM * (slope_a + slope_b)
            difference = a - b - rate * RATE_OF_DIFFERENCE * (slope_a - slope_b)
            a, b = (min(max(each, 0.0), MAX_EXPONENT) for each in ((total + difference) / 2, (total - difference) / 2))
        weights = np.exp(a * network[position] + b * ngram[position])
        distributions.append(weights / weights.sum())
    return np.array(distributions), [a, b]


def test_three_tokens_by_hand() -> None:
    model = MixtureLanguageModel(fixed_distribution(0.8, 0.2), fixed_ngram(0.5, 0.5), 2)
    logits, state = model.forward(np.array([[0, 1, 0]]), model.initial_state(1))
    # After the first token, which no model predicted: sqrt(0.8 * 0.5) : sqrt(0.2 * 0.5) = 2 : 1.
    # Token 1: E[x] - x(1) = (2/3 ln 4, 0) = (0.924196, 0). With the rate 1/65,
    #   a = 0.5 - 0.625 * 0.924196 / 65 = 0.491113, b = 0.5 + 0.375 * 0.924196 / 65 = 0.505332, 4**a : 1 = 1.975510 : 1.
    # Token 0: E[x] - x(0) = (-0.336077 ln 4, 0) = (-0.465902, 0). With the rate 1/66,
    #   a = 0.491113 + 0.625 * 0.465902 / 66 = 0.495525, b = 0.505332 - 0.375 * 0.465902 / 66 = 0.502685.
    np.testing.assert_allclose(softmax(logits)[0, :, 0], [2 / 3, 0.663923, 0.665287], atol=2e-6)
    np.testing.assert_allclose(exponents_of(state), [[0.495525, 0.502685]], atol=2e-6)


@pytest.mark.parametrize("length", [1, 2, 60])
@with_and_without_gate
def test_the_mixture_as_defined(mixture: MixtureLanguageModel, length: int) -> None:
    """Including the constant of the network's logits, which has no influence."""
    token_ids = READ[None, :length]
    prior, _ = NGRAM.prior(token_ids, NGRAM.initial_state(1))
    if mixture is GATED_MIXTURE:
        network, _ = GATED_NETWORK.forward(token_ids, GATED_NETWORK.initial_state(1), prior)
    else:
        network, _ = NETWORK.forward(token_ids, NETWORK.initial_state(1))
    log_probs = np.log(softmax(network.astype(np.float64)))
    expected, exponents = naive_mixture(log_probs[0], prior.log_probs[0].astype(np.float64), READ[:length].tolist())
    logits, state = mixture.forward(token_ids, mixture.initial_state(1))
    assert (logits.shape, logits.dtype) == ((1, length, VOCABULARY_SIZE), np.float32)
    np.testing.assert_allclose(softmax(logits)[0], expected, atol=1e-5)
    np.testing.assert_allclose(exponents_of(state), [exponents], atol=1e-5)
    assert length < 60 or max(abs(exponent - 0.5) for exponent in exponents) > 0.01, "the exponents move"


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
    assert len(np.unique(exponents_of(state), axis=0)) == 3


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


@pytest.mark.parametrize("lengths", [[20], [1] * 20, [7, 1, 12]])
@with_and_without_gate
def test_fixed_exponents_stay_those_of_the_prompt(mixture: MixtureLanguageModel, lengths: list[int]) -> None:
    """In a batch of texts with exponents that adapt, too."""
    texts = READ.reshape(3, 20)
    _, state = mixture.forward(texts[:, ::-1], mixture.initial_state(3))
    for fixed in (np.array([True, True, True]), np.array([False, True, False])):
        results = []
        later = begin_sampling(mixture, state, fixed)
        for start, end in pairwise(np.cumsum([0, *lengths])):
            window, later = mixture.forward(texts[:, start:end], later)
            results.append(window)
        logits = np.concatenate(results, axis=1)
        is_same = (exponents_of(later) == exponents_of(state)).all(axis=1)
        assert is_same.tolist() == fixed.tolist()
        adapting, _ = mixture.forward(texts, state)
        np.testing.assert_allclose(logits[~fixed], adapting[~fixed], atol=1e-5)
        assert not np.allclose(logits[fixed], adapting[fixed], atol=1e-3)
        np.testing.assert_allclose(logits[fixed, 0], adapting[fixed, 0], atol=0.1)


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


@pytest.mark.parametrize(("network", "ngram"), [(0.9, 0.6), (0.6, 0.9)])
def test_the_exponents_move_toward_the_better_model(network: float, ngram: float) -> None:
    model = MixtureLanguageModel(fixed_distribution(network, 1 - network), fixed_ngram(ngram, 1 - ngram), 2)
    token_ids = (np.arange(4000) % 10 == 9).astype(np.int64)[None]  # one in ten is a 1
    logits, state = model.forward(token_ids, model.initial_state(1))
    ((a, b),) = exponents_of(state)
    assert a > b + 0.5 if network > ngram else b > a + 0.5
    assert softmax(logits)[0, -1000:, 0].mean() == pytest.approx(0.9, abs=0.01)


log_probs_of_two = st.one_of(
    st.floats(2.0**-60, 1 - 2.0**-20, width=32).map(lambda p: (np.log(p), np.log1p(-p))),
    st.sampled_from([(0.0, -1000.0), (-1000.0, 0.0)]),
)


@settings(max_examples=50)
@given(
    text=st.lists(st.tuples(log_probs_of_two, log_probs_of_two, st.integers(0, 1)), min_size=1, max_size=40),
    exponents=st.tuples(*[st.sampled_from([0.0, 0.5, MAX_EXPONENT])] * 2),
    count=st.sampled_from([0, 10, 1000, 2**24]),
)
def test_exponents_stay_within_their_bounds(text: list, exponents: tuple[float, float], count: int) -> None:
    """In whatever windows a text is read."""
    network, ngram, tokens = zip(*text, strict=True)
    features = [np.array(each, np.float32)[None] for each in (network, ngram)]
    token_ids = np.array(tokens)[None]
    _, *rest = initial_mixing(1, 2)
    rest[0] = np.array([count], np.float32)
    state = whole = (np.array([exponents], np.float32), *rest)
    logits = []
    for position in range(len(text)):
        step = slice(position, position + 1)
        one, state = mix(*(each[:, step] for each in features), token_ids[:, step], state)
        logits.append(one)
        assert ((state[0] >= 0) & (state[0] <= MAX_EXPONENT)).all()
    assert state[1] == min(count + len(text), 2**24)  # float32 counts no further; the rate is constant by then
    at_once, whole = mix(*features, token_ids, whole)
    np.testing.assert_allclose(at_once, np.concatenate(logits, axis=1), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(whole[0], state[0], atol=1e-4)
    assert np.isfinite(at_once).all()


def test_the_exponent_of_a_model_that_is_always_wrong_becomes_zero_and_returns() -> None:
    model = MixtureLanguageModel(FixedModel([0.0, -200.0]), fixed_ngram(1e-3, 1 - 1e-3), 2)
    _, state = model.forward(np.ones((1, 100), np.int64), model.initial_state(1))
    assert exponents_of(state)[0, 0] == 0
    assert exponents_of(state)[0, 1] > 0.5
    _, later = model.forward(np.zeros((1, 300), np.int64), state)  # the other is wrong
    assert exponents_of(later)[0, 0] > 0.5
    logits, _ = model.forward(np.zeros((1, 1), np.int64), later)
    assert softmax(logits)[0, 0, 0] > 0.9


def test_a_text_begins_with_the_exponents_of_the_model() -> None:
    model = MixtureLanguageModel(NETWORK, NGRAM, VOCABULARY_SIZE, (0.7, 0.25))
    _, state = model.forward(READ[None, :1], model.initial_state(1))
    np.testing.assert_allclose(exponents_of(state), [[0.7, 0.25]], atol=1e-6)


def test_exponents_of_a_model_that_do_not_adapt() -> None:
    model = MixtureLanguageModel(NETWORK, NGRAM, VOCABULARY_SIZE, (0.7, 0.25), adapts=False)
    logits, state = read_in_windows(model, READ.reshape(2, 30), [1, 20, 9])
    for row, text in enumerate(READ.reshape(2, 30)):
        network, _ = NETWORK.forward(text[None], NETWORK.initial_state(1))
        ngram, _ = NGRAM.forward(text[None], NGRAM.initial_state(1))
        np.testing.assert_allclose(logits[row], 0.7 * network[0] + 0.25 * ngram[0], atol=1e-5)
    np.testing.assert_allclose(exponents_of(state), [[0.7, 0.25]] * 2, atol=1e-6)


def test_a_certain_network_and_a_token_that_both_exclude() -> None:
    ngram = estimated_ngram(np.zeros(1000, np.uint8), 3, 6)  # it has seen token 0 only
    model = MixtureLanguageModel(FixedModel([0.0, -200.0, -200.0]), ngram, 3)
    zeros, ones = np.zeros((1, 5000), np.int64), np.ones((1, 20), np.int64)
    state = model.initial_state(1)
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        for token_ids in (zeros, zeros, ones, zeros, ones[:, :1], ones[:, :1]):
            logits, state = model.forward(token_ids, state)
            assert np.isfinite(logits).all()
            assert all(np.isfinite(array).all() for array in state[-1])
            assert ((exponents_of(state) >= 0) & (exponents_of(state) <= MAX_EXPONENT)).all()
