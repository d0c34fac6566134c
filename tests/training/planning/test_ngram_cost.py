"""The cost of n-gram tables: bounds that hold for real tables, examples by hand, and the checks that include them."""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.model import MAX_NGRAM_ORDER, ModelConfig, ngram_config
from quickfox.config.training import MAX_COUNTED_TOKENS
from quickfox.errors import StorageError, UsageError
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.training.planning.cost import (
    BASE_BYTES,
    NGRAM_BASE_BYTES,
    check_disk_space,
    check_memory,
    checkpoints_size,
    estimate_cost,
    training_memory,
)
from quickfox.training.planning.ngram_cost import counting_seconds, evaluation_seconds, ngram_memory, tables_size
from quickfox.training.planning.ngrams import MAX_NGRAMS
from quickfox.training.planning.time_budget import FINISH_SECONDS
from toy_models import training_config

NETWORK = ModelConfig(vocabulary_size=3, embedding_dim=4, hidden_dim=16)
ALONE = ngram_config(vocabulary_size=3)
TRIGRAMS = training_config(ngram_order=3)
TOKENS = 1000


def test_tables_by_hand() -> None:
    unigrams = 3 * 4
    bigrams = (3 + 1) * 4 + 9 * (1 + 4)
    trigrams = (9 + 1) * 4 + 27 * (1 + 4)
    assert (
        tables_size(NETWORK, TRIGRAMS, TOKENS) == tables_size(ALONE, TRIGRAMS, TOKENS) == unigrams + bigrams + trigrams
    )


def test_there_are_at_most_as_many_ngrams_as_tokens_and_as_are_kept() -> None:
    few, bigrams = 20, (3 + 1) * 4 + 9 * (1 + 4)
    assert tables_size(ALONE, TRIGRAMS, few) == 3 * 4 + bigrams + (9 + 1) * 4 + few * (1 + 4)
    large = ngram_config(vocabulary_size=2**16)
    orders = [dataclasses.replace(TRIGRAMS, ngram_order=order) for order in (2, 3)]
    two, three = (tables_size(large, order, 10 * MAX_COUNTED_TOKENS) for order in orders)
    assert three - two == (MAX_NGRAMS + 1) * 4 + MAX_NGRAMS * (2 + 4)


@given(
    vocabulary_size=st.integers(1, 5),
    order=st.integers(1, MAX_NGRAM_ORDER),
    tokens=st.integers(1, 200),
    random_seed=st.integers(0, 100),
)
def test_the_tables_of_a_text_are_no_larger_than_estimated(
    vocabulary_size: int, order: int, tokens: int, random_seed: int
) -> None:
    ids = np.random.default_rng(random_seed).integers(0, vocabulary_size, tokens).astype(np.uint8)
    estimate = estimate_ngrams(ids, vocabulary_size, order, MAX_NGRAMS)
    size = sum(tensor.nbytes for tensor in estimate.tensors.values())
    assert size <= tables_size(ngram_config(vocabulary_size), training_config(ngram_order=order), tokens)


def test_without_tables_there_is_no_cost() -> None:
    none = training_config(ngram_order=0)
    assert tables_size(NETWORK, none, TOKENS) == ngram_memory(NETWORK, none, TOKENS) == 0


def test_a_gate_needs_probabilities_without_each_block() -> None:
    gated = dataclasses.replace(NETWORK, ngram_gate=3)
    assert ngram_memory(gated, TRIGRAMS, 10**6) >= ngram_memory(NETWORK, TRIGRAMS, 10**6)
    order = training_config(ngram_order=10)
    gated, alone = (ModelConfig(vocabulary_size=65, embedding_dim=4, hidden_dim=16, ngram_gate=k) for k in (10, 0))
    most = min(10**7, MAX_NGRAMS)
    gate = 4 * 8 * (65 + 65**2 + 65**3 + 7 * most)
    assert ngram_memory(gated, order, 10**7) >= tables_size(gated, order, 10**7) + gate + 75 * 10**7
    assert ngram_memory(gated, order, 10**7) <= ngram_memory(alone, order, 10**7) + gate + 75 * 10**7
    assert tables_size(gated, order, 10**7) == tables_size(alone, order, 10**7)


@given(st.integers(2, MAX_NGRAM_ORDER), st.integers(1, 2 * MAX_COUNTED_TOKENS), st.sampled_from([NETWORK, ALONE]))
def test_a_longer_text_or_a_higher_order_needs_no_less(order: int, tokens: int, model: ModelConfig) -> None:
    lower, higher = (training_config(ngram_order=k, threads=8) for k in (order - 1, order))
    for cost in (tables_size, ngram_memory):
        assert 0 < cost(model, lower, tokens) <= cost(model, higher, tokens) <= cost(model, higher, 2 * tokens)


