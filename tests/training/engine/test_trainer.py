"""The training loop: what it learns, its events and plans, exact resumption, and the validation loss.

Each architecture is compiled and trained once per module (`trained`); tests of a few steps run without compilation.
"""

import copy
import dataclasses
import math
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.data.dataset import Tokens
from quickfox.errors import DataError, DivergedError
from quickfox.evaluation.perplexity import measure_loss
from quickfox.models.registry import build_language_model
from quickfox.training.engine import train_step
from quickfox.training.engine import trainer as trainer_module
from quickfox.training.engine.events import Replanned, StepsCompleted, Validated
from quickfox.training.engine.progress import Progress
from quickfox.training.engine.trainer import Trainer
from quickfox.training.engine.validation import ValidationLoss
from quickfox.training.planning import time_budget
from quickfox.training.planning.presets import ARCHITECTURE_DEFAULTS
from toy_models import training_config

SIZES = {"vocabulary_size": 3, "embedding_dim": 4, "hidden_dim": 16}
ATTENTION = {"num_heads": 2, "context": 6}
MODEL = ModelConfig(**SIZES)
MODELS = {
    "lstm": MODEL,
    "gru": ModelConfig(architecture="gru", **SIZES, num_layers=2),
    "rnn": ModelConfig(architecture="rnn", **SIZES),
    "attention-rnn": ModelConfig(architecture="attention-rnn", **SIZES, **ATTENTION),
    "transformer": ModelConfig(
        architecture="transformer", **{**SIZES, "embedding_dim": 16}, **ATTENTION, tied_embeddings=True
    ),
}
TRAINING = training_config(steps=6, window=4, validation_interval=3)
ARCHITECTURES = [name if name == "lstm" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def make_trainer(ids: np.ndarray, model: ModelConfig = MODEL, **changes: Any) -> Trainer:
    training = dataclasses.replace(TRAINING, **changes)
    return Trainer(model, training, Tokens(ids[:-20]), Tokens(ids[-20:]), time.monotonic())


def validations(trainer: Trainer) -> list[Validated]:
    return [event for event in trainer.run() if isinstance(event, Validated)]


def measured(loss: float) -> ValidationLoss:
    """A validation loss of a network without n-grams."""
    return ValidationLoss(loss, loss)


# One trained model of each architecture -------------------------------------------------------------------

STEPS, SNAPSHOT_STEP = 400, 370  # the state of each stream is reset between the two


@dataclass
class Trained:
    """A trainer that has finished, its events, and its checkpoint of SNAPSHOT_STEP."""

    trainer: Trainer
    events: list[Any]
    snapshot: tuple[dict[str, np.ndarray], dict[str, np.ndarray], Progress]


def coin_trainer(architecture: str) -> Trainer:
    """Trains on triples (2, a, a) with random a in {0, 1}: one token in three costs ln 2, the others 0."""
    coins = np.random.default_rng(0).integers(0, 2, size=4000).astype(np.uint8)
    ids = np.stack([np.full_like(coins, 2), coins, coins], axis=1).reshape(-1)  # (4000, 3) -> (12000,)
    rate = ARCHITECTURE_DEFAULTS[MODELS[architecture].architecture].learning_rate
    training = dataclasses.replace(
        TRAINING, steps=STEPS, validation_interval=SNAPSHOT_STEP, learning_rate=rate, batch_size=8, dropout=0.05
    )
    return Trainer(MODELS[architecture], training, Tokens(ids[:-1600]), Tokens(ids[-1600:]), time.monotonic())


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request: pytest.FixtureRequest) -> Trained:
    """A trained model of each architecture."""
    return train_coins(request.param)


def train_coins(architecture: str) -> Trained:
    trainer, events, snapshot = coin_trainer(architecture), [], None
    for event in trainer.run():
        events.append(event)
        if isinstance(event, Validated) and snapshot is None:
            snapshot = trainer.model_tensors(), trainer.training_tensors(), copy.deepcopy(trainer.progress)
    assert snapshot is not None
    return Trained(trainer, events, snapshot)


def test_training_reaches_the_entropy_of_the_text(trained: Trained) -> None:
    last = [event for event in trained.events if isinstance(event, Validated)][-1]
    assert last.validation_loss == pytest.approx(math.log(2) / 3, abs=0.02)
    assert last.train_loss > math.log(2) / 3 - 0.02


