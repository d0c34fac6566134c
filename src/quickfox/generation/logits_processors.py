"""Processors of logits, applied one after the other before a token is sampled: pure functions over arrays.

The order is that of `generate` in Hugging Face transformers:

    logit bias -> repetition, presence and frequency penalties -> n-gram ban -> temperature
    -> top-k -> top-p -> min-p -> typical-p

Up to the temperature, processors take and return logits (B, V) indexed by token id; a banned token has the logit -inf.
The truncations after it take and return the unnormalized probabilities of `sort_descending`, (B, V) in descending
order, so that one sort is enough. A truncated token has the probability 0; every truncation keeps at least one token.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.generation.token_history import TokenHistory

Processor = Callable[[np.ndarray], np.ndarray]

_MIN_TEMPERATURE = 1e-100
"""At this temperature only the most probable token is sampled, and no quotient overflows."""
_MIN_PROBABILITY = 1e-300
"""Replaces a probability of 0 in a logarithm."""
_MIN_LOGIT = -1e300
"""Replaces a maximum of -inf in a difference."""


def build_processors(config: SamplingConfig, history: TokenHistory, logit_bias: np.ndarray | None) -> list[Processor]:
    """The processors of logits that `config` enables, in the order of their application.

    Args:
        config: the sampling configuration.
        history: of the texts that the rows of logits belong to; read whenever a processor is called.
        logit_bias: (V,) added to the logits; None: no bias.
    """
    processors: list[Processor] = []
    if logit_bias is not None:
        processors.append(partial(np.add, logit_bias))
    if config.repetition_penalty != 1.0:
        processors.append(lambda logits: apply_repetition_penalty(logits, history.counts, config.repetition_penalty))
    presence, frequency = config.presence_penalty, config.frequency_penalty
    if presence or frequency:
        processors.append(lambda logits: apply_count_penalties(logits, history.counts, presence, frequency))
    if config.no_repeat_ngram is not None:
        processors.append(lambda logits: ban_tokens(logits, history.banned_tokens()))
    if config.temperature not in (0.0, 1.0):
        processors.append(partial(apply_temperature, temperature=config.temperature))
    return processors


def build_truncations(config: SamplingConfig, vocabulary_size: int) -> list[Processor]:
    """The truncations that `config` enables, in the order of their application."""
    truncations: list[Processor] = []
    if config.top_k is not None and config.top_k < vocabulary_size:
        truncations.append(partial(keep_top_k, top_k=config.top_k))
    if config.top_p < 1.0:
        truncations.append(partial(keep_top_p, top_p=config.top_p))
    if config.min_p > 0.0:
        truncations.append(partial(keep_min_p, min_p=config.min_p))
    if config.typical_p < 1.0:
        truncations.append(partial(keep_typical_p, typical_p=config.typical_p))
    return truncations


def apply_repetition_penalty(logits: np.ndarray, counts: np.ndarray, penalty: float) -> np.ndarray:
    """Logits of tokens that occurred, divided by the penalty if positive, multiplied by it if negative.

    Keskar et al. 2019, "CTRL: a conditional transformer language model for controllable generation", 4.1.

    Args:
        logits, counts: (B, V), of each token the logit and the number of occurrences.
        penalty: > 0; above 1 makes repetition less likely.
    """
    return np.where(counts > 0, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def apply_count_penalties(logits: np.ndarray, counts: np.ndarray, presence: float, frequency: float) -> np.ndarray:
    """Logits minus `presence` for each token that occurred, and minus `frequency` for each of its occurrences.

    As defined in OpenAI's API reference, "frequency and presence penalties".

    Args:
        logits, counts: (B, V), of each token the logit and the number of occurrences.
        presence, frequency: nats; negative values encourage repetition.
    """
    return logits - (presence * (counts > 0) + frequency * counts)


def ban_tokens(logits: np.ndarray, banned: list[list[int]]) -> np.ndarray:
    """Logits (B, V) with -inf for the token ids listed for each row."""
    if any(banned):
        logits = logits.copy()
        for row, token_ids in enumerate(banned):
            logits[row, token_ids] = -np.inf
    return logits


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Logits (..., V) divided by the temperature, > 0: below 1 sharpens the distribution, above 1 flattens it."""
    return logits / max(temperature, _MIN_TEMPERATURE)


