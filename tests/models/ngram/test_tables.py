"""Tables of n-grams: their layout, and the refusal of inconsistent ones."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.config.model import ModelConfig, ngram_config
from quickfox.errors import DataError
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.models.ngram.tables import check_tables, context_sums, order_tensors, unigram_tensors
from toy_models import NGRAM_TABLES

CONFIG = ngram_config(4, (4, 3, 2))
"""Of NGRAM_TABLES."""


def test_layout_by_hand() -> None:
    tensors = unigram_tensors(np.array([0.5, 0.2, 0.1, 0.0]))
    np.testing.assert_allclose(tensors["ngram.1.probs"], [0.55, 0.25, 0.15, 0.05])
    tensors |= order_tensors(
        2,
        np.array([0, 0, 1]),
        np.array([1, 3, 0]),
        np.array([0.5, 0.25, 0.5]),
        num_contexts=4,
        vocabulary_size=4,
    )
    assert tensors.keys() == {"ngram.1.probs", "ngram.2.offsets", "ngram.2.tokens", "ngram.2.probs"}
    for name in ("ngram.2.offsets", "ngram.2.tokens", "ngram.2.probs"):
        np.testing.assert_array_equal(tensors[name], NGRAM_TABLES[name], strict=True)


def test_context_sums_in_float64() -> None:
    offsets = np.array([0, 0, 2, 3, 3], np.uint32)
    assert context_sums(offsets, np.array([0.5, 0.25, 1.0], np.float32)).tolist() == [0, 0.75, 1, 0]
    probs = np.full(2**20, 0.1, np.float32)
    sums = context_sums(np.array([0, 2**20 - 1, 2**20], np.uint32), probs)
    assert sums[1] == pytest.approx(float(np.float32(0.1)), abs=1e-9), "the sums before it leave no error"


def test_consistent_tables() -> None:
    check_tables(CONFIG, NGRAM_TABLES, "model")
    check_tables(ngram_config(4), {}, "model")  # no tables
    unigrams = {"ngram.1.probs": NGRAM_TABLES["ngram.1.probs"], "other": np.zeros(3)}
    check_tables(ngram_config(4, (4,)), unigrams, "model")


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("ngram.1.probs", [0.1, 0.2, 0.3, 0.3], "probabilities of a distribution"),
        ("ngram.1.probs", [0.0, 0.3, 0.3, 0.4], "probabilities of a distribution"),
        ("ngram.1.probs", [-0.1, 0.4, 0.3, 0.4], "probabilities of a distribution"),
        ("ngram.1.probs", [np.nan, 0.4, 0.3, 0.4], "probabilities of a distribution"),
        ("ngram.2.offsets", [1, 2, 3, 3, 3], "divide its 3 n-grams"),
        ("ngram.2.offsets", [0, 2, 3, 3, 2], "divide its 3 n-grams"),
        ("ngram.2.offsets", [0, 2, 3, 3, 4], "divide its 3 n-grams"),
        ("ngram.2.offsets", [0, 2, 1, 3, 3], "divide its 3 n-grams"),
        ("ngram.2.offsets", [0, 2**32 - 1, 3, 3, 3], "divide its 3 n-grams"),
        ("ngram.2.tokens", [3, 1, 0], "not in order"),
        ("ngram.2.tokens", [1, 1, 0], "not in order"),
        ("ngram.2.tokens", [1, 4, 0], "not in the vocabulary"),
        ("ngram.3.tokens", [2, 255], "not in the vocabulary"),
        ("ngram.2.probs", [0.5, -0.25, 0.5], "probabilities of a distribution"),
        ("ngram.2.probs", [0.75, 0.5, 0.5], "probabilities of a distribution"),
        ("ngram.3.probs", [0.5, 1.5], "probabilities of a distribution"),
        ("ngram.3.probs", [0.5, np.nan], "probabilities of a distribution"),
    ],
)
def test_inconsistent_tables(name: str, values: list[float], reason: str) -> None:
    tables = NGRAM_TABLES | {name: np.array(values, NGRAM_TABLES[name].dtype)}
    with pytest.raises(DataError, match=reason) as caught:
        check_tables(CONFIG, tables, "model.safetensors")
    assert str(caught.value).startswith(f"model.safetensors: {name} ")
    assert "\n" not in str(caught.value)


@settings(max_examples=50)
@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    order=st.integers(1, 5),
    max_ngrams=st.sampled_from([0, 2, 5, 1000]),
)
def test_estimated_tables_are_consistent(ids: list[int], order: int, max_ngrams: int) -> None:
    estimate = estimate_ngrams(np.array(ids, np.uint8), 4, order, max_ngrams)
    check_tables(ngram_config(4, estimate.ngrams), estimate.tensors, "model")


def assert_finite(config: ModelConfig, tables: Mapping[str, np.ndarray], token_ids: np.ndarray) -> None:
    """All probabilities after texts (B, T) are positive and sum to 1, and all logits are finite."""
    model = NgramLanguageModel(config, tables)
    state = model.initial_state(len(token_ids))
    probs, _ = model.probs(token_ids, state)
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-4)
    for ids in (token_ids, token_ids[:, :1]):  # as arrays, and as few tokens
        logits, _ = model.forward(ids, state)
        assert np.isfinite(logits).all()
        targets, _ = model.target_probs(ids, ids, state)
        assert np.isfinite(np.log(targets)).all()


def corrupt(data: st.DataObject, tables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tables with one element replaced."""
    name = data.draw(st.sampled_from([name for name, tensor in tables.items() if tensor.size]))
    tensor = tables[name].copy()
    position = data.draw(st.integers(0, tensor.size - 1))
    if tensor.dtype.kind == "f":
        small = st.sampled_from([0.0, 1e-45, 1e-38, 1e-20, 0.5, 1.0])
        tensor[position] = data.draw(small | st.floats(width=32))
    else:
        near = st.integers(0, min(9, np.iinfo(tensor.dtype).max))
        tensor[position] = data.draw(near | st.integers(0, int(np.iinfo(tensor.dtype).max)))
    return {**tables, name: tensor}


ESTIMATE = estimate_ngrams(np.random.default_rng(0).integers(0, 4, 40).astype(np.uint8), 4, 4, 30)


@given(data=st.data())
def test_a_corrupted_table_is_refused_or_gives_finite_probabilities(data: st.DataObject) -> None:
    config, tables = data.draw(
        st.sampled_from([(CONFIG, NGRAM_TABLES), (ngram_config(4, ESTIMATE.ngrams), ESTIMATE.tensors)])
    )
    tables = corrupt(data, tables)
    try:
        check_tables(config, tables, "model")
    except DataError:
        return
    assert_finite(config, tables, np.random.default_rng(1).integers(0, 4, (2, 20)))


def test_probabilities_stay_positive_where_the_tables_leave_nothing() -> None:
    """Eight orders whose contexts give all probability to one token, and a token of the smallest float32."""
    order = 9
    tables = {"ngram.1.probs": np.array([1.0, 1e-45], np.float32)}
    for k in range(2, order + 1):  # one n-gram in each order: k times token 0
        tables[f"ngram.{k}.offsets"] = np.array([0, 1, 1] if k == 2 else [0, 1], np.uint32)
        tables[f"ngram.{k}.tokens"] = np.zeros(1, np.uint8)
        tables[f"ngram.{k}.probs"] = np.ones(1, np.float32)
    config = ngram_config(2, (2, *[1] * (order - 1)))
    check_tables(config, tables, "model")
    assert_finite(config, tables, np.zeros((1, 20), np.int64))