def test_memory_does_not_depend_on_the_length_of_a_text_that_is_not_counted_completely() -> None:
    longest = ngram_memory(ALONE, TRIGRAMS, MAX_COUNTED_TOKENS)
    assert ngram_memory(ALONE, TRIGRAMS, MAX_COUNTED_TOKENS - 1) < longest
    assert ngram_memory(ALONE, TRIGRAMS, 10 * MAX_COUNTED_TOKENS) == longest


def test_more_threads_need_more_memory_only_without_a_network() -> None:
    one, many = (training_config(ngram_order=3, threads=threads) for threads in (1, 64))
    assert ngram_memory(ALONE, one, 10**8) < ngram_memory(ALONE, many, 10**8)
    assert ngram_memory(NETWORK, one, 10**8) == ngram_memory(NETWORK, many, 10**8)


def test_tables_are_added_to_the_cost_of_a_network() -> None:
    without = dataclasses.replace(TRIGRAMS, ngram_order=0)
    memory = [training_memory(NETWORK, training, training_tokens=TOKENS) for training in (without, TRIGRAMS)]
    assert memory[1] - memory[0] == ngram_memory(NETWORK, TRIGRAMS, TOKENS)
    disk = [checkpoints_size(NETWORK, training, training_tokens=TOKENS) for training in (without, TRIGRAMS)]
    assert disk[1] - disk[0] == 4 * tables_size(NETWORK, TRIGRAMS, TOKENS)  # of each checkpoint


def test_cost_of_an_ngram_model_alone() -> None:
    costs = [
        estimate_cost(
            ALONE,
            training_config(steps=1, batch_size=1, window=1, ngram_order=order),
            training_tokens=5_000_000,
            validation_tokens=0,
            flops=0.0,
            budget_seconds=60.0,
            elapsed_seconds=2.0,
        )
        for order in (4, 8)
    ]
    assert [(cost.parameters, cost.epochs, cost.operations_per_token) for cost in costs] == [(0, 1.0, 0.0)] * 2
    assert costs[0].tokens_per_second == pytest.approx(2 * costs[1].tokens_per_second)
    assert costs[1].seconds - costs[0].seconds == pytest.approx(costs[0].seconds_per_epoch)
    assert costs[0].seconds == pytest.approx(2 + FINISH_SECONDS + costs[0].seconds_per_epoch)
    assert NGRAM_BASE_BYTES < costs[0].memory_bytes < BASE_BYTES
    assert costs[1].disk_bytes == tables_size(ALONE, dataclasses.replace(TRIGRAMS, ngram_order=8), 5_000_000)


def test_a_validation_text_is_evaluated() -> None:
    without, with_half = (
        estimate_cost(ALONE, TRIGRAMS, training_tokens=TOKENS, validation_tokens=tokens, flops=0.0)
        for tokens in (0, TOKENS // 2)
    )
    assert with_half.seconds - without.seconds == pytest.approx(evaluation_seconds(3, TOKENS // 2))
    assert evaluation_seconds(3, TOKENS) == pytest.approx(2 * counting_seconds(3, TOKENS))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NETWORK, "4 x 8 tokens and 3-grams of 1,000 tokens, .* choose a smaller hidden_dim, .*, window or ngram$"),
        (ALONE, "memory for 3-grams of 1,000 tokens, .*: choose a smaller ngram$"),
    ],
)
def test_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch, model: ModelConfig, message: str) -> None:
    needed = training_memory(model, TRIGRAMS, training_tokens=TOKENS)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": needed}.__getitem__)
    check_memory(model, TRIGRAMS, training_tokens=TOKENS)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": needed - 1}.__getitem__)
    with pytest.raises(UsageError, match=message) as caught:
        check_memory(model, TRIGRAMS, training_tokens=TOKENS)
    assert caught.value.settings[-1] == "ngram"


@pytest.mark.parametrize("model", [NETWORK, ALONE])
def test_too_little_disk_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ModelConfig) -> None:
    needed = checkpoints_size(model, TRIGRAMS, training_tokens=TOKENS)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    check_disk_space(tmp_path, model, TRIGRAMS, training_tokens=TOKENS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(StorageError, match="free some space"):
        check_disk_space(tmp_path, model, TRIGRAMS, training_tokens=TOKENS)
