"""Small functions on logits, to be applied one after the other before a draw.

The order is the one of `generate` in Hugging Face transformers:

    logit bias -> repetition, presence and frequency penalties -> no repeated n-gram -> temperature
    -> top-k -> top-p -> min-p -> typical-p

Those up to the temperature take and return logits by token id, (B, V), and may look at what was said so far; a token
that must not be drawn has the logit -inf. Those after it leave tokens out. They take and return the weights of `rank`,
in descending order: what they keep is most often the head of a row, and ranking once serves them all. A token that is
left out has the weight 0, and each leaves one at least. They know token ids only, neither models nor text.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.generation.token_history import History

Processor = Callable[[np.ndarray], np.ndarray]

_COLDEST = 1e-100
"""At this temperature only the likeliest token is ever drawn, and no quotient overflows."""
_LEAST = 1e-300
"""Stands for a probability of 0 in a logarithm, and for a logit of -inf in a difference; nothing is added by either."""
_LOWEST = -1e300


def build_processors(config: SamplingConfig, history: History, logit_bias: np.ndarray | None) -> list[Processor]:
    """The processors by token id that `config` asks for, in the order they are to be applied.

    Args:
        config: what is asked for.
        history: of the texts that the rows of logits belong to; read each time a processor is called.
        logit_bias: (V,), added to the logits; None: nothing is.
    """
    processors: list[Processor] = []
    if logit_bias is not None:
        processors.append(partial(np.add, logit_bias))
    if config.repetition_penalty != 1.0:
        processors.append(lambda logits: penalise_repetition(logits, history.counts, config.repetition_penalty))
    presence, frequency = config.presence_penalty, config.frequency_penalty
    if presence or frequency:
        processors.append(lambda logits: penalise_use(logits, history.counts, presence, frequency))
    if config.no_repeat_ngram is not None:
        processors.append(lambda logits: ban_tokens(logits, history.repeating_tokens()))
    if config.temperature not in (0.0, 1.0):
        processors.append(partial(apply_temperature, temperature=config.temperature))
    return processors


def build_truncations(config: SamplingConfig, vocabulary_size: int) -> list[Processor]:
    """The processors of ranked weights that `config` asks for, in the order they are to be applied."""
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


def penalise_repetition(logits: np.ndarray, counts: np.ndarray, penalty: float) -> np.ndarray:
    """Logits of tokens that were used, divided by the penalty if positive, multiplied by it if negative.

    Keskar et al. 2019, "CTRL: a conditional transformer language model for controllable generation", 4.1.

    Args:
        logits: (B, V) floating point.
        counts: (B, V), how often each token was used.
        penalty: > 0; above 1 makes repetition less likely.
    """
    outer = np.minimum if penalty > 1 else np.maximum  # of the two the one that is right for the logit's sign
    return np.where(counts > 0, outer(logits * penalty, logits / penalty), logits)


def penalise_use(logits: np.ndarray, counts: np.ndarray, presence: float, frequency: float) -> np.ndarray:
    """Logits less `presence` for each token that was used, and less `frequency` for each time it was.

    As defined for OpenAI's completions, "frequency and presence penalties".

    Args:
        logits: (B, V) floating point.
        counts: (B, V), how often each token was used.
        presence, frequency: nats; negative ones encourage.
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
    """Logits divided by the temperature.

    Args:
        logits: (..., V) floating point.
        temperature: > 0; below 1 sharpens the distribution, above 1 flattens it.
    """
    return logits / max(temperature, _COLDEST)


def unnormalized_probs(logits: np.ndarray) -> np.ndarray:
    """Probabilities but for a factor: exp(logits) with the largest of each row 1; a row of nothing but -inf is all 0.

    Args:
        logits: (..., V) float64.
    """
    largest = logits.max(axis=-1, keepdims=True)
    weights: np.ndarray = np.exp(logits - np.maximum(largest, _LOWEST))
    return weights


def sort_descending(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights of `unnormalized_probs` in descending order, and whose they are; among equals the lower token id comes first.

    Args:
        logits: (B, V) float64.

    Returns:
        ranked weights (B, V), and the token id of each, (B, V).
    """
    token_ids = (-logits).argsort(axis=-1, kind="stable")
    ranked = gather(logits, token_ids)
    return np.exp(ranked - np.maximum(ranked[:, :1], _LOWEST)), token_ids


def gather(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """rows[b, places[b, i]]: (B, V) and (B, n) -> (B, n); for one row half the time of NumPy's own indexing."""
    if len(rows) > 1:
        places = places + np.arange(0, rows.size, rows.shape[-1])[:, np.newaxis]
    gathered: np.ndarray = rows.take(places)
    return gathered


def keep_top_k(weights: np.ndarray, top_k: int) -> np.ndarray:
    """The `top_k` largest of each row alone: (B, V) ranked -> (B, min(top_k, V)); exactly so many on ties too.

    Fan, Lewis & Dauphin 2018, "Hierarchical neural story generation", 5.4.
    """
    return weights[:, :top_k]


def keep_top_p(weights: np.ndarray, top_p: float) -> np.ndarray:
    """Ranked weights (B, V) with 0 for all but the shortest head that has the probability `top_p`, in (0, 1].

    Holtzman et al. 2020, "The curious case of neural text degeneration" (nucleus sampling).
    """
    cumulative = weights.cumsum(axis=-1)
    likelier = cumulative - weights  # of all that come before each
    likely: np.ndarray = weights * (likelier < top_p * cumulative[:, -1:])
    return likely


def keep_min_p(weights: np.ndarray, min_p: float) -> np.ndarray:
    """Ranked weights (B, V) with 0 for those less than `min_p`, in (0, 1], times as probable as the likeliest.

    Nguyen et al. 2024, "Turning up the heat: min-p sampling for creative and coherent LLM outputs".
    """
    return weights * (weights >= min_p * weights[:, :1])


def keep_typical_p(weights: np.ndarray, typical_p: float) -> np.ndarray:
    """Ranked weights (B, V) with 0 for all but the most typical tokens, which have the probability `typical_p`.

    A token is the more typical the nearer its information, -log p, is to the entropy of the distribution (Meister et
    al. 2023, "Locally typical sampling").
    """
    p = weights / weights.sum(axis=-1, keepdims=True)
    log_p = np.log(np.maximum(p, _LEAST))
    oddity = np.abs(log_p - (p * log_p).sum(axis=-1, keepdims=True))  # |-log p - entropy|
    order = oddity.argsort(axis=-1, kind="stable")
    cumulative = gather(p, order).cumsum(axis=-1)
    # The last of those kept is the first with which they have enough; rounding may leave the sum of all below that.
    last = (cumulative[:, :-1] < typical_p).sum(axis=-1, keepdims=True)  # (B, 1)
    typical: np.ndarray = weights * (oddity <= gather(oddity, gather(order, last)))
    return typical
