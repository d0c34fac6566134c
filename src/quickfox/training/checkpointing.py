"""When a checkpoint is due, besides the one after each validation."""

from dataclasses import dataclass
from typing import Self

from quickfox.durations import parse_duration
from quickfox.errors import UsageError

DEFAULT_SECONDS = 180.0
MAX_STEPS = 2**40
MIN_SECONDS, MAX_SECONDS = 1e-3, 1e12


@dataclass(frozen=True)
class CheckpointInterval:
    """Optimizer steps or seconds from one checkpoint to the next; one of the two is None."""

    steps: int | None
    seconds: float | None

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """A number of steps (`500`) or a time (`90s`, `5m`); None: the default of three minutes.

        Raises:
            UsageError: it is neither, or nothing at all, or beyond all bounds.
        """
        if text is None:
            return cls(None, DEFAULT_SECONDS)
        is_number = text.isascii() and text.isdigit()
        amount = float(text) if is_number else parse_duration(text)
        low, high = (1, MAX_STEPS) if is_number else (MIN_SECONDS, MAX_SECONDS)
        if not low <= amount <= high:
            kind, bound = ("steps" if is_number else "s"), (f"least {low}" if amount < low else f"most {high:g}")
            raise UsageError(f"checkpoint-every must be at {bound} {kind}, not {amount:g}: write 500 for steps, or 5m")
        return cls(int(amount), None) if is_number else cls(None, amount)

    def __str__(self) -> str:
        return str(self.steps) if self.steps else f"{self.seconds:f}s"

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint should be made after `step`, `seconds` after the last one."""
        if self.steps is not None:
            return step % self.steps == 0
        return self.seconds is not None and seconds >= self.seconds
