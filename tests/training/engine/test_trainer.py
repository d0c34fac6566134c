"""The training loop by what it does: it learns, repeats itself bit for bit, and measures the held-out text rightly."""

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.data.dataset import Tokens
from quickfox.errors import DivergedError
from quickfox.evaluation.perplexity import measure_loss
from quickfox.models.registry import build_language_model
from quickfox.training.engine.events import Replanned, StepsCompleted, Validated
from quickfox.training.engine.train_step import STATE_RESET_WINDOWS
from quickfox.training.engine.trainer import Trainer
from quickfox.training.planning.presets import ARCHITECTURE_DEFAULTS

MODEL = ModelConfig(vocabulary_size=3, embedding_dim=4, hidden_dim=16)
TRAINING = TrainingConfig(
    steps=40,
    batch_size=4,
    window=8,
    learning_rate=0.02,
    warmup_steps=5,
    weight_decay=0.0,
    clip_norm=1.0,
    dropout=0.0,
    validation_interval=20,
    patience=None,
    random_seed=1,
    precision="float32",
    threads=2,
)


MODELS = [
    MODEL,
    ModelConfig(architecture="gru", vocabulary_size=3, embedding_dim=4, hidden_dim=16, num_layers=2),
    ModelConfig(architecture="rnn", vocabulary_size=3, embedding_dim=4, hidden_dim=16),
    ModelConfig(
        architecture="attention-rnn", vocabulary_size=3, embedding_dim=4, hidden_dim=16, num_heads=2, context=12
    ),
    ModelConfig(
        architecture="transformer", vocabulary_size=3, embedding_dim=16, hidden_dim=16, num_layers=2, num_heads=2,
        context=12, tied_embeddings=True,
    ),
]  # fmt: skip
every_architecture = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.architecture)


def make_trainer(ids: np.ndarray, model: ModelConfig = MODEL, budget: float | None = None, **changes: Any) -> Trainer:
    training = dataclasses.replace(TRAINING, **changes)
    return Trainer(model, training, Tokens(ids[:-400]), Tokens(ids[-400:]), time.monotonic(), budget)


def validations(trainer: Trainer) -> list[Validated]:
    return [event for event in trainer.run() if isinstance(event, Validated)]


@every_architecture
def test_it_learns_what_the_patterns_entropy_allows(model: ModelConfig) -> None:
    """Triples (2, a, a) with a drawn of two: one token in three costs ln 2, the others are certain."""
    coins = np.random.default_rng(0).integers(0, 2, size=4000).astype(np.uint8)
    ids = np.empty(3 * len(coins), np.uint8)
    ids[0::3], ids[1::3], ids[2::3] = 2, coins, coins
    rate = ARCHITECTURE_DEFAULTS[model.architecture].learning_rate
    last = validations(make_trainer(ids, model, steps=400, validation_interval=400, learning_rate=rate))[-1]
    assert last.validation_loss == pytest.approx(math.log(2) / 3, abs=0.02)
    assert last.train_loss > math.log(2) / 3 - 0.02


@every_architecture
def test_stopped_and_restored_it_gives_the_same_weights_bit_for_bit(
    pattern_ids: np.ndarray, model: ModelConfig
) -> None:
    """With dropout, and streams that restart: nothing matters but what a checkpoint holds."""
    whole, first, second = (make_trainer(pattern_ids, model, dropout=0.2) for _ in range(3))
    expected = validations(whole)
    early = next(event for event in first.run() if isinstance(event, Validated))
    assert early.validation_loss == expected[0].validation_loss
    second.restore(first.model_tensors(), first.training_tensors(), first.progress)
    assert validations(second)[-1].validation_loss == expected[-1].validation_loss
    for ours, theirs in (
        (whole.model_tensors(), second.model_tensors()),
        (whole.training_tensors(), second.training_tensors()),
    ):
        for name, tensor in ours.items():
            np.testing.assert_array_equal(tensor, theirs[name])


@every_architecture
def test_evaluation_in_numpy_agrees_with_the_validation_loss(pattern_ids: np.ndarray, model: ModelConfig) -> None:
    ids = np.random.default_rng(0).permutation(pattern_ids)
    trainer = Trainer(
        model, TRAINING, Tokens(ids[:400]), Tokens(ids[400:]), time.monotonic()
    )  # a held-out text of several lanes
    language_model = build_language_model(model, trainer.model_tensors())
    assert trainer.validation.loss() == pytest.approx(measure_loss(language_model, ids[400:])[0], abs=1e-4)


def test_another_seed_gives_other_weights(pattern_ids: np.ndarray) -> None:
    first, second = make_trainer(pattern_ids, random_seed=1), make_trainer(pattern_ids, random_seed=2)
    assert not np.array_equal(
        first.model_tensors()["recurrent.0.recurrent_kernel"], second.model_tensors()["recurrent.0.recurrent_kernel"]
    )


@every_architecture
def test_lanes_change_nothing_but_rounding(pattern_ids: np.ndarray, model: ModelConfig) -> None:
    one, two = (make_trainer(pattern_ids, model, threads=threads, learning_rate=2e-3) for threads in (1, 2))
    for ours, theirs in zip(validations(one), validations(two), strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, abs=1e-3)


