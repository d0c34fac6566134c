"""From a prompt to its continuation: read the prompt, then process the logits, draw a token, read it, and so on.

It knows token ids only: what they stand for is the tokenizer's business, what a model is made of the model's.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from quickfox.config import SamplingConfig
from quickfox.errors import DataError, UsageError
from quickfox.models.language_model import LanguageModel
from quickfox.models.state import State
from quickfox.sampling.processors import Processor, build_processors

PREFILL_TOKENS = 256
"""Prompt tokens read at a time: enough to be fast, few enough for the memory to stay small whatever the prompt."""


def generate(
    model: LanguageModel, prompt_ids: Sequence[int] | np.ndarray, config: SamplingConfig, sample: int = 0
) -> Iterator[int]:
    """Draw the continuation of a prompt.

    Args:
        model: the language model.
        prompt_ids: (n,) token ids to continue, n >= 1.
        config: how to draw; `num_samples` is the caller's business.
        sample: which of the samples this is, >= 0; its draws depend on `config.random_seed` and this number alone.

    Yields:
        `config.length` token ids, each as soon as it is drawn.

    Raises:
        UsageError: the prompt is empty.
        DataError: the model's logits are no numbers.
    """
    if len(prompt_ids) == 0:
        raise UsageError("nothing to continue: the model knows no character of the seed, nor a newline to start from")
    processors = build_processors(config)
    random_bits = np.random.Philox(np.random.SeedSequence(config.random_seed, spawn_key=(sample,)))
    if config.length == 0:
        return
    logits, state = _prefill(model, np.asarray(prompt_ids, np.int64))
    token = np.empty((1, 1), np.int64)
    for remaining in range(config.length, 0, -1):
        # Of NumPy's generators only the raw bits are promised to stay the same; 53 of them make a float in [0, 1).
        uniform = (int(random_bits.random_raw()) >> 11) * 2.0**-53
        drawn = draw(_process(logits, processors), uniform)
        yield drawn
        if remaining > 1:
            token[0, 0] = drawn
            step_logits, state = model.forward(token, state)
            logits = step_logits[0, -1]


def draw(logits: np.ndarray, uniform: float) -> int:
    """The token at `uniform` of the way through the distribution softmax(logits) (inverse transform sampling).

    Args:
        logits: (V,) float64, their largest finite; -inf is never drawn.
        uniform: in [0, 1).

    Raises:
        DataError: a logit is NaN, or the largest is infinite.
    """
    cumulative = np.exp(logits - logits.max()).cumsum()  # (V,), its last the total
    total = float(cumulative[-1])
    if not math.isfinite(total):
        raise DataError("the model's output is not a number: its weights are damaged or too large")
    # A factor below 1 is at most 1 - 2**-53: the product stays below the total, also when it is rounded.
    return int(cumulative.searchsorted(uniform * total, side="right"))


def _prefill(model: LanguageModel, prompt_ids: np.ndarray) -> tuple[np.ndarray, State]:
    """The logits (V,) after the prompt, and the state."""
    state = model.initial_state(1)
    for start in range(0, len(prompt_ids), PREFILL_TOKENS):
        logits, state = model.forward(prompt_ids[np.newaxis, start : start + PREFILL_TOKENS], state)  # (1, T)
    return logits[0, -1], state


def _process(logits: np.ndarray, processors: Sequence[Processor]) -> np.ndarray:
    logits = logits.astype(np.float64)
    for process in processors:
        logits = process(logits)
    return logits
