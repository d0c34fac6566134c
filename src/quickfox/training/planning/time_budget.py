"""The number of optimizer steps of a run: as planned, and as corrected so that the run meets its time budget."""

import itertools
import math
import time
from dataclasses import dataclass, field

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.models.parameters import parameter_count

CORRECTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97)
"""Fractions of the run after which the plan is corrected; few, because each correction is recorded in run.json."""

MAX_VALIDATION_TOKENS = 2**19
"""Held-out tokens that a run measures its loss on; of more, the first. They take 5 to 10 s, and the standard error of
the loss of a text of that length is about 0.003 nats."""

VALIDATION_SEGMENTS = 64
"""Parts of the validation text that are read side by side."""

MAX_VALIDATION_LOGITS = 2**25
"""Logits of a window of all segments, 128 MB; of more, there are fewer segments. There are several copies of them."""

FINISH_SECONDS, SAVING_SECONDS_PER_PARAMETER = 0.8, 1.2e-7  # saving the last checkpoint and exiting
VALIDATION_TRACING_SECONDS = 0.8  # once
VALIDATION_SPEED_UP = 3.0  # of validating a token over training on it: one pass instead of three
VALIDATION_WARM_UP_TOKENS = 64 * 256  # read before the segments of the validation text
MIXTURE_SECONDS, MIXTURE_SECONDS_PER_PROBABILITY = 3e-6, 2e-8  # of a validation token, in NumPy


def max_validation_segments(window: int, vocabulary_size: int) -> int:
    """The largest number of segments of the validation text that are read side by side."""
    return max(1, min(VALIDATION_SEGMENTS, MAX_VALIDATION_LOGITS // (window * vocabulary_size)))


def finish_seconds(model: ModelConfig) -> float:
    """Seconds from the last validation to the end of the command; most of them are for the checkpoint."""
    return FINISH_SECONDS + SAVING_SECONDS_PER_PARAMETER * parameter_count(model)


def mixture_seconds(vocabulary_size: int, ngram_order: int) -> float:
    """Seconds of mixing the network with the n-gram tables for one validation token; 0 without tables."""
    return MIXTURE_SECONDS + MIXTURE_SECONDS_PER_PROBABILITY * vocabulary_size if ngram_order else 0.0


@dataclass
class Budget:
    """Wall time of a whole command.

    Args:
        seconds: the budget.
        started: when the command started, by `time.monotonic`.
        validation_interval: steps between validations.
        validation_tokens: tokens of the validation text.
        mixture_seconds, finish_seconds: see the functions of these names.
        validation_seconds: duration of the last validation with its checkpoint and sample, which later plans include
            for each validation; None before the first.
    """

    seconds: float
    started: float
    validation_interval: int
    validation_tokens: int
    mixture_seconds: float = 0.0
    finish_seconds: float = FINISH_SECONDS
    validation_seconds: float | None = None
    _corrections: list[float] = field(default_factory=lambda: list(CORRECTIONS))

    @property
    def is_validation_unmeasured(self) -> bool:
        """Whether the first correction is due, and the duration of a validation is not known yet."""
        is_due = self.seconds_left() < (1.0 - CORRECTIONS[0]) * self.seconds
        return self.validation_seconds is None and is_due

    def seconds_left(self) -> float:
        """Seconds until the budget is used up; negative afterwards."""
        return self.started + self.seconds - time.monotonic()

    def replan(self, step: int, total_steps: int, seconds_per_step: float, tokens_per_step: int) -> int | None:
        """The new total number of steps if a correction is due and changes it, else None.

        Args:
            step: steps made.
            total_steps: by the current plan.
            seconds_per_step: measured; NaN if no step was timed yet.
            tokens_per_step: tokens of a batch.
        """
        done = max(1.0 - self.seconds_left() / self.seconds, step / total_steps)
        if math.isnan(seconds_per_step) or not self._corrections or done < self._corrections[0]:
            return None
        while self._corrections and done >= self._corrections[0]:
            self._corrections.pop(0)
        seconds_per_validation = self.validation_seconds
        if seconds_per_validation is None:
            seconds_per_token = seconds_per_step / tokens_per_step / VALIDATION_SPEED_UP + self.mixture_seconds
            tokens = self.validation_tokens + min(self.validation_tokens, VALIDATION_WARM_UP_TOKENS)
            seconds_per_validation = VALIDATION_TRACING_SECONDS + tokens * seconds_per_token
        total = self._last_step(step, seconds_per_step, seconds_per_validation)
        return total if total != total_steps else None

    def _last_step(self, step: int, seconds_per_step: float, seconds_per_validation: float) -> int:
        """The step at which the budget will be used up by the remaining steps and validations; at least the next."""
        seconds = self.seconds_left() - self.finish_seconds
        last = step + 1
        for validations in itertools.count(1):  # the last one, and those before it
            last = max(step + 1, step + int((seconds - validations * seconds_per_validation) / seconds_per_step))
            if math.ceil(last / self.validation_interval) - step // self.validation_interval <= validations:
                break
        return last


def make_budget(
    seconds: float | None, started: float, model: ModelConfig, training: TrainingConfig, validation_tokens: int
) -> Budget | None:
    """The budget of a run of `seconds`; None: the recorded plan is final. For the other arguments see `Budget`."""
    if seconds is None:
        return None
    mixing = mixture_seconds(model.vocabulary_size, training.ngram_order)
    interval, finish = training.validation_interval, finish_seconds(model)
    return Budget(seconds, started, interval, validation_tokens, mixing, finish)


class StepPlan:
    """The steps at which a run validates, makes a checkpoint or changes its total number of steps.

    Args:
        config: `replans` are the recorded changes, which a resumed or repeated run makes again.
        checkpoint_steps: steps between checkpoints; None: no such interval.
        budget: the time budget that further changes serve; None: there are none.
    """

    def __init__(self, config: TrainingConfig, checkpoint_steps: int | None, budget: Budget | None) -> None:
        self.replans = dict(config.replans)  # step -> total number of steps from there on
        self._tokens_per_step = config.tokens_per_step
        self._intervals = [interval for interval in (config.validation_interval, checkpoint_steps) if interval]
        self._budget = budget

    def steps_to_next_stop(self, step: int, total_steps: int) -> int:
        """Steps from `step` until a validation, a checkpoint, a recorded change or the end is due."""
        stops = [total_steps, *(replan for replan in self.replans if replan > step)]
        stops += [step + interval - step % interval for interval in self._intervals]
        return min(stops) - step

    def replan(self, step: int, total_steps: int, seconds_per_step: float) -> int | None:
        """The new total number of steps if the plan changes at this step, as recorded or by the budget; else None.

        Args: as for `Budget.replan`.
        """
        if any(replan >= step for replan in self.replans):
            return self.replans.get(step)
        if self._budget is None:
            return None
        total = self._budget.replan(step, total_steps, seconds_per_step, self._tokens_per_step)
        if total is not None:
            self.replans[step] = total
        return total
