"""The parts that networks have in common: dropout, seeded initialization, embedding and output layers.

Dropout applies in training only: it zeroes a random fraction of a layer's outputs and scales up the rest (Srivastava
et al. 2014, "Dropout"). A mask is a function of a seed, not of a generator's state, so a resumed run applies the same
masks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision

Tensor = Any  # TensorFlow ships no useful types
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


def embedding_layer(config: ModelConfig, initializer: Initializer) -> Any:
    """A built Keras embedding layer, (V, D), normal with unit variance."""
    layer = keras.layers.Embedding(
        config.vocabulary_size,
        config.embedding_dim,
        embeddings_initializer=initializer(keras.initializers.RandomNormal, stddev=1.0),
    )
    layer.build((None, None))
    return layer


def output_layer(config: ModelConfig, initializer: Initializer) -> Any:
    """A built Keras dense layer from hidden units to logits, (H, V), Glorot-uniform (Glorot & Bengio 2010), bias 0."""
    layer = keras.layers.Dense(config.vocabulary_size, kernel_initializer=initializer(keras.initializers.GlorotUniform))
    layer.build((None, None, config.hidden_dim))
    return layer


def compute_dtype_of(precision: Precision) -> Any:
    """The TensorFlow dtype of the matrix products."""
    return tf.bfloat16 if precision == "bfloat16" else tf.float32
