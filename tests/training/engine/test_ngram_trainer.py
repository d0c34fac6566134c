"""The training of an n-gram model alone: its events, and a stop while the text is counted."""

import threading
import time
from typing import Any

import pytest

from quickfox.config.model import ngram_config
from quickfox.data.dataset import Tokens
from quickfox.errors import StorageError
from quickfox.training.engine import ngrams as ngrams_module
from quickfox.training.engine.events import NgramsEstimated, StepsCompleted, Validated
from quickfox.training.engine.ngram_trainer import NgramTrainer
from quickfox.training.engine.ngrams import NgramEstimation
from toy_models import markov_text

V = 5
TEXT = markov_text(600, V)
TRAINING, VALIDATION = Tokens(TEXT[:500]), Tokens(TEXT[500:])


def make_trainer(*, validation: Tokens = VALIDATION, stop: bool = False) -> NgramTrainer:
    estimation = NgramEstimation.start(3, V, TRAINING, validation)
    return NgramTrainer(ngram_config(V), estimation, time.monotonic(), lambda: stop)


def test_one_step_reads_the_whole_text() -> None:
    trainer = make_trainer()
    assert not trainer.is_finished
    report, validated, completed = trainer.run()
    assert trainer.is_finished
    assert isinstance(report, NgramsEstimated)
    assert isinstance(validated, Validated)
    assert isinstance(completed, StepsCompleted)
    assert (validated.step, validated.total_steps, validated.epoch, validated.tokens) == (1, 1, 1.0, 500)
    assert (validated.train_loss, validated.network_loss, validated.is_best) == (None, None, True)
    assert validated.validation_loss == validated.best_validation_loss == report.loss
    assert report.loss is not None
    assert (completed.step, completed.total_steps, completed.train_loss, completed.seconds_left) == (1, 1, None, 0.0)
    assert trainer.progress.validation_loss == trainer.progress.best_validation_loss == report.loss
    assert completed.tokens_per_second == pytest.approx(500 / report.seconds)
    assert trainer.progress.timed_steps_per_second == pytest.approx(1 / report.seconds)


def test_there_are_no_tensors_besides_the_tables() -> None:
    trainer = make_trainer()
    assert (trainer.model_tensors(), trainer.training_tensors(), trainer.replans) == ({}, {}, {})


def test_without_a_validation_text_the_loss_is_not_measured() -> None:
    _, validated, _ = make_trainer(validation=Tokens(TEXT[:0])).run()
    assert isinstance(validated, Validated)
    assert (validated.validation_loss, validated.best_validation_loss, validated.is_best) == (None, None, True)


def test_a_stop_request_ends_the_run_while_the_text_is_counted(held_back: threading.Event) -> None:
    trainer = make_trainer(stop=True)
    assert list(trainer.run()) == []
    assert not trainer.is_finished
    assert not held_back.is_set()


def test_tables_that_are_ready_are_kept_after_a_stop_request() -> None:
    trainer = make_trainer(stop=True)
    assert trainer.ngrams.tables.ngrams[0] == V  # waits
    assert len(list(trainer.run())) == 3
    assert trainer.is_finished


def test_an_error_of_the_estimation_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise StorageError("cannot read the tokens")

    monkeypatch.setattr(ngrams_module, "estimate_sorted", fail)
    with pytest.raises(StorageError, match="cannot read the tokens"):
        list(make_trainer().run())