def test_resume_continues_bit_for_bit(trained: Trained) -> None:
    """With dropout and resets of the state: the result depends only on what a checkpoint contains."""
    resumed = coin_trainer(trained.trainer.model.architecture)
    resumed.restore(*trained.snapshot)
    assert validations(resumed)[-1].validation_loss == trained.events[-2].validation_loss
    for ours, expected in (
        (resumed.model_tensors(), trained.trainer.model_tensors()),
        (resumed.training_tensors(), trained.trainer.training_tensors()),
    ):
        for name, tensor in expected.items():
            np.testing.assert_array_equal(ours[name], tensor)


def test_validation_loss_is_that_of_the_whole_text_with_carried_state(trained: Trained) -> None:
    """Against one NumPy pass over the text, state zero at its start: the mean over every token but the first."""
    trainer = trained.trainer
    ids = trainer.validation.tokens.ids.astype(np.int32)
    model = build_language_model(trainer.model, trainer.model_tensors())
    logits = model.forward(ids[None, :-1], model.initial_state(1))[0][0].astype(np.float64)  # (T, V)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -log_probabilities[np.arange(len(ids) - 1), ids[1:]].mean()
    assert trainer.validation.loss().loss == pytest.approx(expected, abs=1e-5)
    assert measure_loss(model, Tokens(ids))[0] == pytest.approx(expected, abs=1e-5)  # `llm evaluate`


def test_steps_and_validation_are_traced_once(trained: Trained) -> None:
    assert trained.trainer.train_step.graph(trained.trainer.config.window).experimental_get_tracing_count() == 1
    assert trained.trainer.validation.window_losses.experimental_get_tracing_count() == 1


def test_events_count_steps_tokens_and_epochs(trained: Trained) -> None:
    assert [event.step for event in trained.events if isinstance(event, Validated)] == [SNAPSHOT_STEP, STEPS]
    steps = [event.step for event in trained.events if isinstance(event, StepsCompleted)]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    last, final = trained.events[-2:]
    assert isinstance(last, Validated)
    assert isinstance(final, StepsCompleted)
    assert last.tokens == STEPS * 8 * 4
    assert last.epoch == pytest.approx(STEPS * 8 * 4 / 10_400)
    assert last.learning_rate == 0.0


# A few steps without compilation --------------------------------------------------------------------------


@every_architecture
@pytest.mark.usefixtures("run_eagerly")
def test_number_of_microbatches_affects_rounding_only(pattern_ids: np.ndarray, architecture: str) -> None:
    model = MODELS[architecture]
    one, two = (make_trainer(pattern_ids, model, threads=threads, learning_rate=2e-3) for threads in (1, 2))
    for ours, expected in zip(validations(one), validations(two), strict=True):
        assert ours.train_loss == pytest.approx(expected.train_loss, abs=1e-4)
        assert ours.validation_loss == pytest.approx(expected.validation_loss, abs=1e-3)
    for ours, expected in zip(tf.nest.flatten(one.state), tf.nest.flatten(two.state), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-3)


@every_architecture
@pytest.mark.usefixtures("run_eagerly")
def test_reset_rows_continue_from_the_initial_state(pattern_ids: np.ndarray, architecture: str) -> None:
    network = make_trainer(pattern_ids, MODELS[architecture]).network
    first, second = pattern_ids[:24].reshape(2, 3, 4).astype(np.int32)
    _, state = network.forward(first, network.initial_state(3))
    logits, _ = network.forward(second, network.reset_rows(state, tf.constant([False, True, False])))
    initial, _ = network.forward(second, network.initial_state(3))
    carried, _ = network.forward(second, state)
    np.testing.assert_allclose(logits[:, 1], initial[:, 1], atol=1e-5)
    np.testing.assert_allclose(logits[:, ::2], carried[:, ::2], atol=1e-5)


