"""The validation loss of a network that is being trained, on the definition that `llm evaluate` uses.

The mean cross-entropy, in nats, over every token of the validation text but the first, with the state zero at the
text's start and then carried. For speed, the text is divided into segments that are processed as a batch.
"""

import tensorflow as tf

from quickfox.data.batching import count_validation_segments, iter_validation_windows
from quickfox.data.dataset import Tokens
from quickfox.training.engine.train_step import concatenate_rows, cross_entropy, num_microbatches, split_rows
from quickfox.training.networks.matmul import Tensor
from quickfox.training.networks.network import Network, State

VALIDATION_SEGMENTS = 64
VALIDATION_WARM_UP = 256  # tokens, at least; in practice a recurrent state depends on fewer


class Validation:
    """Measures the validation loss of one network on one text.

    Each segment is processed after a warm-up on the tokens before it (see `iter_validation_windows`). With attention,
    the warm-up is at least a whole context, so each token attends to the same positions as with a carried state.

    Args:
        network: the network.
        tokens: the validation text; empty: none.
        window: tokens per forward pass.
        threads: processor threads of this process.
    """

    def __init__(self, network: Network, tokens: Tokens, window: int, threads: int) -> None:
        self._network = network
        self.tokens = tokens
        self._window = window
        self._threads = threads
        self.window_loss = tf.function(self._window_loss, autograph=False)

    def loss(self) -> float | None:
        """The validation loss, nats per token; None without a validation text."""
        tokens, window = self.tokens, self._window
        if tokens.num_targets == 0:
            return None
        warm_up = -(-max(VALIDATION_WARM_UP, self._network.config.context or 0) // window) * window
        segments = count_validation_segments(len(tokens), VALIDATION_SEGMENTS, warm_up)
        state, total = self._network.initial_state(segments), 0.0
        for part in iter_validation_windows(tokens.ids, VALIDATION_SEGMENTS, window, warm_up, tokens.loss_mask):
            if part.reset_first:
                state = self._network.reset_rows(state, tf.range(segments) == 0)
            window_total, state = self.window_loss(
                tf.constant(part.x), tf.constant(part.y), tf.constant(part.weight), state
            )
            total += float(window_total)
        mean: float = total / tokens.num_targets
        return mean

    def _window_loss(self, x: Tensor, y: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        """Weighted sum of the cross-entropies of one window (segments, T), and the state after it."""
        parts = num_microbatches(x.shape[0], self._threads)
        totals, states = [], []
        for x_part, y_part, weight, state_part in split_rows((x, y, weights, state), parts):
            logits, new_state = self._network.forward(x_part, state_part)
            totals.append(tf.reduce_sum(cross_entropy(logits, y_part) * tf.transpose(weight)))
            states.append(new_state)
        return tf.add_n(totals), concatenate_rows(states)
