"""The mixture of a network and an n-gram model, whose weight adapts to each text.

    p(token) = w p_network(token) + (1 - w) p_ngram(token)

After each token read, the responsibility r = w p_network / p of the network for it moves its weight,

    w <- min(max(w + eta (r - w), MIN_WEIGHT), MAX_WEIGHT),    eta = max(1 / (n + PRIOR_TOKENS), MIN_RATE),

with n the number of tokens read before it: a step of incremental expectation-maximization, so that the weight depends
on the text read so far and needs no tuning. (Jelinek & Mercer 1980, "Interpolated estimation of Markov source
parameters from sparse data"; Neal & Hinton 1998, "A view of the EM algorithm that justifies incremental variants".)
A network with an n-gram gate reads the n-gram model too, to compute p_network (see `ngram.gate`).
"""

import numpy as np

from quickfox.models.language_model import NetworkLanguageModel, Prior, State
from quickfox.models.ngram.model import NgramLanguageModel, context_lengths

INITIAL_WEIGHT = 0.5
PRIOR_TOKENS = 16
MIN_RATE = 0.004

# After a long stretch that one model predicts much better, a weight near 0 or 1 would take long to return, and the loss
# would be high as long as the other model is better. The bounds cost at most -log MAX_WEIGHT, 0.01 nats per token.
MIN_WEIGHT = np.float32(0.01)
MAX_WEIGHT = np.float32(0.99)


class MixtureLanguageModel:
    """A network and an n-gram model as one `language_model.LanguageModel`; its logits are the logarithms of p.

    Its state is that of the network, that of the n-gram model, and one more layer: the weight w (B,), the number of
    tokens read (B,), both float32, and the responsibility r of the network for each possible next token (B, V).
    """

    def __init__(
        self,
        network: NetworkLanguageModel,
        ngram: NgramLanguageModel,
        vocabulary_size: int,
        *,
        has_ngram_gate: bool = False,
    ) -> None:
        self.context = network.context
        self._network = network
        self._ngram = ngram
        self._vocabulary_size = vocabulary_size
        self._has_ngram_gate = has_ngram_gate

    def initial_state(self, batch_size: int) -> State:
        weight, count = initial_weights(batch_size)
        # No token was predicted yet: with r = w, the first token read does not move the weight.
        responsibility = np.full((batch_size, self._vocabulary_size), INITIAL_WEIGHT, np.float32)
        mixture = weight, count, responsibility
        return (*self._network.initial_state(batch_size), *self._ngram.initial_state(batch_size), mixture)

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        *network_state, ngram_state, (weight, count, responsibility) = state
        contexts, new_ngram_state = self._ngram.read(token_ids, (ngram_state,))
        ngram = self._ngram.distributions(contexts)  # (B, T, V)
        prior = Prior(np.log(ngram), context_lengths(contexts)) if self._has_ngram_gate else None
        logits, new_network_state = self._network.forward(token_ids, tuple(network_state), prior)
        network = softmax(logits)  # (B, T, V)
        first = responsibility[np.arange(len(token_ids)), token_ids[:, 0]]
        weight, count = move_weights(weight, count, first)
        weights = np.empty(token_ids.shape, np.float32)  # (B, T), of the prediction after each token
        weights[:, 0] = weight
        if token_ids.shape[1] > 1:
            following = token_ids[:, 1:, None]
            predicted = (np.take_along_axis(probs[:, :-1], following, -1)[..., 0] for probs in (network, ngram))
            weights[:, 1:], weight, count = adapt_weights(weight, count, *predicted)
        network *= weights[..., None]
        ngram *= 1.0 - weights[..., None]
        mixed = np.add(network, ngram, out=ngram)
        responsibility = network[:, -1] / mixed[:, -1]
        return np.log(mixed, out=mixed), (*new_network_state, *new_ngram_state, (weight, count, responsibility))


def initial_weights(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The weight of the network and the number of tokens read before any: (B,) float32 each."""
    return np.full(batch_size, INITIAL_WEIGHT, np.float32), np.zeros(batch_size, np.float32)


def move_weights(weight: np.ndarray, count: np.ndarray, responsibility: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weight and the number of tokens read after one more, from r of that token: (B,) float32 each."""
    rate = np.maximum(1.0 / (count + np.float32(PRIOR_TOKENS)), np.float32(MIN_RATE))
    moved = weight + rate * (responsibility - weight)
    return np.minimum(np.maximum(moved, MIN_WEIGHT), MAX_WEIGHT), count + np.float32(1)


def adapt_weights(
    weight: np.ndarray, count: np.ndarray, network: np.ndarray, ngram: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights of the network over a sequence of tokens.

    Args:
        weight, count: before the first token.
        network, ngram: (B, T) float32, the probability of each token according to each model.

    Returns:
        The weight after each token, (B, T) float32; the last of them, and the number of tokens read.
    """
    weights = np.empty(network.shape, np.float32)
    for position, (p_network, p_ngram) in enumerate(zip(network.T, ngram.T, strict=True)):
        shares = weight * p_network
        weight, count = move_weights(weight, count, shares / (shares + (1.0 - weight) * p_ngram))
        weights[:, position] = weight
    return weights, weight, count


def softmax(logits: np.ndarray) -> np.ndarray:
    """The probabilities of logits (..., V) float32, as a new array."""
    probs: np.ndarray = logits - logits.max(axis=-1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=-1, keepdims=True)
    return probs
