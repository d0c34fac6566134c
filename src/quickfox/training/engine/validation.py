"""The validation loss of a network that is being trained, on the definition that `llm evaluate` uses.

The mean cross-entropy, in nats, over every token of the validation text but the first, with the state zero at the
text's start and then carried. For speed, the text is divided into segments that are processed as a batch. With n-gram
tables, the loss is that of the mixture (see `models/mixture.py`).
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from quickfox.config.model import DEFAULT_EXPONENTS
from quickfox.data.batching import ValidationWindow, count_validation_segments, iter_validation_windows
from quickfox.data.dataset import Tokens
from quickfox.data.signal_batches import SignalWindow, iter_signal_windows
from quickfox.models.language_model import LayerState, Prior, replace_first
from quickfox.models.losses import cross_entropy as mixture_cross_entropy
from quickfox.models.mixture import Predictions, fit_exponents, initial_mixing, mix
from quickfox.tokenizers.base import UnknownToken
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.engine.progress import ValidationStoppedError
from quickfox.training.engine.train_step import concatenate_rows, cross_entropy, num_microbatches, split_rows
from quickfox.training.networks.matmul import Tensor
from quickfox.training.networks.network import FrameTensors, Network, PriorTensors, State
from quickfox.training.planning.time_budget import max_validation_segments

VALIDATION_WARM_UP = 256  # tokens, at least; in practice a recurrent state depends on fewer
FIT_WARM_UP, FIT_TOKENS = 64, 128  # of each segment: read first, and then fitted by the exponents of the mixture
_MAX_FIT_LOGITS = 2**24  # of all fitted tokens together, or some of them are left out: bounds the memory
_FIT_SECONDS_PER_LOGIT = 3e-8  # of all passes over them


@dataclass(frozen=True)
class ValidationLoss:
    """The losses of a model on the validation text, nats per token.

    Attributes:
        loss: of the model: the mixture, or the network if there are no n-gram tables.
        network_loss: of the network alone, without its n-gram gate.
        exponents: with which the mixture begins each text, fitted to tokens at the start of each segment.
    """

    loss: float
    network_loss: float
    exponents: tuple[float, float] = DEFAULT_EXPONENTS


class Validation:
    """Measures the validation loss of one network on one text.

    Each segment is processed after a warm-up on the tokens before it (see `iter_validation_windows`). With attention,
    the warm-up is at least a whole context, so each token attends to the same positions as with a carried state.

    Args:
        network: the network.
        tokens: the validation text; empty: none.
        windows: tokens per forward pass; several only for documents with signals.
        threads: processor threads of this process.
        ngrams: the tables of the model; None: there are none.
    """

    def __init__(
        self,
        network: Network,
        tokens: Tokens,
        windows: Sequence[int],
        threads: int,
        ngrams: NgramEstimation | None = None,
    ) -> None:
        self._network = network
        self.tokens = tokens
        self._windows_of_signals = windows
        self._window = windows[-1]
        self._threads = threads
        self._ngrams = ngrams
        self._documents = None if tokens.frames is None else tokens.signal_documents
        self.window_losses = tf.function(self._window_losses, autograph=False)

    def loss(self, stop_requested: Callable[[], bool] = lambda: False) -> ValidationLoss | None:
        """The validation loss; None without a validation text. Waits for the n-gram tables.

        Args:
            stop_requested: polled after each window, and while the exponents of the mixture are fitted.

        Raises:
            ValidationStoppedError: it returned true.
        """
        if self.tokens.num_targets == 0:
            return None

        def poll() -> None:
            if stop_requested():
                raise ValidationStoppedError

        exponents = self._fit_exponents(poll) if self._ngrams else DEFAULT_EXPONENTS
        for total, mixture_total in self._running_sums(exponents):  # noqa: B007 - the last are the result
            poll()
        network_loss = total / self.tokens.num_targets
        loss = mixture_total / self.tokens.num_targets if self._ngrams else network_loss
        return ValidationLoss(loss, network_loss, exponents)

    def estimate_seconds(self) -> float:
        """An estimate of the seconds that `loss` takes, from its second and third window, as the first one is slower.

        0 if there are fewer windows. Waits for the n-gram tables.
        """
        if self.tokens.num_targets == 0:
            return 0.0
        sums = self._running_sums(DEFAULT_EXPONENTS)
        next(sums)
        started = time.perf_counter()
        measured = sum(1 for _ in itertools.islice(sums, 2))
        seconds = time.perf_counter() - started
        windows, fitted_logits = sum(1 for _ in self._windows()), 0
        if self._ngrams:
            windows += sum(1 for _ in self._fit_windows())
            logits = self._num_segments() * FIT_TOKENS * self._network.config.vocabulary_size
            fitted_logits = min(logits, _MAX_FIT_LOGITS)
        return windows * seconds / measured + _FIT_SECONDS_PER_LOGIT * fitted_logits if measured else 0.0

    def _windows(self) -> Iterator[ValidationWindow | SignalWindow]:
        tokens, segments = self.tokens, self._num_segments()
        if self._documents is not None:
            return iter_signal_windows(self._documents, segments, self._windows_of_signals)
        return iter_validation_windows(tokens.ids, segments, self._window, self._warm_up(), tokens.loss_mask)

    def _fit_windows(self) -> Iterator[ValidationWindow]:
        """The first tokens of each segment, read from the initial state, in windows of the same shape as the others."""
        tokens, segments = self.tokens, self._num_segments()
        windows = iter_validation_windows(tokens.ids, segments, self._window, 0, tokens.loss_mask)
        return itertools.islice(windows, -(-(FIT_WARM_UP + FIT_TOKENS) // self._window))

    def _num_segments(self) -> int:
        most = max_validation_segments(self._window, self._network.config.vocabulary_size)
        if self._documents is not None:
            return max(1, min(most, len(self._documents)))
        return count_validation_segments(len(self.tokens), most, self._warm_up())

    def _warm_up(self) -> int:
        """A multiple of the window."""
        return -(-max(VALIDATION_WARM_UP, self._network.config.context or 0) // self._window) * self._window

    def _running_sums(self, exponents: tuple[float, float]) -> Iterator[tuple[float, float]]:
        """After each window, the sums of the losses of the network and of the mixture so far.

        Args:
            exponents: of the mixture, before the first token.
        """
        total, mixture_total = 0.0, 0.0
        config, unknown = self._network.config, self.tokens.unknown_token

        def start(texts: int) -> LayerState:
            return initial_mixing(texts, config.vocabulary_size, exponents, adapts=config.exponents_adapt)

        mixing = start(self._num_segments())
        for window, losses, logits, prior in self._forward(self._windows()):
            total += _weighted_sum(losses.numpy().astype(np.float64), window, unknown)
            if prior:
                if window.reset_first:
                    (mixing,) = replace_first((mixing,), (start(1),))
                mixed, mixing = mix(logits.numpy(), prior.log_probs, window.x, mixing)
                if unknown is not None:
                    mixed[..., unknown.token_id] = -np.inf
                mixture_total += _weighted_sum(mixture_cross_entropy(mixed, window.y), window, unknown)
            yield total, mixture_total

    def _fit_exponents(self, poll: Callable[[], None]) -> tuple[float, float]:
        """The exponents with which the mixture begins each text; `poll` is called again and again, and may raise.

        Of several segments, the first tokens are not fitted: the network has not read the start of their document.
        Unknown tokens are not fitted either.
        """
        unknown = self.tokens.unknown_token
        vocabulary_size = self._network.config.vocabulary_size
        warm_up = FIT_WARM_UP if self._num_segments() > 1 else 0
        max_positions = max(1, _MAX_FIT_LOGITS // vocabulary_size * self._window // FIT_TOKENS)  # of a window
        predictions = []
        for index, (window, _, logits, prior) in enumerate(self._forward(self._fit_windows())):
            assert prior is not None, "there are n-gram tables"
            is_fitted = index * self._window + np.arange(self._window) >= warm_up
            if unknown is not None:
                is_fitted = is_fitted & (window.y != unknown.token_id)
            targets = np.flatnonzero(window.weight * is_fitted)
            chosen = targets[:: max(1, -(-len(targets) // max_positions))]
            network, ngram = (each.reshape(-1, vocabulary_size)[chosen] for each in (logits.numpy(), prior.log_probs))
            predictions.append(Predictions(network, ngram, window.y.reshape(-1)[chosen]))
            poll()
        return fit_exponents(predictions, poll)

    def _forward(
        self, windows: Iterator[ValidationWindow | SignalWindow]
    ) -> Iterator[tuple[ValidationWindow | SignalWindow, Tensor, Tensor, Prior | None]]:
        """Each window with the first two results of `_window_losses` and what the n-gram model says, if there is one.

        The state is carried from window to window.
        """
        segments = self._num_segments()
        state = self._network.initial_state(segments)
        ngram = self._ngrams.tables.model if self._ngrams else None
        ngram_state = ngram.initial_state(segments) if ngram else ()
        for window in windows:
            if isinstance(window, SignalWindow) and window.reset_first:
                state = self._network.initial_state(segments, 0 if window.is_whole else None)
            elif window.reset_first:
                state = self._network.reset_rows(state, tf.range(segments) == 0)
            prior = None
            if ngram:
                if window.reset_first:
                    ngram_state = replace_first(ngram_state, ngram.initial_state(1))
                prior, ngram_state = ngram.prior(window.x, ngram_state)
            tensors = tuple(map(tf.constant, prior)) if prior and self._network.config.ngram_gate else ()
            signals = [(tf.constant(window.frames),)] if isinstance(window, SignalWindow) else []
            inputs = tf.constant(window.x), tf.constant(window.y), tensors, state
            losses, logits, state = self.window_losses(*inputs, *signals)
            yield window, losses, logits, prior

    def _window_losses(
        self, x: Tensor, y: Tensor, prior: PriorTensors, state: State, frames: FrameTensors = ()
    ) -> tuple[Tensor, Tensor | None, State]:
        """Processes one window of S segments.

        Returns:
            The cross-entropies (S, T) of the network alone; its logits (S, T, V) if there are n-gram tables, with its
            n-gram gate if there is a prior; and the state after the window.
        """
        losses, logits, states = [], [], []
        parts = split_rows((x, y, prior, state, frames), num_microbatches(x.shape[0], self._threads))
        for x_part, y_part, prior_part, state_part, frames_part in parts:
            hidden, new_state = self._network.hidden(x_part, state_part, frames=frames_part)
            alone = self._network.output(hidden)  # (T, S, V)
            losses.append(cross_entropy(self._exclude_unknown(alone), y_part))
            if self._ngrams:
                logits.append(alone + self._network.prior_term(hidden, prior_part) if prior_part else alone)
            states.append(new_state)
        all_logits = tf.transpose(tf.concat(logits, axis=1), [1, 0, 2]) if self._ngrams else None
        return tf.transpose(tf.concat(losses, axis=1)), all_logits, concatenate_rows(states)

    def _exclude_unknown(self, logits: Tensor) -> Tensor:
        """The logits (T, S, V) of the network without the unknown token."""
        unknown = self.tokens.unknown_token
        if unknown is None:
            return logits
        return tf.where(tf.range(logits.shape[-1]) == unknown.token_id, logits.dtype.min, logits)


def _weighted_sum(losses: np.ndarray, window: ValidationWindow | SignalWindow, unknown: UnknownToken | None) -> float:
    """The sum over the targets of cross-entropies (S, T) float64 of a model without the unknown token."""
    if unknown is not None:
        unknown.add_cost(losses, window.y)
    return float((losses * window.weight).sum(dtype=np.float64))
