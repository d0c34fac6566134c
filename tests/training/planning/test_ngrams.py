"""The order of the n-gram tables, chosen or requested; and what a run of an n-gram model alone refuses."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.training import TrainingRequest
from quickfox.errors import UsageError
from quickfox.training.planning.ngrams import (
    GATE_ARCHITECTURES,
    GATE_TOKENS_PER_SECOND,
    MAX_GATE_TOKENS,
    MAX_GATE_VOCABULARY,
    MAX_ORDER,
    MIN_ORDER,
    allows_gate,
    check_ngram_request,
    check_ngram_workers,
    choose_ngram_order,
    ngram_training,
)

NETWORK_SETTINGS: dict[str, Any] = {
    "size": "tiny",
    "embedding_dim": 8,
    "hidden_dim": 8,
    "num_layers": 1,
    "num_heads": 1,
    "epochs": 1.0,
    "steps": 1,
    "batch_size": 4,
    "window": 8,
    "learning_rate": 0.01,
    "dropout": 0.0,
    "patience": 1,
    "freeze_embeddings": False,
    "no_augmentation": False,
    "precision": "float32",
}
OTHER_SETTINGS = {"tokenizer", "vocabulary_size", "validation_split", "architecture", "ngram", "budget", "random_seed"}


def uniform_text(length: int, vocabulary_size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocabulary_size, length).astype(np.uint16)


def automatic_order(ids: np.ndarray) -> int:
    return choose_ngram_order(TrainingRequest(), ids)


def test_without_n_grams_the_order_is_0() -> None:
    assert choose_ngram_order(TrainingRequest(ngram="off"), uniform_text(100, 4)) == 0


def test_a_requested_order_is_kept() -> None:
    ids = uniform_text(12, 4)
    assert [choose_ngram_order(TrainingRequest(ngram=order), ids) for order in (1, 7, 12)] == [1, 7, 12]


def test_an_order_above_the_number_of_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match="ngram 13 is more than the 12 training tokens") as caught:
        choose_ngram_order(TrainingRequest(ngram=13), uniform_text(12, 4))
    assert caught.value.settings == ("ngram",)


def test_an_n_gram_model_without_n_grams_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be trained with ngram off"):
        choose_ngram_order(TrainingRequest(architecture="ngram", ngram="off"), uniform_text(12, 4))


def test_the_automatic_order_by_hand() -> None:
    """1.9 ln(10,000) / ln(30) = 5.15; the entropy of the text differs little from ln(30)."""
    assert automatic_order(uniform_text(10_000, 30)) == 5


def test_the_automatic_order_increases_with_the_text_and_decreases_with_the_vocabulary() -> None:
    orders = [automatic_order(uniform_text(length, 50)) for length in (100, 10_000, 1_000_000)]
    assert orders == sorted(set(orders))
    orders = [automatic_order(uniform_text(10_000, size)) for size in (4000, 50, 8)]
    assert orders == sorted(set(orders))


@pytest.mark.parametrize(
    ("ids", "order"),
    [([0], 1), ([0, 0], 2), ([0, 1, 2], 2), ([0] * 10, 10), ([0] * 1000, MAX_ORDER), ([5] * 4, 4)],
)
def test_the_automatic_order_of_degenerate_texts(ids: list[int], order: int) -> None:
    assert automatic_order(np.array(ids, np.uint8)) == order


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50) | st.lists(st.integers(0, 999), min_size=1, max_size=50))
def test_the_automatic_order_is_within_its_bounds_and_the_text(ids: list[int]) -> None:
    order = automatic_order(np.array(ids, np.uint16))
    assert min(MIN_ORDER, len(ids)) <= order <= min(MAX_ORDER, len(ids))


def test_every_setting_is_for_networks_or_has_a_meaning_for_n_gram_models() -> None:
    names = {field.name for field in dataclasses.fields(TrainingRequest)}
    assert names == NETWORK_SETTINGS.keys() | OTHER_SETTINGS | {"threads"}


@pytest.mark.parametrize("name", NETWORK_SETTINGS)
def test_the_settings_of_networks_are_refused(name: str) -> None:
    request = TrainingRequest(architecture="ngram", **{name: NETWORK_SETTINGS[name]})
    with pytest.raises(UsageError, match=f"{name} is for networks") as caught:
        check_ngram_request(request)
    assert caught.value.settings == (name,)


def test_the_other_settings_are_accepted() -> None:
    check_ngram_request(
        TrainingRequest(
            architecture="ngram", ngram=3, tokenizer="word", vocabulary_size=9, validation_split=0.2, budget=5.0,
            random_seed=1, threads=2,
        )
    )  # fmt: skip


def test_several_workers_are_refused() -> None:
    check_ngram_workers(1)
    with pytest.raises(UsageError, match="one process, not for 2 workers"):
        check_ngram_workers(2)


def test_the_whole_text_is_one_step() -> None:
    training = ngram_training(TrainingRequest(architecture="ngram", random_seed=7), 4, threads=3)
    assert (training.steps, training.ngram_order, training.random_seed, training.threads) == (1, 4, 7, 3)
    seeds = {ngram_training(TrainingRequest(architecture="ngram"), 4, threads=3).random_seed for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize("architecture", [None, "lstm", "gru", "rnn", "attention-rnn", "transformer"])
def test_which_networks_may_get_a_gate(architecture: Any) -> None:
    request = TrainingRequest(architecture=architecture)
    assert allows_gate(request, 5, MAX_GATE_VOCABULARY, MAX_GATE_TOKENS) == (architecture != "transformer")
    assert (architecture in GATE_ARCHITECTURES) == (architecture not in (None, "transformer"))


@pytest.mark.parametrize(
    ("order", "vocabulary_size", "tokens"),
    [(0, 65, 1000), (5, MAX_GATE_VOCABULARY + 1, 1000), (5, 65, MAX_GATE_TOKENS + 1)],
    ids=["no tables", "large vocabulary", "long text"],
)
def test_no_network_may_get_a_gate(order: int, vocabulary_size: int, tokens: int) -> None:
    assert allows_gate(TrainingRequest(), 5, 65, 1000)
    assert allows_gate(TrainingRequest(budget=60.0), 5, 65, 60 * GATE_TOKENS_PER_SECOND)
    assert not allows_gate(TrainingRequest(budget=60.0), 5, 65, 60 * GATE_TOKENS_PER_SECOND + 1)
    assert not allows_gate(TrainingRequest(), order, vocabulary_size, tokens)
