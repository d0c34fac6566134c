"""Dropout, in training only: random shares of a layer's outputs are zero, the rest scaled up.

(Srivastava et al. 2014, "Dropout".) A mask is a function of a seed, never of a generator's state, so that a resumed
run draws the same ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from quickfox.config.training import Precision

Tensor = Any

_PLACES = 256  # more than a network of the most layers has


@dataclass(frozen=True)
class Dropout:
    """The masks of one step.

    Attributes:
        rate: share that is dropped, in [0, 1).
        seed: (2,) int32, another for each step and lane; needed unless the rate is 0.
    """

    rate: float = 0.0
    seed: Tensor = None

    def each(self, outputs: Tensor, place: int) -> Tensor:
        """`outputs` of any shape, each number dropped or not by itself; `place` tells the masks of a step apart."""
        return self._masked(outputs, outputs.shape, place)

    def same_over_time(self, outputs: Tensor, place: int) -> Tensor:
        """(T, B, H) with one mask (B, H) for all time steps (Gal & Ghahramani 2016, "variational dropout")."""
        return self._masked(outputs, outputs.shape[1:], place)

    def _masked(self, outputs: Tensor, shape: Any, place: int) -> Tensor:
        if self.rate == 0.0:
            return outputs
        uniform = tf.random.stateless_uniform(shape, tf.stack([self.seed[0], self.seed[1] * _PLACES + place]))
        mask = tf.cast(uniform >= self.rate, tf.float32) / (1.0 - self.rate)
        return outputs * tf.cast(mask, outputs.dtype)


NO_DROPOUT = Dropout()

Initializer = Callable[..., Any]


def seeded_initializers(random_seed: int) -> Initializer:
    """A function (kind of Keras initializer, its arguments) -> an initializer with the next seed in turn."""
    seeds = iter(range(random_seed, random_seed + 2**20))

    def initializer(kind: Any, **arguments: Any) -> Any:
        return kind(seed=next(seeds) % 2**31, **arguments)

    return initializer


def compute_dtype_of(precision: Precision) -> Any:
    """The TensorFlow type of the matrix products."""
    return tf.bfloat16 if precision == "bfloat16" else tf.float32