def unnormalized_probs(logits: np.ndarray) -> np.ndarray:
    """exp(logits), (B, V) float64, scaled so that the largest of each row is 1; a row of -inf only becomes zeros."""
    largest = logits.max(axis=-1, keepdims=True)
    probs: np.ndarray = np.exp(logits - np.maximum(largest, _MIN_LOGIT))
    return probs


def sort_descending(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `unnormalized_probs` of (B, V) logits in descending order, and the token id of each: (B, V) both.

    Of equal ones the lower id comes first.
    """
    token_ids = (-logits).argsort(axis=-1, kind="stable")
    sorted_logits = gather(logits, token_ids)
    return np.exp(sorted_logits - np.maximum(sorted_logits[:, :1], _MIN_LOGIT)), token_ids


def gather(rows: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """rows[b, indices[b, i]]: (B, V), (B, n) -> (B, n). For one row twice as fast as `np.take_along_axis`."""
    if len(rows) > 1:
        indices = indices + np.arange(0, rows.size, rows.shape[-1])[:, np.newaxis]
    values: np.ndarray = rows.take(indices)
    return values


def keep_top_k(probs: np.ndarray, top_k: int) -> np.ndarray:
    """The `top_k` most probable of each row, ties cut off too: (B, V) descending -> (B, min(top_k, V)).

    Fan, Lewis & Dauphin 2018, "Hierarchical neural story generation", 5.4.
    """
    return probs[:, :top_k]


def keep_top_p(probs: np.ndarray, top_p: float) -> np.ndarray:
    """(B, V) descending, with 0 after the shortest prefix whose probability is at least `top_p`, in (0, 1].

    Nucleus sampling: Holtzman et al. 2020, "The curious case of neural text degeneration".
    """
    cumulative = probs.cumsum(axis=-1)
    preceding = cumulative - probs  # cumulative probability of the more probable tokens
    kept: np.ndarray = probs * (preceding < top_p * cumulative[:, -1:])
    return kept


def keep_min_p(probs: np.ndarray, min_p: float) -> np.ndarray:
    """(B, V) descending, with 0 for those less than `min_p`, in (0, 1], times as probable as the most probable one.

    Nguyen et al. 2024, "Turning up the heat: min-p sampling for creative and coherent LLM outputs".
    """
    return probs * (probs >= min_p * probs[:, :1])


def keep_typical_p(probs: np.ndarray, typical_p: float) -> np.ndarray:
    """(B, V) descending, with 0 for all but the most typical; their probability is at least `typical_p`, in (0, 1].

    A token is the more typical, the smaller the difference between its surprisal, -log p, and the entropy of the
    distribution (Meister et al. 2023, "Locally typical sampling").
    """
    p = probs / np.maximum(probs.sum(axis=-1, keepdims=True), _MIN_PROBABILITY)  # of a row without tokens, zeros
    log_p = np.log(np.maximum(p, _MIN_PROBABILITY))
    deviation = np.abs(log_p - (p * log_p).sum(axis=-1, keepdims=True))  # |surprisal - entropy|
    order = deviation.argsort(axis=-1, kind="stable")  # the most typical first
    cumulative = gather(p, order).cumsum(axis=-1)
    # The last token kept is the first whose cumulative probability suffices; rounding may leave the total below it.
    last = (cumulative[:, :-1] < typical_p).sum(axis=-1, keepdims=True)  # (B, 1)
    kept: np.ndarray = probs * (deviation <= gather(deviation, gather(order, last)))
    return kept
