"""The trainable transformer: decoder-only, in the parameterization of Llama.

For equations and papers see `models/transformer.py`.
"""

import math

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.models.parameters import parameter_shapes
from quickfox.training.networks.attention_kernels import (
    add_and_norm,
    attention,
    empty_cache,
    reset_cache_rows,
    rotary_tables,
    swiglu,
)
from quickfox.training.networks.matmul import Tensor, matmul, transpose
from quickfox.training.networks.network import (
    NO_DROPOUT,
    Dropout,
    FrameTensors,
    Initializer,
    Network,
    State,
    media_deviations,
    seeded_initializers,
)


class TransformerNetwork(Network):
    """Embedding -> layers of attention and feed-forward with residual connections -> norm -> output.

    Initial weights: norms 1; embeddings normal with unit variance; kernels normal with variance 1 / inputs; output
    kernels of the sublayers divided by the square root of the number of sublayers, so that the variance of the residual
    stream does not grow with depth (Radford et al. 2019, "GPT-2"). A tied embedding is also the output kernel and is
    initialized like one.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        super().__init__(config, precision)
        initializer = seeded_initializers(random_seed)
        self._parameters = {
            name: tf.Variable(_initial_weight(name, shape, config, initializer), name=name)
            for name, shape in parameter_shapes(config).items()
        }

    def initial_state(self, batch_size: int, context: int | None = None) -> State:
        return tuple(empty_cache(self.config, batch_size, context) for _ in range(self.config.num_layers))

    def reset_rows(self, state: State, is_reset: Tensor) -> State:
        return tuple(reset_cache_rows(cache, is_reset) for cache in state)

    def hidden(
        self, token_ids: Tensor, state: State, dropout: Dropout = NO_DROPOUT, frames: FrameTensors = ()
    ) -> tuple[Tensor, State]:
        """As `Network.hidden`.

        Dropout applies to the embeddings and to the output of each sublayer (Vaswani et al. 2017, section 5.4).
        """
        positions_read = state[0][2]
        rotations = rotary_tables(positions_read, token_ids.shape[1], self.config.hidden_dim // self.config.num_heads)
        x = dropout.apply(self._embed(token_ids, frames), 0)  # (B, T) -> (B, T, H) float32
        update, new_state = tf.zeros_like(x, self.compute_dtype), []
        for layer, cache in enumerate(state):
            name = f"layers.{layer}"
            x, normed = add_and_norm(x, update, self.compute_dtype)
            projected = self._matmul(normed, f"{name}.attention.input_kernel", f"{name}.attention_norm.weight")
            attended, cache = attention(projected, cache, self.compute_dtype, rotations)  # (B, T, 3H) -> (B, T, H)
            update = dropout.apply(self._matmul(attended, f"{name}.attention.output_kernel"), 2 * layer + 1)
            x, normed = add_and_norm(x, update, self.compute_dtype)
            gate_and_up = self._matmul(normed, f"{name}.feed_forward.input_kernel", f"{name}.feed_forward_norm.weight")
            activated = swiglu(gate_and_up)  # (B, T, 2F) -> (B, T, F)
            update = dropout.apply(self._matmul(activated, f"{name}.feed_forward.output_kernel"), 2 * layer + 2)
            new_state.append(cache)
        _, normed = add_and_norm(x, update, self.compute_dtype)
        normed = tf.transpose(normed, [1, 0, 2])  # (B, T, H) -> (T, B, H)
        return tf.cast(normed, tf.float32) * self._parameters["norm.weight"], tuple(new_state)

    def output(self, hidden: Tensor) -> Tensor:
        kernel = "embedding.weight" if self.config.tied_embeddings else "output.kernel"
        return tf.cast(self._matmul(hidden, kernel), tf.float32)

    def _matmul(self, inputs: Tensor, name: str, norm: str | None = None) -> Tensor:
        """(B, T, D) -> (B, T, N) by the matrix `name`, its rows scaled by the weights of `norm`."""
        kernel = self._parameters[name]
        if name == "embedding.weight":
            kernel = transpose(kernel)  # (V, H) -> (H, V)
        if norm is not None:
            kernel = self._parameters[norm][:, None] * kernel
        return matmul(inputs, kernel, self.compute_dtype)


def _initial_weight(name: str, shape: tuple[int, ...], config: ModelConfig, initializer: Initializer) -> Tensor:
    if name.startswith("ngram_gate."):
        return tf.zeros(shape)
    if len(shape) == 1:
        return tf.ones(shape)
    if config.media is not None and name in media_deviations(config):
        deviation = media_deviations(config)[name]
    elif name == "embedding.weight":
        deviation = config.hidden_dim**-0.5 if config.tied_embeddings else 1.0
    else:
        deviation = shape[0] ** -0.5
        if name.endswith("output_kernel"):
            deviation /= math.sqrt(2 * config.num_layers)
    return initializer(keras.initializers.RandomNormal, stddev=deviation)(shape)