@pytest.mark.usefixtures("run_eagerly")
def test_the_state_of_each_stream_is_reset_at_its_own_step(
    pattern_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate of 0: after the step of its reset, a stream's state depends on the last window only."""
    monkeypatch.setattr(train_step, "STATE_RESET_WINDOWS", 4)
    ids = np.random.default_rng(0).permutation(pattern_ids)
    trainer = make_trainer(ids, steps=4, learning_rate=0.0)
    validations(trainer)
    x, _ = trainer.batches.batch(3)
    _, state = trainer.network.forward(x, trainer.network.initial_state(4))
    for tensor, from_initial_state in zip(trainer.state[0], state[0], strict=True):  # h and c
        np.testing.assert_allclose(tensor[0], from_initial_state[0], atol=1e-5)
        for row in (1, 2, 3):
            assert not np.allclose(tensor[row], from_initial_state[row], atol=1e-3)


def test_initial_weights_depend_on_the_random_seed(pattern_ids: np.ndarray) -> None:
    first, same, other = (make_trainer(pattern_ids, random_seed=seed).model_tensors() for seed in (1, 1, 2))
    np.testing.assert_equal(first, same)
    name = "recurrent.0.recurrent_kernel"
    assert not np.array_equal(first[name], other[name])


def test_restore_rejects_the_state_of_other_settings(pattern_ids: np.ndarray) -> None:
    trainer = make_trainer(pattern_ids)
    other = make_trainer(pattern_ids, batch_size=5)
    with pytest.raises(DataError, match=r"does not match the run's settings: state\.0"):
        trainer.restore(other.model_tensors(), other.training_tensors(), other.progress)


@pytest.mark.usefixtures("run_eagerly")
def test_without_a_validation_text_there_is_no_validation_loss(pattern_ids: np.ndarray) -> None:
    trainer = Trainer(MODEL, TRAINING, Tokens(pattern_ids), Tokens(pattern_ids[:0]), time.monotonic())
    last = validations(trainer)[-1]
    assert (last.validation_loss, last.best_validation_loss, last.is_best) == (None, None, True)


@pytest.mark.usefixtures("run_eagerly")
def test_patience_stops_early(pattern_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(pattern_ids, steps=100, validation_interval=1, patience=2)
    losses = map(measured, [3.0, 2.0, 2.5, 2.0, 1.0])
    monkeypatch.setattr(trainer.validation, "loss", lambda _stop_requested: next(losses))
    assert [event.is_best for event in trainer.run() if isinstance(event, Validated)] == [True, True, False, False]
    assert trainer.is_finished
    assert trainer.progress.step == 4


@pytest.mark.usefixtures("run_eagerly")
def test_divergence_is_reported_with_its_step(pattern_ids: np.ndarray) -> None:
    trainer = make_trainer(pattern_ids)
    trainer.parameters["output.bias"].assign([float("nan")] * 3)
    with pytest.raises(DivergedError, match=r"nan at step 1; try a learning rate below 0\.02"):
        list(trainer.run())


@pytest.mark.usefixtures("run_eagerly")
def test_a_divergent_validation_loss_is_reported_too(pattern_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(pattern_ids)
    monkeypatch.setattr(trainer.validation, "loss", lambda _stop_requested: measured(math.inf))
    with pytest.raises(DivergedError, match="inf at step 3;"):
        list(trainer.run())


def test_a_budget_changes_the_number_of_steps(pattern_ids: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock by which a step takes 0.1 seconds."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0])
    for module in (trainer_module, time_budget):
        monkeypatch.setattr(module, "time", clock)

    def make_steps(
        xs: np.ndarray, _ys: Any, _rates: Any, _first_step: Any, state: Any, _priors: Any, _frames: Any
    ) -> tuple[tf.Tensor, Any]:
        now[0] += 0.1 * len(xs)
        return tf.ones([len(xs)]), state

    training = dataclasses.replace(TRAINING, steps=10**6, validation_interval=10**6)
    trainer = Trainer(MODEL, training, Tokens(pattern_ids), Tokens(pattern_ids[:0]), 0.0, budget_seconds=20.0)
    monkeypatch.setattr(trainer.train_step, "run", make_steps)
    events = list(trainer.run())
    plans = [event for event in events if isinstance(event, Replanned)]
    assert trainer.replans == {plan.step: plan.total_steps for plan in plans}
    assert events[-1].step == plans[-1].total_steps
    assert 18.0 < now[0] < 20.0
