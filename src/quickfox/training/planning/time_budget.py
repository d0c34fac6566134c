"""Planning a run's number of steps so that it ends when its time budget does."""

import itertools
import math
import time
from dataclasses import dataclass, field

CORRECTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97)
"""Shares of the run after which the plan is corrected; few, because each is part of the run's record."""

FINISH_SECONDS = 0.6  # saving the last checkpoint and leaving
VALIDATION_TRACING_SECONDS = 0.8  # once
VALIDATION_SPEED_UP = 3.0  # reading a token against training on it: one pass instead of three


@dataclass
class Budget:
    """Wall time that a whole command may take.

    Args:
        seconds: the budget.
        started: when the command started, by `time.monotonic`.
        validation_interval: steps from one validation to the next.
        validation_tokens: tokens of the held-out text.
    """

    seconds: float
    started: float
    validation_interval: int
    validation_tokens: int
    _validation_seconds: float | None = None
    _points: list[float] = field(default_factory=lambda: list(CORRECTIONS))

    def seconds_left(self) -> float:
        """Seconds until the budget is spent; negative afterwards."""
        return self.started + self.seconds - time.monotonic()

    def note_validation(self, seconds: float) -> None:
        """Tells how long a validation took, its checkpoint and sample included; later plans count on it."""
        self._validation_seconds = seconds

    def replan(self, step: int, total_steps: int, seconds_per_step: float, tokens_per_step: int) -> int | None:
        """The new total number of steps where the plan should change now, else None.

        Args:
            step: steps done.
            total_steps: the plan so far.
            seconds_per_step: measured; NaN if nothing was measured yet.
            tokens_per_step: of a batch.
        """
        done = max(1.0 - self.seconds_left() / self.seconds, step / total_steps)
        if math.isnan(seconds_per_step) or not self._points or done < self._points[0]:
            return None
        while self._points and done >= self._points[0]:
            self._points.pop(0)
        seconds_per_validation = self._validation_seconds
        if seconds_per_validation is None:
            seconds_per_token = seconds_per_step / tokens_per_step / VALIDATION_SPEED_UP
            seconds_per_validation = VALIDATION_TRACING_SECONDS + self.validation_tokens * seconds_per_token
        total = self._last_step(step, seconds_per_step, seconds_per_validation)
        return total if total != total_steps else None

    def _last_step(self, step: int, seconds_per_step: float, seconds_per_validation: float) -> int:
        """The step at which the budget will be spent: what is left holds the steps, and every validation to come."""
        seconds = self.seconds_left() - FINISH_SECONDS
        last = step + 1
        for validations in itertools.count(1):  # the last one, and those on the way
            last = max(step + 1, step + int((seconds - validations * seconds_per_validation) / seconds_per_step))
            if math.ceil(last / self.validation_interval) - step // self.validation_interval <= validations:
                break
        return last
