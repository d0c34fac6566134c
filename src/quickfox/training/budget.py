"""Planning a run's number of steps so that it ends when its time budget does."""

import math
import time
from dataclasses import dataclass, field

CHECKPOINTS = (0.04, 0.12, 0.3, 0.6, 0.85, 0.95)
"""Shares of the budget after which the plan is corrected; few, because each is part of the run's record."""

FINISH_SECONDS = 0.8  # saving the last checkpoint and leaving
FIRST_VALIDATION_SECONDS = 3.0  # before one was measured; tracing included


@dataclass
class Budget:
    """Wall time that a whole command may take.

    Args:
        seconds: the budget.
        started: when the command started, by `time.monotonic`.
        validation_interval: steps from one validation to the next.
    """

    seconds: float
    started: float
    validation_interval: int
    validation_seconds: float = FIRST_VALIDATION_SECONDS
    _validated: bool = False
    _points: list[float] = field(default_factory=lambda: list(CHECKPOINTS))

    def seconds_left(self) -> float:
        """Seconds until the budget is spent; negative afterwards."""
        return self.started + self.seconds - time.monotonic()

    def note_validation(self, seconds: float) -> None:
        """Tells how long a validation took; the first one, which compiles, counts until there is a second."""
        self.validation_seconds = seconds
        self._validated = True

    def replan(self, step: int, total_steps: int, seconds_per_step: float) -> int | None:
        """The new total number of steps where the plan should change now, else None."""
        spent = 1.0 - self.seconds_left() / self.seconds
        if math.isnan(seconds_per_step) or not self._points or spent < self._points[0]:
            return None
        while self._points and spent >= self._points[0]:
            self._points.pop(0)
        total = step + self.steps_in(self.seconds_left(), step, seconds_per_step)
        return total if total != total_steps else None

    def steps_in(self, seconds: float, step: int, seconds_per_step: float) -> int:
        """Steps that fit into `seconds` from `step` on, with the validations on the way and the finish."""
        left = seconds - FINISH_SECONDS - self.validation_seconds  # the last validation
        steps = left / seconds_per_step
        on_the_way = (step + max(steps, 0)) // self.validation_interval - step // self.validation_interval
        return max(1, int((left - on_the_way * self.validation_seconds) / seconds_per_step))
