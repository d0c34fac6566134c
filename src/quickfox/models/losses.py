"""The cross-entropy loss in NumPy."""

import numpy as np


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[target], in nats: (..., V) float32, (...) integers -> (...) float64.

    A logit of -inf, and the loss of that target inf, are exact; every row has a finite logit.
    """
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    target_logits: np.ndarray = np.take_along_axis(logits, targets[..., np.newaxis], axis=-1)[..., 0]
    losses: np.ndarray = np.log(np.exp(logits).sum(axis=-1)) - target_logits
    return losses
