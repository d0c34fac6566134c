"""The scalar state of a training run, all that a resumed run needs besides tensors; and the timing of recent steps."""

import math
from collections import deque
from dataclasses import dataclass

from quickfox.config.model import DEFAULT_EXPONENTS
from quickfox.config.schema import setting
from quickfox.errors import DivergedError

LOSS_HORIZON = 50  # steps, the time constant of the displayed training loss
RECENT_CALLS = 8
CALL_SECONDS = 0.5  # target duration of one TensorFlow call
MAX_STEPS_PER_CALL = 64


class ValidationStoppedError(Exception):
    """A stop was requested before a validation was finished."""


@dataclass(kw_only=True)
class Progress:
    """The scalar state of a training run; part of each checkpoint.

    Attributes:
        step: number of optimizer steps made; also the data cursor, since a batch is a function of (random seed, step).
        total_steps: by the current plan.
        loss_sum, loss_count: of the training losses since the last validation.
        running_loss: exponential moving average of the training loss; None before the first step.
        train_loss: mean training loss as of the last validation; None before it and for an n-gram model.
        validation_loss, best_validation_loss: nats per token; None before the first validation or without a
            validation text.
        validations_without_improvement: since the best one.
        exponents: of the mixture with n-grams, as of the last validation (see `ModelConfig.exponents`).
        seconds: wall time of the run, interruptions excluded; set when a checkpoint is made.
        timed_steps, timed_seconds: number and duration of the timed steps, without start-up, validation and saving.
    """

    step: int = 0
    total_steps: int
    loss_sum: float = 0.0
    loss_count: int = 0
    running_loss: float | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    best_validation_loss: float | None = None
    validations_without_improvement: int = 0
    exponents: tuple[float, float] = setting(default=DEFAULT_EXPONENTS, added_later=True)
    seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0

    def record_losses(self, losses: list[float]) -> None:
        """Records one or more steps by their training losses."""
        for loss in losses:
            self.loss_sum += loss
            previous = loss if self.running_loss is None else self.running_loss
            self.running_loss = previous + (loss - previous) / LOSS_HORIZON
        self.loss_count += len(losses)
        self.step += len(losses)

    def record_speed(self, steps: int, seconds: float) -> None:
        """Records the duration of steps."""
        self.timed_steps += steps
        self.timed_seconds += seconds

    def record_validation(self, loss: float | None) -> bool:
        """Records a validation loss; returns whether it is the best so far.

        Without a validation text `loss` is None, and the last is the best.
        """
        self.train_loss = self.loss_sum / self.loss_count if self.loss_count else None
        self.loss_sum, self.loss_count = 0.0, 0
        self.validation_loss = loss
        if loss is None:
            return True
        if self.best_validation_loss is None or loss < self.best_validation_loss:
            self.best_validation_loss = loss
            self.validations_without_improvement = 0
            return True
        self.validations_without_improvement += 1
        return False

    def is_finished(self, patience: int | None) -> bool:
        """Whether all steps are made and the last is validated, or early stopping applies.

        It applies if the last `patience` validations brought no improvement.
        """
        is_out_of_patience = patience is not None and self.validations_without_improvement >= patience
        return (self.step >= self.total_steps and self.loss_count == 0) or is_out_of_patience

    def is_validation_due(self, interval: int) -> bool:
        """Whether the last step ends an interval of steps, or the run, and is not validated yet."""
        return self.loss_count > 0 and (self.step % interval == 0 or self.step >= self.total_steps)

    @property
    def timed_steps_per_second(self) -> float:
        """Steps per second without start-up, validation and saving; 0 before a step was timed."""
        return self.timed_steps / self.timed_seconds if self.timed_seconds else 0.0


class CallTimer:
    """Durations of the recent TensorFlow calls, several steps each; the first call of a graph is not among them.

    Attributes:
        compiled: the lengths of windows of which there was a call, the first of which traces and compiles.
        steps_per_call: number of steps of the next call, so that it takes about CALL_SECONDS.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[int, float]] = deque(maxlen=RECENT_CALLS)  # steps, seconds
        self.compiled: set[int] = set()
        self.steps_per_call = 1

    def record(self, steps: int, seconds: float) -> None:
        """Records one call."""
        self.steps_per_call = max(1, min(MAX_STEPS_PER_CALL, round(CALL_SECONDS * steps / seconds)))
        self._calls.append((steps, seconds))

    @property
    def seconds_per_step(self) -> float:
        """Mean duration of a step; NaN before the first call."""
        if not self._calls:
            return math.nan
        return sum(seconds for _, seconds in self._calls) / sum(steps for steps, _ in self._calls)


def check_finite(loss: float, step: int, learning_rate: float) -> None:
    """Raises DivergedError if the loss of a step is NaN or infinite."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"training diverged: the loss is {loss} at step {step}; try a learning rate below {learning_rate:g}"
        )
