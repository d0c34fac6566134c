"""Losses of simple models on a text, to compare that of a model with.

The uniform distribution over the tokens, n-gram models of the training text, and the size of the text compressed.
"""

import math

import numpy as np

from quickfox.config.model import ngram_config
from quickfox.data.dataset import Tokens
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.text.compression import CompressionBaseline

NGRAM_ORDERS = (1, 6)
"""Of a model with no context, and of one with a context of five tokens."""

MAX_NGRAMS = 2**23
"""Of the counted tables, which take 100 MB."""

_EVALUATION_TOKENS = 2**16  # evaluated at a time
_MIN_KNOWN_PROBABILITY = 1e-6  # of all known characters together: a bound against rounding


def baseline_bits(
    training_ids: np.ndarray, tokens: Tokens, vocabulary_size: int, text: str, threads: int
) -> dict[str, float]:
    """Name -> bits of a text, under each baseline.

    Args:
        training_ids: (n,) the training text, from which n-grams are counted.
        tokens: the text.
        vocabulary_size: V.
        text: the characters of its targets, which are compressed.
        threads: that count n-grams.
    """
    bits = {"uniform": tokens.num_targets * math.log2(vocabulary_size)}
    for order in NGRAM_ORDERS:
        estimate = estimate_ngrams(training_ids, vocabulary_size, order, MAX_NGRAMS, threads)
        model = NgramLanguageModel(ngram_config(vocabulary_size, estimate.ngrams), estimate.tensors)
        loss = measure_ngram_loss(model, tokens)
        if loss is not None:
            bits[f"order-{order - 1}"] = loss * tokens.num_targets / math.log(2)
    compression = CompressionBaseline()
    compression.add(text)
    if text:
        for name, size in zip(("gzip", "xz"), compression.bits_per_character(), strict=True):
            bits[name] = size * len(text)
    return bits


def measure_ngram_loss(model: NgramLanguageModel, tokens: Tokens) -> float | None:
    """The mean cross-entropy of the targets of a text, nats per token; None if it has none."""
    if tokens.num_targets == 0:
        return None
    state, total = model.initial_state(1), 0.0
    for start in range(0, len(tokens) - 1, _EVALUATION_TOKENS):
        ids = tokens.ids[start : start + _EVALUATION_TOKENS + 1][None].astype(np.int64)
        inputs, targets = ids[:, :-1], ids[:, 1:]
        probs, next_state = model.target_probs(inputs, targets, state)
        losses = -np.log(probs[0], dtype=np.float64)
        if tokens.unknown_token is not None:  # the model without it: its probability is distributed among the others
            unknown_probs, _ = model.target_probs(inputs, np.full_like(targets, tokens.unknown_token.token_id), state)
            losses += np.log(np.maximum(1.0 - unknown_probs[0], _MIN_KNOWN_PROBABILITY))
            tokens.unknown_token.add_cost(losses, targets[0])
        state = next_state
        if tokens.loss_mask is not None:
            losses = losses[tokens.loss_mask[start + 1 : start + 1 + len(losses)]]
        total += float(losses.sum())
    return total / tokens.num_targets
