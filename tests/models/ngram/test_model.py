"""Inference of n-gram models: the same probabilities by every way to compute them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.config.model import ngram_config
from quickfox.models.language_model import LanguageModel, State, replace_first, select_rows
from quickfox.models.ngram import model as ngram_model
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.models.registry import build_language_model
from toy_models import NGRAM_TABLES

UNLIMITED = 10**9
VOCABULARY_SIZE = 7
RANDOM = np.random.default_rng(0)
TEXT = (RANDOM.integers(0, VOCABULARY_SIZE, 800) * RANDOM.integers(0, 2, 800)).astype(np.uint8)  # half of it zeros
READ = np.concatenate([TEXT[:30], RANDOM.integers(0, VOCABULARY_SIZE, 30)]).astype(np.int64)  # (60,)


def build_model(ids: np.ndarray, vocabulary_size: int, order: int, max_ngrams: int = UNLIMITED) -> NgramLanguageModel:
    estimate = estimate_ngrams(ids, vocabulary_size, order, max_ngrams)
    for tensor in estimate.tensors.values():
        tensor.flags.writeable = False  # as those of a file
    return NgramLanguageModel(ngram_config(vocabulary_size, estimate.ngrams), estimate.tensors)


MODEL = build_model(TEXT, VOCABULARY_SIZE, 4)


def read_in_windows(model: LanguageModel, token_ids: np.ndarray, lengths: list[int]) -> tuple[np.ndarray, State]:
    """The logits after texts (B, T) read in windows of these lengths, which sum to T, and the last state."""
    state = model.initial_state(len(token_ids))
    logits = []
    for start, end in pairwise(np.cumsum([0, *lengths])):
        window, state = model.forward(token_ids[:, start:end], state)
        logits.append(window)
    return np.concatenate(logits, axis=1), state


def assert_same(first: tuple[np.ndarray, State], second: tuple[np.ndarray, State]) -> None:
    np.testing.assert_allclose(first[0], second[0], rtol=1e-5, atol=1e-7)
    for arrays in zip(*first[1], *second[1], strict=True):
        np.testing.assert_array_equal(*arrays, strict=True)


def test_distributions_by_hand() -> None:
    model = NgramLanguageModel(ngram_config(4, (4, 3, 2)), NGRAM_TABLES)
    probs, _ = model.probs(np.array([[0, 1, 2, 0, 3]]), model.initial_state(1))
    unigrams = np.array([0.1, 0.2, 0.3, 0.4])
    after_0 = np.array([0, 0.5, 0, 0.25]) + 0.25 * unigrams
    after_1 = np.array([0.5, 0, 0, 0]) + 0.5 * unigrams
    after_01 = np.array([0, 0, 0.5, 0]) + 0.5 * after_1
    after_03 = unigrams  # n-grams, but nothing follows them
    np.testing.assert_allclose(probs[0], [after_0, after_01, unigrams, after_0, after_03], atol=1e-7)


@pytest.mark.parametrize("total", [1.0, 1.000005])
def test_lower_orders_have_a_share_where_rounding_leaves_none(total: float) -> None:
    tables = NGRAM_TABLES | {"ngram.3.probs": np.array([total, total], np.float32)}
    model = NgramLanguageModel(ngram_config(4, (4, 3, 2)), tables)
    state = model.initial_state(1)
    probs, _ = model.probs(np.array([[0, 1]]), state)  # after 01: 2 with the whole probability
    after_1 = np.array([0.5, 0, 0, 0]) + 0.5 * NGRAM_TABLES["ngram.1.probs"]
    np.testing.assert_allclose(probs[0, 1], [0, 0, total, 0] + ngram_model.MIN_GAMMA * after_1, rtol=1e-6)
    targets, _ = model.target_probs(np.array([[0, 1]]), np.array([[3, 3]]), state)
    np.testing.assert_allclose(targets[0, 1], ngram_model.MIN_GAMMA * after_1[3], rtol=1e-6)


@pytest.mark.parametrize("max_ngrams", [UNLIMITED, 40])
@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_probabilities_sum_to_one(order: int, max_ngrams: int) -> None:
    model = build_model(TEXT, VOCABULARY_SIZE, order, max_ngrams)
    probs, _ = model.probs(READ.reshape(2, 30), model.initial_state(2))
    assert (probs.shape, probs.dtype) == ((2, 30, VOCABULARY_SIZE), np.float32)
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (2, 30)])
def test_logits_are_log_probabilities(shape: tuple[int, int]) -> None:
    token_ids = READ[: np.prod(shape)].reshape(shape)
    logits, state = MODEL.forward(token_ids, MODEL.initial_state(shape[0]))
    probs, expected = MODEL.probs(token_ids, MODEL.initial_state(shape[0]))
    assert logits.dtype == np.float32
    assert_same((np.exp(logits), state), (probs, expected))


def test_lengths_of_the_contexts_by_hand() -> None:
    model = build_language_model(ngram_config(4, (4, 3, 2)), NGRAM_TABLES)  # with the 2-grams 01, 03 and 10
    prior, _ = model.prior(np.array([[0, 1, 2, 1, 0, 0, 3]]), model.initial_state(1))
    assert prior.lengths.tolist() == [[1, 2, 1, 1, 2, 1, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (2, 30)])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_prior_is_the_distributions_and_the_lengths_of_the_longest_contexts(
    order: int, shape: tuple[int, int]
) -> None:
    model = build_model(TEXT, VOCABULARY_SIZE, order)
    token_ids = READ[-np.prod(shape) :].reshape(shape)
    prior, state = model.prior(token_ids, model.initial_state(shape[0]))
    probs, expected_state = model.probs(token_ids, model.initial_state(shape[0]))
    assert prior.log_probs.dtype == np.float32
    assert_same((np.exp(prior.log_probs), state), (probs, expected_state))
    assert (prior.lengths.shape, prior.lengths.dtype.kind) == (shape, "i")
    for row, position in np.ndindex(*shape):
        read = bytes(token_ids[row, : position + 1].tolist())
        contexts = [read[-length:] for length in range(1, min(order, len(read) + 1))]
        assert prior.lengths[row, position] == max(
            (len(found) for found in contexts if found in bytes(TEXT)), default=0
        )


@settings(max_examples=50)
@given(data=st.data())
def test_windows_of_any_length_equal_token_by_token(data: st.DataObject) -> None:
    ends = data.draw(st.sets(st.integers(1, len(READ) - 1)))
    lengths = np.diff([0, *sorted(ends), len(READ)]).tolist()
    expected = read_in_windows(MODEL, READ[None], [1] * len(READ))
    assert_same(read_in_windows(MODEL, READ[None], lengths), expected)


@pytest.mark.parametrize("few_entries", [0, 1000])
@pytest.mark.parametrize("order", [1, 4])
def test_one_token_at_a_time_by_a_loop_or_by_arrays(
    monkeypatch: pytest.MonkeyPatch, few_entries: int, order: int
) -> None:
    monkeypatch.setattr(ngram_model, "_FEW_ENTRIES", few_entries)
    model = build_model(TEXT, VOCABULARY_SIZE, order)
    expected = read_in_windows(model, READ[None], [len(READ)])
    assert_same(read_in_windows(model, READ[None], [1] * len(READ)), expected)


@pytest.mark.parametrize("lengths", [[1] * 20, [20], [7, 1, 12]])
@pytest.mark.parametrize("order", [4, 5])
def test_sampled_texts_have_no_ngrams_of_the_highest_order(order: int, lengths: list[int]) -> None:
    """From order 5 on; others in the same batch do."""
    estimate = estimate_ngrams(TEXT, VOCABULARY_SIZE, 5, UNLIMITED)
    full, lower = (
        NgramLanguageModel(ngram_config(VOCABULARY_SIZE, estimate.ngrams[:highest]), estimate.tensors)
        for highest in (order, 4)
    )
    prompt, texts = READ[None, :10].repeat(3, axis=0), TEXT[100:160].astype(np.int64).reshape(3, 20)

    def read(model: NgramLanguageModel, rows: list[int], sampled: list[int]) -> np.ndarray:
        _, state = model.forward(prompt[rows], model.initial_state(len(rows)))
        state = model.leave_out_highest_order(state, np.isin(rows, sampled))
        logits = []
        for start, end in pairwise(np.cumsum([0, *lengths])):
            window, state = model.forward(texts[rows, start:end], state)
            logits.append(window)
        return np.concatenate(logits, axis=1)

    expected = np.concatenate([read(lower, [0], []), read(full, [1], []), read(lower, [2], [])])
    np.testing.assert_allclose(read(full, [0, 1, 2], [0, 2]), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(read(full, [2], [2]), expected[2:], rtol=1e-5, atol=1e-6)
    assert np.allclose(read(full, [0], []), expected[:1]) == (order == 4)


@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_texts_of_a_batch_are_independent(length: int) -> None:
    token_ids = READ[: 3 * length].reshape(3, length)
    logits, state = read_in_windows(MODEL, token_ids, [length])
    for row in range(3):
        single = read_in_windows(MODEL, token_ids[row : row + 1], [length])
        assert_same((logits[row : row + 1], select_rows(state, slice(row, row + 1))), single)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_token_ids_of_any_integer_type(dtype: type) -> None:
    for length in (3, 60):
        expected = read_in_windows(MODEL, READ[None, :length], [length])
        assert_same(read_in_windows(MODEL, READ[None, :length].astype(dtype), [length]), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (2, 29)])
@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        build_model(TEXT, VOCABULARY_SIZE, 1),
        build_model(TEXT, VOCABULARY_SIZE, 5, max_ngrams=30),
        build_model(TEXT, VOCABULARY_SIZE, 5, max_ngrams=0),
        build_model(TEXT[:2], VOCABULARY_SIZE, 5),
    ],
    ids=["order 4", "order 1", "few n-grams", "no n-grams", "short text"],
)
def test_target_probs_are_those_of_the_distributions(model: NgramLanguageModel, shape: tuple[int, int]) -> None:
    token_ids, targets = (READ[start : start + np.prod(shape)].reshape(shape) for start in (0, 1))
    _, before = model.forward(READ[: 2 * shape[0]].reshape(-1, 2), model.initial_state(shape[0]))
    probs, expected_state = model.probs(token_ids, before)
    expected = np.take_along_axis(probs, targets[..., None], axis=-1)[..., 0]
    found, state = model.target_probs(token_ids, targets, before)
    assert found.dtype == np.float32
    assert_same((found, state), (expected, expected_state))


@pytest.mark.parametrize("shape", [(1, 2), (2, 20)])
def test_the_given_state_is_not_changed(shape: tuple[int, int]) -> None:
    token_ids = READ[: np.prod(shape)].reshape(shape)
    _, state = MODEL.forward(token_ids, MODEL.initial_state(shape[0]))
    before = [array.copy() for layer in state for array in layer]
    first = MODEL.forward(token_ids, state)
    MODEL.target_probs(token_ids, token_ids, state)
    MODEL.forward(token_ids[:, ::-1], state)
    for layer in state:
        for array, copy in zip(layer, before, strict=True):
            np.testing.assert_array_equal(array, copy)
            array.flags.writeable = False
    assert_same(MODEL.forward(token_ids, state), first)


def test_rows_of_a_state_can_be_selected_and_replaced() -> None:
    texts = READ[:12].reshape(2, 6)
    _, state = MODEL.forward(texts, MODEL.initial_state(2))
    singles = [MODEL.forward(text[None], MODEL.initial_state(1))[1] for text in texts]
    selected = select_rows(state, np.array([1, 0, 1]))
    found = MODEL.forward(READ[:9].reshape(3, 3), selected)
    for row, text in enumerate([1, 0, 1]):
        expected = MODEL.forward(READ[3 * row : 3 * row + 3][None], singles[text])
        assert_same((found[0][row : row + 1], select_rows(found[1], slice(row, row + 1))), expected)
    replaced = replace_first(state, MODEL.initial_state(1))
    logits, _ = MODEL.forward(READ[:4].reshape(2, 2), replaced)
    fresh, _ = MODEL.forward(READ[:2].reshape(1, 2), MODEL.initial_state(1))
    continued, _ = MODEL.forward(READ[2:4].reshape(1, 2), singles[1])
    np.testing.assert_allclose(logits, np.concatenate([fresh, continued]), rtol=1e-6)


def test_context_is_the_last_tokens_only() -> None:
    # an n-gram model of order 4 forgets what is more than 3 tokens before
    _, state = MODEL.forward(READ[None, :20], MODEL.initial_state(1))
    far, _ = MODEL.forward(READ[None, 20:25], state)
    _, state = MODEL.forward(READ[None, 17:20], MODEL.initial_state(1))
    near, _ = MODEL.forward(READ[None, 20:25], state)
    np.testing.assert_array_equal(far, near)
    assert MODEL.context is None


def test_order_one_ignores_the_context() -> None:
    model = build_model(TEXT, VOCABULARY_SIZE, 1)
    probs, _ = model.probs(READ[None], model.initial_state(1))
    expected = np.bincount(TEXT, minlength=VOCABULARY_SIZE) / len(TEXT)
    np.testing.assert_allclose(probs[0], np.broadcast_to(expected, (60, VOCABULARY_SIZE)), atol=0.01)


@pytest.mark.parametrize(
    ("ids", "vocabulary_size"), [([3], 5), ([3, 1, 3], 5), ([2] * 30, 3), ([0], 1), ([0] * 30, 1)], ids=str
)
@pytest.mark.parametrize("length", [3, 30])
def test_order_longer_than_the_text_and_one_repeated_token(ids: list[int], vocabulary_size: int, length: int) -> None:
    model = build_model(np.array(ids, np.uint8), vocabulary_size, 8)
    text = np.resize(ids, (1, length))
    probs, _ = model.probs(text, model.initial_state(1))
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-5)
    assert (probs[0].argmax(axis=-1)[:2] == text[0, 1:3]).all()
    targets, _ = model.target_probs(text[:, :-1], text[:, 1:], model.initial_state(1))
    np.testing.assert_allclose(targets[0], probs[0, np.arange(length - 1), text[0, 1:]], rtol=1e-5)


@pytest.mark.parametrize(
    ("vocabulary_size", "dtype"),
    [(255, np.uint8), (256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.uint32), (2**17, np.uint32)],
)
def test_tokens_at_the_ends_of_large_vocabularies(vocabulary_size: int, dtype: type) -> None:
    top = vocabulary_size - 1
    text = np.array([top, 0, top - 1, top // 2] * 20)
    estimate = estimate_ngrams(text.astype(np.uint32), vocabulary_size, 3, UNLIMITED)
    assert estimate.tensors["ngram.2.tokens"].dtype == estimate.tensors["ngram.3.tokens"].dtype == dtype
    model = build_language_model(ngram_config(vocabulary_size, estimate.ngrams), estimate.tensors)
    for length in (6, 12):  # as few tokens, and as arrays
        logits, _ = model.forward(text[None, :length], model.initial_state(1))
        np.testing.assert_allclose(np.exp(logits).sum(axis=-1), 1, atol=1e-4)
        assert logits[0].argmax(axis=-1).tolist() == text[1 : length + 1].tolist()
