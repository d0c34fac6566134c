"""The validation loss of a network that is being trained, on the definition that `llm evaluate` uses.

The mean cross-entropy, in nats, over every token of the validation text but the first, with the state zero at the
text's start and then carried. For speed, the text is divided into segments that are processed as a batch. With n-gram
tables, the loss is that of the mixture (see `models/mixture.py`).
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from quickfox.data.batching import ValidationWindow, count_validation_segments, iter_validation_windows
from quickfox.data.dataset import Tokens
from quickfox.models.language_model import replace_first
from quickfox.models.mixture import adapt_weights, initial_weights, move_weights
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.engine.train_step import concatenate_rows, cross_entropy, num_microbatches, split_rows
from quickfox.training.networks.matmul import Tensor
from quickfox.training.networks.network import Network, State

VALIDATION_SEGMENTS = 64
VALIDATION_WARM_UP = 256  # tokens, at least; in practice a recurrent state depends on fewer


@dataclass(frozen=True)
class ValidationLoss:
    """The losses of a model on the validation text, nats per token.

    Attributes:
        loss: of the model: the mixture, or the network if there are no n-gram tables.
        network_loss: of the network alone.
    """

    loss: float
    network_loss: float


class Validation:
    """Measures the validation loss of one network on one text.

    Each segment is processed after a warm-up on the tokens before it (see `iter_validation_windows`). With attention,
    the warm-up is at least a whole context, so each token attends to the same positions as with a carried state.

    Args:
        network: the network.
        tokens: the validation text; empty: none.
        window: tokens per forward pass.
        threads: processor threads of this process.
        ngrams: the tables of the model; None: there are none.
    """

    def __init__(
        self, network: Network, tokens: Tokens, window: int, threads: int, ngrams: NgramEstimation | None = None
    ) -> None:
        self._network = network
        self.tokens = tokens
        self._window = window
        self._threads = threads
        self._ngrams = ngrams
        self.window_losses = tf.function(self._window_losses, autograph=False)

    def loss(self) -> ValidationLoss | None:
        """The validation loss; None without a validation text. Waits for the n-gram tables."""
        tokens, window = self.tokens, self._window
        if tokens.num_targets == 0:
            return None
        warm_up = -(-max(VALIDATION_WARM_UP, self._network.config.context or 0) // window) * window
        segments = count_validation_segments(len(tokens), VALIDATION_SEGMENTS, warm_up)
        mixture = _MixtureLosses(self._ngrams.tables.model, segments) if self._ngrams else None
        state, total, mixture_total = self._network.initial_state(segments), 0.0, 0.0
        for part in iter_validation_windows(tokens.ids, VALIDATION_SEGMENTS, window, warm_up, tokens.loss_mask):
            if part.reset_first:
                state = self._network.reset_rows(state, tf.range(segments) == 0)
            losses, state = self.window_losses(tf.constant(part.x), tf.constant(part.y), state)
            total += _weighted_sum(losses.numpy(), part)
            if mixture:
                mixture_total += _weighted_sum(mixture.advance(part, losses.numpy()), part)
        network_loss = total / tokens.num_targets
        return ValidationLoss(mixture_total / tokens.num_targets if mixture else network_loss, network_loss)

    def _window_losses(self, x: Tensor, y: Tensor, state: State) -> tuple[Tensor, State]:
        """The cross-entropies (S, T) of one window, S segments, and the state after it."""
        parts = num_microbatches(x.shape[0], self._threads)
        losses, states = [], []
        for x_part, y_part, state_part in split_rows((x, y, state), parts):
            logits, new_state = self._network.forward(x_part, state_part)
            losses.append(tf.transpose(cross_entropy(logits, y_part)))  # (T, S) -> (S, T)
            states.append(new_state)
        return tf.concat(losses, axis=0), concatenate_rows(states)


def _weighted_sum(losses: np.ndarray, window: ValidationWindow) -> float:
    return float((losses * window.weight).sum(dtype=np.float64))


class _MixtureLosses:
    """The cross-entropies of the mixture, window by window, from those of the network."""

    def __init__(self, ngram: NgramLanguageModel, segments: int) -> None:
        self._ngram = ngram
        self._state = ngram.initial_state(segments)
        self._weight, self._count = _weights_after_first_token(segments)

    def advance(self, window: ValidationWindow, losses: np.ndarray) -> np.ndarray:
        """The cross-entropies (S, T) of the next window; `losses` (S, T) are those of the network."""
        if window.reset_first:
            self._state = replace_first(self._state, self._ngram.initial_state(1))
            self._weight[:1], self._count[:1] = _weights_after_first_token(1)
        ngram, self._state = self._ngram.target_probs(window.x, window.y, self._state)
        network = np.exp(-losses)
        weights = np.empty((losses.shape[0], losses.shape[1] + 1), np.float32)
        weights[:, 0] = self._weight
        weights[:, 1:], self._weight, self._count = adapt_weights(self._weight, self._count, network, ngram)
        before = weights[:, :-1]  # of each token, adapted to those before it
        mixed: np.ndarray = -np.log(before * network + (1.0 - before) * ngram)
        return mixed


def _weights_after_first_token(segments: int) -> tuple[np.ndarray, np.ndarray]:
    """The initial weights after the token before the first target, which counts as read but does not move them."""
    weight, count = initial_weights(segments)
    return move_weights(weight, count, weight)
