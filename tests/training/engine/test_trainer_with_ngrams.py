"""The training loop with n-gram tables: when they are reported, what they change, and what they do not."""

import copy
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from quickfox.config.model import DEFAULT_EXPONENTS, ModelConfig
from quickfox.data.dataset import Tokens
from quickfox.errors import StorageError
from quickfox.training.engine import ngrams as ngrams_module
from quickfox.training.engine.events import Event, NgramsEstimated, StepsCompleted, Validated
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.engine.trainer import Trainer
from quickfox.training.engine.validation import ValidationLoss
from toy_models import markov_text, training_config

V = 5
MODEL = ModelConfig(vocabulary_size=V, embedding_dim=4, hidden_dim=8)
TEXT = markov_text(600, V)
TRAINING, VALIDATION = Tokens(TEXT[:-33]), Tokens(TEXT[-33:])

pytestmark = pytest.mark.usefixtures("run_eagerly")


def start_estimation() -> NgramEstimation:
    return NgramEstimation.start(3, V, TRAINING, VALIDATION)


def make_trainer(ngrams: NgramEstimation | None, validation: Tokens = VALIDATION, **changes: Any) -> Trainer:
    training = training_config(**{"steps": 5, "window": 8, "validation_interval": 2, **changes})
    return Trainer(MODEL, training, TRAINING, validation, time.monotonic(), ngrams=ngrams)


def run(trainer: Trainer, on_event: Callable[[Event], None] = lambda _: None) -> list[Any]:
    events = []
    for event in trainer.run():
        events.append(event)
        on_event(event)
    return events


def history(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The validations without the times."""
    return [
        {name: value for name, value in vars(event).items() if name not in ("seconds", "tokens_per_second")}
        for event in events
        if isinstance(event, Validated)
    ]


def assert_same_tensors(first: Trainer, second: Trainer) -> None:
    for method in ("model_tensors", "training_tensors"):
        ours, expected = getattr(first, method)(), getattr(second, method)()
        assert ours.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(ours[name], tensor)


def assert_reported_once_before_the_first_validation(events: list[Event]) -> None:
    kinds = [type(event) for event in events if isinstance(event, NgramsEstimated | Validated)]
    assert kinds == [NgramsEstimated, Validated, Validated, Validated]


def test_the_result_does_not_depend_on_when_the_tables_are_ready(held_back: threading.Event) -> None:
    """During the steps before the first validation, or before the first step."""
    late = make_trainer(start_estimation())

    def release_after_a_step(event: Event) -> None:
        if isinstance(event, StepsCompleted):
            held_back.set()

    late_events = run(late, release_after_a_step)
    assert isinstance(late_events[0], StepsCompleted)
    estimation = start_estimation()
    assert estimation.tables.ngrams[0] == V  # waits
    early = make_trainer(estimation)
    early_events = run(early)
    assert isinstance(early_events[0], NgramsEstimated)
    for events in (early_events, late_events):
        assert_reported_once_before_the_first_validation(events)
    assert history(early_events) == history(late_events)
    assert_same_tensors(early, late)
    assert early.progress.validation_loss == late.progress.validation_loss


def test_the_tables_do_not_influence_the_training() -> None:
    mixed, alone = make_trainer(start_estimation()), make_trainer(None)
    mixed_history, history_alone = history(run(mixed)), history(run(alone))
    assert_same_tensors(mixed, alone)
    assert [line["network_loss"] for line in mixed_history] == [line["validation_loss"] for line in history_alone]
    assert [line["train_loss"] for line in mixed_history] == [line["train_loss"] for line in history_alone]
    assert all(line["network_loss"] is None for line in history_alone)
    assert all(line["validation_loss"] < line["network_loss"] for line in mixed_history)


def test_a_restored_trainer_with_tables_reports_none_and_ends_the_same() -> None:
    whole = make_trainer(start_estimation())
    snapshots = []

    def save(event: Event) -> None:
        if isinstance(event, Validated):
            snapshots.append((whole.model_tensors(), whole.training_tensors(), copy.deepcopy(whole.progress)))

    events = run(whole, save)
    assert whole.ngrams is not None
    resumed = make_trainer(NgramEstimation.restore(whole.ngrams.tables, TRAINING))
    resumed.restore(*snapshots[0])
    resumed_events = run(resumed)
    assert not [event for event in resumed_events if isinstance(event, NgramsEstimated)]
    assert history(resumed_events) == history(events)[1:]
    assert resumed.progress.exponents == whole.progress.exponents != DEFAULT_EXPONENTS
    assert_same_tensors(resumed, whole)


def test_without_a_validation_text_the_tables_are_reported_before_the_first_checkpoint() -> None:
    nothing = Tokens(TEXT[:0])
    events = run(make_trainer(NgramEstimation.start(3, V, TRAINING, nothing), nothing))
    assert_reported_once_before_the_first_validation(events)
    assert all(line["validation_loss"] is line["network_loss"] is None for line in history(events))


def test_the_best_checkpoint_and_early_stopping_follow_the_loss_of_the_mixture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While that of the network alone keeps improving."""
    trainer = make_trainer(start_estimation(), steps=100, validation_interval=1, patience=2)
    losses = map(ValidationLoss, [3.0, 2.0, 2.5, 2.0], [9.0, 8.0, 7.0, 6.0])
    monkeypatch.setattr(trainer.validation, "loss", lambda _stop_requested: next(losses))
    lines = history(run(trainer))
    assert [line["is_best"] for line in lines] == [True, True, False, False]
    assert [line["network_loss"] for line in lines] == [9.0, 8.0, 7.0, 6.0]
    assert [line["best_validation_loss"] for line in lines] == [3.0, 2.0, 2.0, 2.0]
    assert trainer.is_finished
    assert trainer.progress.step == 4


def test_an_error_of_the_estimation_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise StorageError("cannot read the tokens")

    monkeypatch.setattr(ngrams_module, "estimate_sorted", fail)
    trainer = make_trainer(start_estimation())
    with pytest.raises(StorageError, match="cannot read the tokens"):
        run(trainer)
    assert trainer.progress.step <= 2
