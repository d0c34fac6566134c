"""A text that grows by any hand, and what a model expects next: each token is read once, from the state before it.

It knows token ids only, as all of this room does.
"""

from collections.abc import Sequence

import numpy as np

from quickfox.models.language_model import LanguageModel
from quickfox.sampling.generation import log_softmax, prefill


class GrowingText:
    """A text, as far as it has come.

    Args:
        model: reads it.
        token_ids: (n,) how it begins, n >= 1.

    Raises:
        UsageError: it begins with nothing.
    """

    def __init__(self, model: LanguageModel, token_ids: Sequence[int]) -> None:
        self._model = model
        self._logits, self._state = prefill(model, np.asarray(token_ids, np.int64))  # (V,)

    def read(self, token_ids: Sequence[int]) -> None:
        """The text goes on with these, one at least."""
        logits, self._state = self._model.forward(np.array([token_ids]), self._state)  # (1, n, V)
        self._logits = logits[0, -1]

    def likeliest(self, count: int) -> list[tuple[int, float]]:
        """The ids of the tokens most likely to come next, and their probabilities by the model itself, no setting.

        The likeliest is first, and of equals the one with the lower id; there are no more than the vocabulary has.
        """
        logprobs = log_softmax(self._logits)
        token_ids = np.argsort(-logprobs, kind="stable")[:count]
        return list(zip(token_ids.tolist(), np.exp(logprobs[token_ids]).tolist(), strict=True))
