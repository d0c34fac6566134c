"""The n-gram gate: a term in the logits of a network, by which its output layer reads an n-gram model.

With h (H,) the input of the output layer, p_ngram (V,) the distribution of the n-gram model after the text so far, and
m from 0 to K - 1 the length of the longest context found in its tables of order K,

    logits = h W + b + s log p_ngram,    s = 1 + h . u + e[m]

u (H,) and e (K,) are trained from 0 together with the network, which then learns what the n-gram model does not know.
s is its confidence in the n-gram model: a scale of log p_ngram is an inverse temperature.
"""

from collections.abc import Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.language_model import Prior


class NgramGate:
    """The n-gram gate of a network; for its arguments see `registry.build_language_model`."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> None:
        self._is_present = config.ngram_gate > 0
        if self._is_present:
            self._kernel = parameters["ngram_gate.kernel"]  # (H,)
            self._length_scales = 1.0 + parameters["ngram_gate.length_bias"]  # (K,)

    def add_prior(self, logits: np.ndarray, hidden: np.ndarray, prior: Prior | None) -> None:
        """Adds the n-gram term to logits, in place; none without a prior, or if the network has no gate.

        Args:
            logits: (B, T, V) float32, of the output layer.
            hidden: (B, T, H) float32, its input.
            prior: of the n-gram model after the same tokens.
        """
        if prior is None or not self._is_present:
            return
        if prior.lengths.size == 1:  # a third of the time of the operations below
            row = logits[0, 0]
            row += prior.log_probs[0, 0] * (hidden[0, 0].dot(self._kernel) + self._length_scales[prior.lengths.item()])
        else:
            scales = hidden @ self._kernel + self._length_scales[prior.lengths]  # (B, T)
            logits += scales[..., None] * prior.log_probs
