"""The validation loss of a network that is being trained, on the definition that `llm evaluate` uses.

The mean cross-entropy, in nats, over every token of the validation text but the first, with the state zero at the
text's start and then carried. For speed, the text is divided into segments that are processed as a batch. With n-gram
tables, the loss is that of the mixture (see `models/mixture.py`).
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.data.batching import ValidationWindow, count_validation_segments, iter_validation_windows
from quickfox.data.dataset import Tokens
from quickfox.models.language_model import Prior, replace_first
from quickfox.models.losses import cross_entropy as mixture_cross_entropy
from quickfox.models.mixture import initial_mixing, mix
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.tokenizers.base import UnknownToken
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.engine.progress import ValidationStoppedError
from quickfox.training.engine.train_step import concatenate_rows, cross_entropy, num_microbatches, split_rows
from quickfox.training.networks.matmul import Tensor
from quickfox.training.networks.network import Network, PriorTensors, State

VALIDATION_SEGMENTS = 64
VALIDATION_WARM_UP = 256  # tokens, at least; in practice a recurrent state depends on fewer


@dataclass(frozen=True)
class ValidationLoss:
    """The losses of a model on the validation text, nats per token.

    Attributes:
        loss: of the model: the mixture, or the network if there are no n-gram tables.
        network_loss: of the network alone, without its n-gram gate.
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

    def loss(self, stop_requested: Callable[[], bool] = lambda: False) -> ValidationLoss | None:
        """The validation loss; None without a validation text. Waits for the n-gram tables.

        Args:
            stop_requested: polled after each window.

        Raises:
            ValidationStoppedError: it returned true.
        """
        if self.tokens.num_targets == 0:
            return None

        def poll(sums: tuple[float, float]) -> tuple[float, float]:
            if stop_requested():
                raise ValidationStoppedError
            return sums

        *_, (total, mixture_total) = map(poll, self._running_sums())
        network_loss = total / self.tokens.num_targets
        return ValidationLoss(mixture_total / self.tokens.num_targets if self._ngrams else network_loss, network_loss)

    def estimate_seconds(self) -> float:
        """An estimate of the seconds that `loss` takes, from its second and third window, as the first one is slower.

        0 if there are fewer windows. Waits for the n-gram tables.
        """
        if self.tokens.num_targets == 0:
            return 0.0
        sums = self._running_sums()
        next(sums)
        started = time.perf_counter()
        measured = sum(1 for _ in itertools.islice(sums, 2))
        seconds = time.perf_counter() - started
        return sum(1 for _ in self._windows()) * seconds / measured if measured else 0.0

    def _windows(self) -> Iterator[ValidationWindow]:
        tokens = self.tokens
        return iter_validation_windows(tokens.ids, VALIDATION_SEGMENTS, self._window, self._warm_up(), tokens.loss_mask)

    def _warm_up(self) -> int:
        """A multiple of the window."""
        return -(-max(VALIDATION_WARM_UP, self._network.config.context or 0) // self._window) * self._window

    def _running_sums(self) -> Iterator[tuple[float, float]]:
        """After each window, the sums of the losses of the network and of the mixture so far."""
        segments = count_validation_segments(len(self.tokens), VALIDATION_SEGMENTS, self._warm_up())
        mixture = _Mixture(self._ngrams.tables.model, self._network.config, segments) if self._ngrams else None
        state, total, mixture_total = self._network.initial_state(segments), 0.0, 0.0
        unknown = self.tokens.unknown_token
        for part in self._windows():
            if part.reset_first:
                state = self._network.reset_rows(state, tf.range(segments) == 0)
            prior = mixture.read(part) if mixture else None
            tensors = tuple(map(tf.constant, prior)) if prior and self._network.config.ngram_gate else ()
            losses, logits, state = self.window_losses(tf.constant(part.x), tf.constant(part.y), tensors, state)
            total += _weighted_sum(losses.numpy().astype(np.float64), part, unknown)
            if mixture and prior:
                mixture_total += _weighted_sum(mixture.losses(part, logits.numpy(), prior, unknown), part, unknown)
            yield total, mixture_total

    def _window_losses(self, x: Tensor, y: Tensor, prior: PriorTensors, state: State) -> tuple[Tensor, Tensor, State]:
        """Processes one window of S segments.

        Returns:
            The cross-entropies (S, T) of the network alone; its logits (S, T, V), with its n-gram gate if there is a
            prior; and the state after the window.
        """
        losses, logits, states = [], [], []
        parts = split_rows((x, y, prior, state), num_microbatches(x.shape[0], self._threads))
        for x_part, y_part, prior_part, state_part in parts:
            hidden, new_state = self._network.hidden(x_part, state_part)
            alone = self._network.output(hidden)  # (T, S, V)
            losses.append(cross_entropy(self._exclude_unknown(alone), y_part))
            logits.append(alone + self._network.prior_term(hidden, prior_part) if prior_part else alone)
            states.append(new_state)
        all_losses, all_logits = tf.concat(losses, axis=1), tf.concat(logits, axis=1)
        return tf.transpose(all_losses), tf.transpose(all_logits, [1, 0, 2]), concatenate_rows(states)

    def _exclude_unknown(self, logits: Tensor) -> Tensor:
        """The logits (T, S, V) of the network without the unknown token."""
        unknown = self.tokens.unknown_token
        if unknown is None:
            return logits
        return tf.where(tf.range(logits.shape[-1]) == unknown.token_id, logits.dtype.min, logits)


def _weighted_sum(losses: np.ndarray, window: ValidationWindow, unknown: UnknownToken | None) -> float:
    """The sum over the targets of cross-entropies (S, T) float64 of a model without the unknown token."""
    if unknown is not None:
        unknown.add_cost(losses, window.y)
    return float((losses * window.weight).sum(dtype=np.float64))


class _Mixture:
    """The mixture of the network with the n-gram model, window by window."""

    def __init__(self, ngram: NgramLanguageModel, config: ModelConfig, segments: int) -> None:
        self._ngram = ngram
        self._vocabulary_size = config.vocabulary_size
        self._ngram_state = ngram.initial_state(segments)
        self._mixing = initial_mixing(segments, self._vocabulary_size)

    def read(self, window: ValidationWindow) -> Prior:
        """What the n-gram model says after each token of the next window."""
        if window.reset_first:
            self._ngram_state = replace_first(self._ngram_state, self._ngram.initial_state(1))
            (self._mixing,) = replace_first((self._mixing,), (initial_mixing(1, self._vocabulary_size),))
        prior, self._ngram_state = self._ngram.prior(window.x, self._ngram_state)
        return prior

    def losses(
        self, window: ValidationWindow, logits: np.ndarray, prior: Prior, unknown: UnknownToken | None
    ) -> np.ndarray:
        """The cross-entropies (S, T) of the window that was read; `logits` (S, T, V) are those of the network."""
        mixed, self._mixing = mix(logits, prior.log_probs, window.x, self._mixing)
        if unknown is not None:
            mixed[..., unknown.token_id] = -np.inf
        return mixture_cross_entropy(mixed, window.y)
