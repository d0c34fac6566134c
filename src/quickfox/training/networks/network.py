"""The base class of the trainable networks, and what they have in common: dropout, seeded initialization, n-gram gate.

Dropout applies in training only: it zeroes a random fraction of a layer's outputs and scales up the rest (Srivastava
et al. 2014, "Dropout"). A mask is a function of a seed, not of a generator's state, so a resumed run applies the same
masks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.models.parameters import EMBEDDING, MEDIA_EMBEDDING, MEDIA_KERNEL, parameter_shapes
from quickfox.training.networks.matmul import Tensor, embedding_lookup, matmul

LayerState = tuple[Tensor, ...]
State = tuple[LayerState, ...]
Initializer = Callable[..., Any]
PriorTensors = tuple[Tensor, ...]
"""What an n-gram model says after each token: the logarithms of its distribution (B, T, V) float32, and the length of
the longest context that it knows (B, T) int32. Empty: the logits are those of the network alone."""

FrameTensors = tuple[Tensor, ...]
"""The scaled numbers of the frame at each position (B, T, F) float32, zeros where there is none; empty: none at all."""

PRIOR_DROPOUT = 0.3
"""Fraction of the positions at which training leaves out the n-gram term, so that the network also learns to predict
without it; without this, it overfits in more than two epochs (benchmarks/LOG.md)."""

_MAX_MASKS = 256  # per network; more than the deepest network has


@dataclass(frozen=True)
class Dropout:
    """The dropout masks of one step.

    Attributes:
        rate: fraction of the outputs that is zeroed, in [0, 1).
        seed: (2,) int32, different for each step and microbatch; required unless the rate is 0.
    """

    rate: float = 0.0
    seed: Tensor = None

    def apply(self, outputs: Tensor, mask_index: int) -> Tensor:
        """Standard dropout of `outputs` of any shape; `mask_index` distinguishes the masks of one step."""
        return self._apply_mask(outputs, outputs.shape, mask_index)

    def apply_variational(self, outputs: Tensor, mask_index: int) -> Tensor:
        """Dropout of (T, B, H) with one mask (B, H) for all time steps.

        Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
        """
        return self._apply_mask(outputs, outputs.shape[1:], mask_index)

    def uniform(self, shape: Any, mask_index: int) -> Tensor:
        """Random numbers in [0, 1) of this step, different for each `mask_index`."""
        return tf.random.stateless_uniform(shape, tf.stack([self.seed[0], self.seed[1] * _MAX_MASKS + mask_index]))

    def _apply_mask(self, outputs: Tensor, shape: Any, mask_index: int) -> Tensor:
        if self.rate == 0.0:
            return outputs
        uniform = self.uniform(shape, mask_index)
        mask = tf.cast(uniform >= self.rate, tf.float32) / (1.0 - self.rate)
        return outputs * tf.cast(mask, outputs.dtype)


NO_DROPOUT = Dropout()


def seeded_initializers(random_seed: int) -> Initializer:
    """Returns a function (Keras initializer class, its arguments) -> initializer; each call uses the next seed."""
    seeds = iter(range(random_seed, random_seed + 2**20))

    def initializer(kind: Any, **arguments: Any) -> Any:
        return kind(seed=next(seeds) % 2**31, **arguments)

    return initializer


def media_deviations(config: ModelConfig) -> dict[str, float]:
    """The standard deviation of the initial weights of each tensor for signals, in the order of `parameter_shapes`."""
    assert config.media is not None
    return {MEDIA_EMBEDDING: 1.0, MEDIA_KERNEL: config.media.frame_dim**-0.5}


class Network(ABC):
    """A trainable language model.

    It owns its weights as TensorFlow variables, named as in `models/parameters.py`, and computes logits from them. The
    NumPy model of the same architecture in `models/` computes the same function.

    Attributes:
        config: determines the architecture and all shapes.
        compute_dtype: of the matrix products; everything else is float32.
    """

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        self.config = config
        self.compute_dtype = tf.as_dtype(precision)
        self._parameters: dict[str, Any] = {}  # filled by each subclass

    def parameters(self) -> dict[str, Any]:
        """Parameter name -> tf.Variable, in the order of `parameter_shapes`."""
        return dict(self._parameters)

    @abstractmethod
    def initial_state(self, batch_size: int, context: int | None = None) -> State:
        """The state before the first token of `batch_size` sequences: zeros, each tensor (B, ...).

        It has space for `context` earlier positions to attend to; None: for those of the configuration; 0: the
        sequences are not longer than a window.
        """

    @abstractmethod
    def reset_rows(self, state: State, is_reset: Tensor) -> State:
        """The state, with the initial state in the rows where `is_reset` (B,) bool is true."""

    @abstractmethod
    def hidden(
        self, token_ids: Tensor, state: State, dropout: Dropout = NO_DROPOUT, frames: FrameTensors = ()
    ) -> tuple[Tensor, State]:
        """The inputs of the output layer at each position of a window, and the state after it.

        Args:
            token_ids: (B, T) int32, both static; above the vocabulary for signals, see `models/inputs.py`.
            state: as returned by `initial_state` or for the previous window; receives no gradient.
            dropout: the masks of the layers' outputs.
            frames: of a network that reads signals, the numbers of the frame at each position.

        Returns:
            (T, B, H) in any dtype, TIME-major, and the new state.
        """

    @abstractmethod
    def output(self, hidden: Tensor) -> Tensor:
        """The logits of the network alone: (T, B, H) -> (T, B, V) float32."""

    def prior_term(self, hidden: Tensor, prior: PriorTensors, dropout: Dropout = NO_DROPOUT) -> Tensor:
        """What the n-gram gate adds to the logits, (T, B, V) float32; see `models/ngram/gate.py`.

        Args:
            hidden: (T, B, H).
            prior: of the n-gram model, not empty.
            dropout: with a seed, the term is left out at random positions.
        """
        log_probs, lengths = prior
        kernel, bias = (self._parameters[f"ngram_gate.{name}"] for name in ("kernel", "length_bias"))
        hidden = tf.cast(hidden, tf.float32)
        scale = 1.0 + tf.linalg.matvec(hidden, kernel) + tf.transpose(tf.gather(bias, lengths))  # (T, B)
        if dropout.seed is not None:
            uniform = dropout.uniform(scale.shape, _MAX_MASKS - 1)
            scale *= tf.cast(uniform >= PRIOR_DROPOUT, tf.float32)
        return scale[..., None] * tf.transpose(log_probs, [1, 0, 2])

    def forward(
        self,
        token_ids: Tensor,
        state: State,
        dropout: Dropout = NO_DROPOUT,
        prior: PriorTensors = (),
        frames: FrameTensors = (),
    ) -> tuple[Tensor, State]:
        """Logits at each position of a window, (T, B, V) float32, TIME-major, and the state after it.

        Args: as for `hidden` and `prior_term`.
        """
        hidden, new_state = self.hidden(token_ids, state, dropout, frames)
        logits = self.output(hidden)
        return logits + self.prior_term(hidden, prior, dropout) if prior else logits, new_state

    def _embed(self, token_ids: Tensor, frames: FrameTensors) -> Tensor:
        """The inputs of the lowest layer, (..., ..., D) float32: token_ids (B, T) or (T, B), as the frames."""
        table = self._parameters[EMBEDDING]
        if self.config.media is not None:
            table = tf.concat([table, self._parameters[MEDIA_EMBEDDING]], axis=0)  # (V + 2 + P, D)
        if table.shape[0] <= token_ids.shape[0] * token_ids.shape[1]:
            inputs = embedding_lookup(table, token_ids, tf.float32)
        else:
            inputs = tf.gather(table, token_ids)
        if frames:
            inputs += tf.cast(matmul(frames[0], self._parameters[MEDIA_KERNEL], self.compute_dtype), tf.float32)
        return inputs

    def _last_variables(self, initializer: Initializer) -> list[Any]:
        """The last variables: of the n-gram gate, zeros; of signals, normal, so that inputs have unit variance."""
        shapes = parameter_shapes(self.config)
        variables = [tf.Variable(tf.zeros(shape)) for name, shape in shapes.items() if name.startswith("ngram_gate.")]
        if self.config.media is not None:
            variables += [
                tf.Variable(initializer(keras.initializers.RandomNormal, stddev=stddev)(shapes[name]))
                for name, stddev in media_deviations(self.config).items()
            ]
        return variables
