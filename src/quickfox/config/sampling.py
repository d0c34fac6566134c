"""The sampling configuration: how a text is generated from a model."""

import math
import sys
from dataclasses import dataclass

from quickfox.config.model import MAX_VOCABULARY_SIZE
from quickfox.config.schema import MAX_INTEGER, check_exclusive, check_settings, setting
from quickfox.errors import UsageError

MAX_SAMPLES = 2**20
MAX_TOKENS = 2**40


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a text is sampled; the fields are options of `llm generate`.

    Attributes:
        length: maximum number of new tokens, >= 0.
        temperature: divides the logits; 0 is greedy, 1 the model's own distribution; finite, >= 0.
        top_k: keep the k most probable tokens, >= 1; None or more than the vocabulary: keep all.
        top_p: keep the most probable tokens up to this cumulative probability, in (0, 1]; 1: keep all.
        min_p: minimum probability relative to the most probable token, in [0, 1]; 0: keep all.
        typical_p: keep the locally typical tokens up to this cumulative probability, in (0, 1]; 1: keep all.
        repetition_penalty: lowers the logits of tokens of the text so far, > 0; 1: unchanged.
        presence_penalty: subtracted from the logits of tokens of the text so far.
        frequency_penalty: subtracted from a token's logit for each occurrence in the text so far.
        penalty_window: number of most recent tokens that the three penalties count, >= 1; None: all.
        no_repeat_ngram: no sequence of this many tokens occurs twice, >= 1; None: no restriction.
        logit_bias: (text of a token, value added to its logit), different texts.
        stop: strings that end the text and are not part of it.
        max_seconds: wall time after which generation ends, > 0; None: no limit.
        random_seed: with the index of the text, determines its random numbers.
        num_samples: number of texts, >= 1.
        best_of: number of texts sampled, of which the `num_samples` most probable are returned; None: all.
        num_beams: > 1: beam search with this many beams instead of sampling.
        logprobs: report each token's log-probability and those of this many most probable tokens; None: none.

    Raises:
        UsageError: a value is outside its range, or two exclude each other.
    """

    length: int = setting(
        "Maximum number of new tokens. Default: 500.", default=500, bounds=(0, MAX_TOKENS), group="Length and stopping"
    )
    temperature: float = setting(
        "Divisor of the logits; 0 is greedy, below 1 more predictable. Default: the model's own, else 1.",
        default=1.0,
        bounds=(0.0, math.inf),
        group="Sampling",
        metavar="T",
    )
    top_k: int | None = setting(
        "Number of most probable tokens to sample among. Default: all.",
        default=None,
        bounds=(1, MAX_TOKENS),
        group="Sampling",
        metavar="K",
    )
    top_p: float = setting(
        "Cumulative probability of the most probable tokens to sample among (nucleus sampling). Default: 1.",
        default=1.0,
        bounds=(sys.float_info.min, 1.0),
        group="Sampling",
        metavar="P",
    )
    min_p: float = setting(
        "Minimum probability of a token, relative to the most probable one. Default: 0.",
        default=0.0,
        bounds=(0.0, 1.0),
        group="Sampling",
        metavar="P",
    )
    typical_p: float = setting(
        "Cumulative probability of the locally typical tokens to sample among. Default: 1.",
        default=1.0,
        bounds=(sys.float_info.min, 1.0),
        group="Sampling",
        metavar="P",
    )
    repetition_penalty: float = setting(
        "Above 1, lowers the logits of tokens that already occurred. Default: 1.",
        default=1.0,
        bounds=(1e-6, 1e6),
        group="Sampling",
        metavar="X",
    )
    presence_penalty: float = setting(
        "Value subtracted from the logit of a token that already occurred. Default: 0.",
        default=0.0,
        bounds=(-1e6, 1e6),
        group="Sampling",
        metavar="X",
    )
    frequency_penalty: float = setting(
        "Value subtracted from a token's logit for each occurrence. Default: 0.",
        default=0.0,
        bounds=(-1e6, 1e6),
        group="Sampling",
        metavar="X",
    )
    penalty_window: int | None = setting(
        "Number of most recent tokens that the penalties count. Default: 64.",
        default=64,
        bounds=(1, MAX_TOKENS),
        group="Sampling",
    )
    no_repeat_ngram: int | None = setting(
        "Length of token sequences that may not occur twice. Default: no restriction.",
        default=None,
        bounds=(1, 2**20),
        group="Sampling",
    )
    logit_bias: tuple[tuple[str, float], ...] = setting(
        "Value X added to the logit of the token TEXT, -inf to ban it; repeatable. Default: none.",
        default=(),
        group="Sampling",
        metavar="TEXT=X",
    )
    random_seed: int = setting(
        "Seed of the random number generator. Default: random, and shown.",
        default=0,
        bounds=(0, MAX_INTEGER),
        group="Sampling",
    )
    best_of: int | None = setting(
        "Number of texts to sample, of which the most probable are output. Default: off.",
        default=None,
        bounds=(1, MAX_SAMPLES),
        group="Sampling",
    )
    num_beams: int = setting(
        "Number of beams; above 1, beam search replaces sampling. Default: 1.",
        default=1,
        bounds=(1, 2**10),
        group="Sampling",
    )
    stop: tuple[str, ...] = setting(
        "String before which the text ends; repeatable. Default: none.",
        default=(),
        group="Length and stopping",
        metavar="TEXT",
    )
    max_seconds: float | None = setting(
        "Maximum wall time of generation, in seconds. Default: no limit.",
        default=None,
        bounds=(1e-3, 1e9),
        group="Length and stopping",
        metavar="S",
    )
    num_samples: int = setting(
        "Number of texts to generate. Default: 1.", default=1, bounds=(1, MAX_SAMPLES), group="Output"
    )
    logprobs: int | None = setting(
        "With --json, report the log-probability of each token and of the N most probable ones. Default: off.",
        default=None,
        bounds=(0, MAX_VOCABULARY_SIZE),
        group="Output",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not all(self.stop):
            raise UsageError("stop must not be an empty text, which would end every text at once", "stop")
        for text, bias in self.logit_bias:
            if math.isnan(bias) or bias == math.inf:
                raise UsageError(f"logit_bias of {text!r} must be a number below infinity, not {bias}", "logit_bias")
        if self.num_beams > 1:
            check_exclusive(self, "num_beams", "best_of")
        limit = "best_of" if self.best_of else "num_beams" if self.num_beams > 1 else "num_samples"
        most = getattr(self, limit)
        if self.num_samples > most:
            raise UsageError(
                f"num_samples must be at most {limit}, which is {most}, not {self.num_samples}", "num_samples", limit
            )
