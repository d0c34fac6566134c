"""The sampling configuration: how a text is generated from a model."""

import math
import sys
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial

from quickfox.config.model import MAX_VOCABULARY_SIZE
from quickfox.config.schema import MAX_INTEGER, check_exclusive, check_settings, setting
from quickfox.errors import UsageError

MAX_SAMPLES = 2**20
MAX_TOKENS = 2**40
MAX_LOGIT_BIAS = 1e9
"""Divided by the lowest temperature, a larger one overflows."""


_sampling = partial(setting, group="Sampling")
_length = partial(setting, group="Length and stopping")
_output = partial(setting, group="Output")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a text is sampled. The fields, described by their help texts, are options of `llm generate`.

    None or an empty tuple switches a setting off.

    Raises:
        UsageError: a value is outside its range, or two exclude each other.
    """

    length: int = _length("Maximum number of new tokens. Default: 500.", 500, (0, MAX_TOKENS))
    temperature: float = _sampling(
        "Divisor of the logits; 0 is greedy, below 1 more predictable. Default: the model's own, else 1.",
        1.0,
        (0.0, math.inf),
        "T",
    )
    top_k: int | None = _sampling(
        "Number of most probable tokens to sample among. Default: all.", None, (1, MAX_TOKENS), "K"
    )
    top_p: float = _sampling(
        "Cumulative probability of the most probable tokens to sample among (nucleus sampling). Default: 1.",
        1.0,
        (sys.float_info.min, 1.0),
        "P",
    )
    min_p: float = _sampling(
        "Minimum probability of a token, relative to the most probable one. Default: 0.", 0.0, (0.0, 1.0), "P"
    )
    typical_p: float = _sampling(
        "Cumulative probability of the locally typical tokens to sample among. Default: 1.",
        1.0,
        (sys.float_info.min, 1.0),
        "P",
    )
    repetition_penalty: float = _sampling(
        "Above 1, lowers the logits of tokens that already occurred. Default: 1.", 1.0, (1e-6, 1e6), "X"
    )
    presence_penalty: float = _sampling(
        "Value subtracted from the logit of a token that already occurred. Default: 0.", 0.0, (-1e6, 1e6), "X"
    )
    frequency_penalty: float = _sampling(
        "Value subtracted from a token's logit for each occurrence. Default: 0.", 0.0, (-1e6, 1e6), "X"
    )
    penalty_window: int | None = _sampling(
        "Number of most recent tokens that the penalties count. Default: 64.", 64, (1, MAX_TOKENS)
    )
    no_repeat_ngram: int | None = _sampling(
        "Length of token sequences that may not occur twice. Default: no restriction.", None, (1, 2**20)
    )
    logit_bias: tuple[tuple[str, float], ...] = _sampling(
        "Value X added to the logit of the token TEXT, -inf to ban it; repeatable. Default: none.", (), None, "TEXT=X"
    )
    random_seed: int = _sampling(
        "Seed of the random number generator. Default: random, and shown.", 0, (0, MAX_INTEGER)
    )
    best_of: int | None = _sampling(
        "Number of texts to sample, of which the most probable are output. Default: off.", None, (1, MAX_SAMPLES)
    )
    num_beams: int = _sampling("Number of beams; above 1, beam search replaces sampling. Default: 1.", 1, (1, 2**10))
    stop: tuple[str, ...] = _length("String before which the text ends; repeatable. Default: none.", (), None, "TEXT")
    max_seconds: float | None = _length(
        "Maximum wall time of generation, in seconds. Default: no limit.", None, (1e-3, 1e9), "S"
    )
    num_samples: int = _output("Number of texts to generate. Default: 1.", 1, (1, MAX_SAMPLES))
    logprobs: int | None = _output(
        "With --json, report the log-probability of each token and of the N most probable ones. Default: off.",
        None,
        (0, MAX_VOCABULARY_SIZE),
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not all(self.stop):
            raise UsageError("stop must not be an empty text, which would end every text at once", "stop")
        for text, bias in self.logit_bias:
            if not (abs(bias) <= MAX_LOGIT_BIAS or bias == -math.inf):
                limits = f"-inf or between {-MAX_LOGIT_BIAS:g} and {MAX_LOGIT_BIAS:g}"
                raise UsageError(f"logit_bias of {text!r} must be {limits}, not {bias}", "logit_bias")
        if self.num_beams > 1:
            check_exclusive(self, "num_beams", "best_of")
        limit = "best_of" if self.best_of else "num_beams" if self.num_beams > 1 else "num_samples"
        most = getattr(self, limit)
        if self.num_samples > most:
            raise UsageError(
                f"num_samples must be at most {limit}, which is {most}, not {self.num_samples}", "num_samples", limit
            )


INACTIVE_SETTINGS: tuple[tuple[Callable[[SamplingConfig], bool], str, tuple[str, ...]], ...] = (
    (
        lambda config: config.num_beams > 1,
        "beam search, with num_beams above 1, does not sample",
        ("temperature", "top_k", "top_p", "min_p", "typical_p"),
    ),
    (
        lambda config: config.num_beams == 1 and config.temperature == 0.0,
        "at temperature 0 the most probable token is taken",
        ("top_k", "top_p", "min_p", "typical_p", "best_of"),
    ),
    (
        lambda config: (
            config.repetition_penalty == 1.0 and not config.presence_penalty and not config.frequency_penalty
        ),
        "there is no penalty",
        ("penalty_window",),
    ),
)
"""Settings that have no effect because of others: the condition, the reason, and these settings."""


def describe_inactive(config: SamplingConfig, given: Container[str]) -> list[UsageError]:
    """What to tell about each setting of `given` that has no effect because of others: errors that are not raised."""
    return [
        UsageError(f"{name} has no effect: {reason}", name)
        for is_inactive, reason, names in INACTIVE_SETTINGS
        for name in names
        if name in given and is_inactive(config)
    ]


def describe_unreachable_stops(config: SamplingConfig, known_characters: Container[str]) -> list[UsageError]:
    """What to tell about stop strings that a model cannot write, or that are probably meant otherwise.

    Args:
        config: the settings.
        known_characters: those that the model can write.
    """
    found = []
    for stop in config.stop:
        unknown = [character for character in stop if character not in known_characters]
        advice = r"; a newline is written $'\n' in a shell" if r"\n" in stop else ""
        if unknown:
            found.append(UsageError(f"stop {stop!r} never occurs: the model has no {unknown[0]!r}{advice}", "stop"))
        elif advice:
            found.append(UsageError(f"stop {stop!r} has a backslash and an n{advice}", "stop"))
    return found
