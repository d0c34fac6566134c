"""Small functions from logits to logits, (..., V) -> (..., V), to be applied one after the other before a draw.

A token that must not be drawn gets the logit -inf. They know token ids only, neither models nor text.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from quickfox.config import SamplingConfig

Processor = Callable[[np.ndarray], np.ndarray]

_COLDEST = 1e-100
"""At this temperature only the likeliest token is ever drawn, and no quotient overflows."""


def build_processors(config: SamplingConfig) -> list[Processor]:
    """The processors that `config` asks for, in the order they are to be applied."""
    if config.temperature == 0:
        return [partial(keep_top_k, top_k=1)]
    processors: list[Processor] = []
    if config.top_k is not None:
        processors.append(partial(keep_top_k, top_k=config.top_k))
    processors.append(partial(apply_temperature, temperature=config.temperature))
    return processors


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Logits divided by the temperature.

    Args:
        logits: (..., V) floating point.
        temperature: > 0; below 1 sharpens the distribution, above 1 flattens it.
    """
    return logits / max(temperature, _COLDEST)


def keep_top_k(logits: np.ndarray, top_k: int) -> np.ndarray:
    """Logits with all but the `top_k` largest set to -inf; among equals the lower token ids are kept.

    Args:
        logits: (..., V) floating point.
        top_k: >= 1; V or more keeps all.
    """
    if top_k >= logits.shape[-1]:
        return logits
    smallest_kept = np.partition(logits, -top_k, axis=-1)[..., -top_k, np.newaxis]  # (..., 1)
    is_above = logits > smallest_kept
    is_equal = logits == smallest_kept
    room = top_k - is_above.sum(axis=-1, keepdims=True)
    is_kept = is_above | (is_equal & (is_equal.cumsum(axis=-1) <= room))
    return np.where(is_kept, logits, -np.inf)
