"""The base class of the trainable networks, and what they have in common: dropout and seeded initialization.

Dropout applies in training only: it zeroes a random fraction of a layer's outputs and scales up the rest (Srivastava
et al. 2014, "Dropout"). A mask is a function of a seed, not of a generator's state, so a resumed run applies the same
masks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.training.networks.matmul import Tensor

LayerState = tuple[Tensor, ...]
State = tuple[LayerState, ...]
Initializer = Callable[..., Any]

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

    def _apply_mask(self, outputs: Tensor, shape: Any, mask_index: int) -> Tensor:
        if self.rate == 0.0:
            return outputs
        uniform = tf.random.stateless_uniform(shape, tf.stack([self.seed[0], self.seed[1] * _MAX_MASKS + mask_index]))
        mask = tf.cast(uniform >= self.rate, tf.float32) / (1.0 - self.rate)
        return outputs * tf.cast(mask, outputs.dtype)


NO_DROPOUT = Dropout()


def seeded_initializers(random_seed: int) -> Initializer:
    """Returns a function (Keras initializer class, its arguments) -> initializer; each call uses the next seed."""
    seeds = iter(range(random_seed, random_seed + 2**20))

    def initializer(kind: Any, **arguments: Any) -> Any:
        return kind(seed=next(seeds) % 2**31, **arguments)

    return initializer


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
    def initial_state(self, batch_size: int) -> State:
        """The state before the first token of `batch_size` sequences: zeros, each tensor (B, ...)."""

    @abstractmethod
    def reset_rows(self, state: State, is_reset: Tensor) -> State:
        """The state, with the initial state in the rows where `is_reset` (B,) bool is true."""

    @abstractmethod
    def forward(self, token_ids: Tensor, state: State, dropout: Dropout = NO_DROPOUT) -> tuple[Tensor, State]:
        """Logits at each position of a window, and the state after it.

        Args:
            token_ids: (B, T) int32, both static.
            state: as returned by `initial_state` or for the previous window; receives no gradient.
            dropout: the masks of the layers' outputs.

        Returns:
            logits (T, B, V) float32, TIME-major, and the new state.
        """