def test_steps_are_traced_once(pattern_ids: np.ndarray) -> None:
    trainer = make_trainer(pattern_ids, steps=50, validation_interval=7)
    validations(trainer)
    assert trainer.train_step.run.experimental_get_tracing_count() == 1
    assert trainer.validation.window_loss.experimental_get_tracing_count() == 1


def test_events_count_steps_tokens_and_epochs(pattern_ids: np.ndarray) -> None:
    events = list(make_trainer(pattern_ids).run())
    assert [event.step for event in events if isinstance(event, Validated)] == [20, 40]
    assert isinstance(events[-1], StepsCompleted)
    last = events[-2]
    assert isinstance(last, Validated)
    assert last.tokens == 40 * 4 * 8
    assert last.epoch == pytest.approx(40 * 4 * 8 / 2000)
    assert last.learning_rate == 0.0
    steps = [event.step for event in events if isinstance(event, StepsCompleted)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40


@every_architecture
def test_validation_loss_is_that_of_the_whole_text_with_carried_state(
    pattern_ids: np.ndarray, model: ModelConfig
) -> None:
    """By hand: one pass over the held-out text, state zero at its start, the mean over every token but the first."""
    trainer = make_trainer(np.random.default_rng(0).permutation(pattern_ids), model)
    ids = trainer.validation.tokens.ids.astype(np.int32)
    logits, _ = trainer.network.forward(ids[None, :-1], trainer.network.initial_state(1))
    logits = logits.numpy()[:, 0].astype(np.float64)  # (T, V)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    by_hand = -log_probabilities[np.arange(len(ids) - 1), ids[1:]].mean()
    assert trainer.validation.loss() == pytest.approx(by_hand, abs=1e-5)


def test_a_stream_starts_from_the_initial_state_when_its_turn_comes(pattern_ids: np.ndarray) -> None:
    """With a learning rate of 0, by hand: the last window read from no state is all that the stream remembers."""
    ids = np.random.default_rng(0).permutation(pattern_ids)
    trainer = make_trainer(ids, steps=STATE_RESET_WINDOWS, learning_rate=0.0)
    validations(trainer)
    x, _ = trainer.batches.batch(STATE_RESET_WINDOWS - 1)
    _, from_no_state = trainer.network.forward(x, trainer.network.initial_state(4))
    (h, c), (fresh_h, fresh_c) = trainer.state[0], from_no_state[0]
    np.testing.assert_allclose(h[0], fresh_h[0], atol=1e-5)
    np.testing.assert_allclose(c[0], fresh_c[0], atol=1e-5)
    for row in (1, 2, 3):
        assert not np.allclose(c[row], fresh_c[row], atol=1e-3), "the other streams carry their state on"


@every_architecture
def test_restarted_rows_go_on_as_from_the_initial_state(pattern_ids: np.ndarray, model: ModelConfig) -> None:
    network = make_trainer(pattern_ids, model).network
    first, second = pattern_ids[:24].reshape(3, 8).astype(np.int32), pattern_ids[24:48].reshape(3, 8).astype(np.int32)
    _, state = network.forward(first, network.initial_state(3))
    logits, _ = network.forward(second, network.reset_rows(state, tf.constant([False, True, False])))
    fresh, _ = network.forward(second, network.initial_state(3))
    carried, _ = network.forward(second, state)
    np.testing.assert_allclose(logits[:, 1], fresh[:, 1], atol=1e-5)
    np.testing.assert_allclose(logits[:, ::2], carried[:, ::2], atol=1e-5)


def test_without_held_out_text_there_is_no_validation_loss(pattern_ids: np.ndarray) -> None:
    trainer = Trainer(MODEL, TRAINING, Tokens(pattern_ids), Tokens(pattern_ids[:0]), time.monotonic())
    last = validations(trainer)[-1]
    assert (last.validation_loss, last.best_validation_loss, last.is_best) == (None, None, True)


def test_patience_stops_early() -> None:
    noise = np.random.default_rng(0).integers(0, 3, size=1000).astype(np.uint8)  # nothing to learn but by heart
    trainer = make_trainer(noise, steps=4000, validation_interval=50, patience=2, learning_rate=0.05)
    events = validations(trainer)
    assert trainer.progress.step < 4000
    assert not events[-1].is_best
    assert not events[-2].is_best


def test_divergence_names_the_step(pattern_ids: np.ndarray) -> None:
    trainer = make_trainer(pattern_ids)
    trainer.parameters["output.bias"].assign([float("nan")] * 3)
    with pytest.raises(DivergedError, match="step 1;"):
        list(trainer.run())


def test_a_budget_plans_the_steps_anew(pattern_ids: np.ndarray) -> None:
    trainer = make_trainer(pattern_ids, budget=6.0, steps=10**6, validation_interval=10**6)
    events = list(trainer.run())
    plans = [event for event in events if isinstance(event, Replanned)]
    assert plans
    assert events[-1].step == plans[-1].total_steps < 10**6
