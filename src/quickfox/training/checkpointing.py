"""When a checkpoint is due, besides the one after each validation."""

from dataclasses import dataclass
from typing import Self

from quickfox.durations import parse_duration
from quickfox.errors import UsageError

DEFAULT_SECONDS = 180.0


@dataclass(frozen=True)
class CheckpointInterval:
    """Optimizer steps or seconds from one checkpoint to the next; one of the two is None."""

    steps: int | None
    seconds: float | None

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """A number of steps (`500`) or a time (`90s`, `5m`); None: the default of three minutes.

        Raises:
            UsageError: it is neither, or nothing at all.
        """
        if text is None:
            return cls(None, DEFAULT_SECONDS)
        is_number = text.isascii() and text.isdigit()
        interval = cls(int(text), None) if is_number else cls(None, parse_duration(text))
        if not (interval.steps or interval.seconds):
            raise UsageError(f"checkpoint-every must be more than {text!r}: a number of steps, or a time such as 5m")
        return interval

    def __str__(self) -> str:
        return str(self.steps) if self.steps else f"{self.seconds:f}s"

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint should be made after `step`, `seconds` after the last one."""
        if self.steps is not None:
            return step % self.steps == 0
        return self.seconds is not None and seconds >= self.seconds
