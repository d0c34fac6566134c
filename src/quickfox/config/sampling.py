"""The sampling configuration: how a text is generated from a model."""

import math
import sys
from dataclasses import dataclass

from quickfox.config.model import MAX_VOCABULARY_SIZE
from quickfox.config.schema import MAX_INTEGER, check_exclusive, check_settings, setting
from quickfox.errors import UsageError

MAX_SAMPLES = 2**20
MAX_TOKENS = 2**40

SAMPLING, LENGTH, OUTPUT = "Sampling", "Length and stopping", "Output"
"""The headings of the options of `llm generate`."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a text is sampled; the fields are options of `llm generate`.

    Attributes:
        length: maximum number of new tokens, >= 0.
        temperature: divides the logits; 0 is greedy, 1 the model's own distribution; finite, >= 0.
        top_k: keep the k most probable tokens, >= 1; None or more than the vocabulary: keep all.
        top_p: keep the most probable tokens up to this cumulative probability, in (0, 1]; 1: keep all.
        min_p: keep tokens at least this times as probable as the most probable one, in [0, 1]; 0: keep all.
        typical_p: keep the locally typical tokens up to this cumulative probability, in (0, 1]; 1: keep all.
        repetition_penalty: lowers the logits of tokens of the text so far, > 0; 1: unchanged.
        presence_penalty: subtracted from the logits of tokens of the text so far.
        frequency_penalty: subtracted from a token's logit for each occurrence in the text so far.
        penalty_window: number of last tokens that the three penalties count, >= 1; None: all.
        no_repeat_ngram: no sequence of this many tokens occurs twice, >= 1; None: no restriction.
        logit_bias: (text of a token, value added to its logit), different texts.
        stop: strings that end the text and are not part of it.
        max_seconds: wall time after which generation ends, > 0; None: no limit.
        random_seed: together with the number of the sample, determines every draw.
        num_samples: number of texts, >= 1.
        best_of: number of texts drawn, of which the most probable are returned; None: as many as returned.
        num_beams: > 1: beam search with this many beams instead of sampling.
        logprobs: report each token's log-probability and those of this many most probable tokens; None: none.

    Raises:
        UsageError: a value is outside its range, or two exclude each other.
    """

    length: int = setting(
        "Maximum number of new tokens. Default: 500.", default=500, bounds=(0, MAX_TOKENS), group=LENGTH
    )
    temperature: float = setting(
        "Divisor of the logits; 0 is greedy, lower is more conservative. Default: the model's own, else 1.",
        default=1.0,
        bounds=(0.0, math.inf),
        group=SAMPLING,
        metavar="T",
    )
    top_k: int | None = setting(
        "Sample among the K most probable tokens. Default: all.",
        default=None,
        bounds=(1, MAX_TOKENS),
        group=SAMPLING,
        metavar="K",
    )
    top_p: float = setting(
        "Sample among the most probable tokens of cumulative probability P (nucleus sampling). Default: 1.",
        default=1.0,
        bounds=(sys.float_info.min, 1.0),
        group=SAMPLING,
        metavar="P",
    )
    min_p: float = setting(
        "Sample among tokens at least P times as probable as the most probable one. Default: 0.",
        default=0.0,
        bounds=(0.0, 1.0),
        group=SAMPLING,
        metavar="P",
    )
    typical_p: float = setting(
        "Sample among the locally typical tokens of cumulative probability P. Default: 1.",
        default=1.0,
        bounds=(sys.float_info.min, 1.0),
        group=SAMPLING,
        metavar="P",
    )
    repetition_penalty: float = setting(
        "Above 1: lowers the logits of tokens that already occurred. Default: 1.",
        default=1.0,
        bounds=(1e-6, 1e6),
        group=SAMPLING,
        metavar="X",
    )
    presence_penalty: float = setting(
        "Subtracted from the logit of a token that already occurred. Default: 0.",
        default=0.0,
        bounds=(-1e6, 1e6),
        group=SAMPLING,
        metavar="X",
    )
    frequency_penalty: float = setting(
        "Subtracted from a token's logit for each time it occurred. Default: 0.",
        default=0.0,
        bounds=(-1e6, 1e6),
        group=SAMPLING,
        metavar="X",
    )
    penalty_window: int | None = setting(
        "Number of last tokens that the penalties count. Default: 64.",
        default=64,
        bounds=(1, MAX_TOKENS),
        group=SAMPLING,
    )
    no_repeat_ngram: int | None = setting(
        "Forbid that a sequence of N tokens occurs twice. Default: no restriction.",
        default=None,
        bounds=(1, 2**20),
        group=SAMPLING,
    )
    logit_bias: tuple[tuple[str, float], ...] = setting(
        "Add X to the logit of the token TEXT, -inf to ban it; can be repeated.",
        default=(),
        group=SAMPLING,
        metavar="TEXT=X",
    )
    random_seed: int = setting(
        "Seed of the random draws; repeats an earlier output. Default: drawn and shown.",
        default=0,
        bounds=(0, MAX_INTEGER),
        group=SAMPLING,
    )
    best_of: int | None = setting(
        "Draw N texts and output the most probable. Default: off.",
        default=None,
        bounds=(1, MAX_SAMPLES),
        group=SAMPLING,
    )
    num_beams: int = setting(
        "Beam search with N beams instead of sampling. Default: 1, off.", default=1, bounds=(1, 2**10), group=SAMPLING
    )
    stop: tuple[str, ...] = setting(
        "End the text before the first occurrence of TEXT; can be repeated.", default=(), group=LENGTH, metavar="TEXT"
    )
    max_seconds: float | None = setting(
        "Maximum wall time of generation, in seconds. Default: no limit.",
        default=None,
        bounds=(1e-3, 1e9),
        group=LENGTH,
        metavar="S",
    )
    num_samples: int = setting(
        "Number of texts to generate. Default: 1.", default=1, bounds=(1, MAX_SAMPLES), group=OUTPUT
    )
    logprobs: int | None = setting(
        "With --json: log-probability of each token, and of the N most probable tokens in its place.",
        default=None,
        bounds=(0, MAX_VOCABULARY_SIZE),
        group=OUTPUT,
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
