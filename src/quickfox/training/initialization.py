"""Where initial weights come from: one random seed for a network, another for each of its tensors. And precision."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from quickfox.config import Precision

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
