"""The training of a model that is an n-gram model alone: one pass over the text, without TensorFlow.

It has the interface of `trainer.Trainer` that a run uses, so that both kinds of run have the same files and events.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.training.engine.events import CompletedStep, Event, StepsCompleted, Validated
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.engine.progress import Progress

POLLING_SECONDS = 0.25


class NgramTrainer:
    """Estimates the tables of one model in a single step.

    Args:
        model: the model's configuration, without the numbers of its n-grams.
        ngrams: its tables, ready or being estimated.
        started: start of the run's clock, by `time.monotonic`.
        stop_requested: polled while the tables are estimated; once it returns true, `run` ends before the step.
    """

    def __init__(
        self, model: ModelConfig, ngrams: NgramEstimation, started: float, stop_requested: Callable[[], bool]
    ) -> None:
        self.model = model
        self.ngrams = ngrams
        self.started = started
        self._stop_requested = stop_requested
        self.progress = Progress(total_steps=1)
        self.replans: dict[int, int] = {}
        self.last_steps: list[CompletedStep] = []  # none has a training loss

    @property
    def is_finished(self) -> bool:
        """Whether the tables are estimated."""
        return self.progress.is_finished(patience=None)

    def run(self) -> Iterator[Event]:
        """Waits for the tables and yields events, as `trainer.Trainer.run`. Raises the errors of reading the text."""
        while not self.ngrams.wait(POLLING_SECONDS):
            if self._stop_requested():
                return
        report = self.ngrams.take_report()
        if report is None:  # a finished run
            return
        yield report
        self.progress.step = 1
        self.progress.record_speed(1, report.seconds)
        is_best = self.progress.record_validation(report.loss)
        seconds = time.monotonic() - self.started
        tokens_per_second = self.progress.timed_steps_per_second * report.training_tokens
        yield Validated(
            step=1,
            total_steps=1,
            epoch=1.0,
            tokens=report.training_tokens,
            train_loss=None,
            validation_loss=report.loss,
            network_loss=None,
            best_validation_loss=report.loss,
            is_best=is_best,
            tokens_per_second=tokens_per_second,
            learning_rate=0.0,
            seconds=seconds,
        )
        yield StepsCompleted(
            step=1,
            total_steps=1,
            epoch=1.0,
            train_loss=None,
            tokens_per_second=tokens_per_second,
            learning_rate=0.0,
            seconds=seconds,
            seconds_left=0.0,
        )

    def model_tensors(self) -> dict[str, np.ndarray]:
        """No weights: there is no network."""
        return {}

    def training_tensors(self) -> dict[str, np.ndarray]:
        """No optimizer slots and no carried state."""
        return {}

    def end(self, *, is_interrupted: bool) -> None:
        """Nothing to end: there is one process."""
