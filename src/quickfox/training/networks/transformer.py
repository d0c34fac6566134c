"""The trainable transformer: decoder-only, in exactly the parameterisation of Llama.

Equations and papers stand in `models/transformer`.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.models.parameters import parameter_shapes
from quickfox.training.networks.attention_kernels import (
    add_and_norm,
    attention,
    empty_cache,
    restarted,
    rotary_tables,
    swiglu,
)
from quickfox.training.networks.layers import Dropout, compute_dtype_of, seeded_initializers
from quickfox.training.networks.matmul import look_up, product, transposed

Tensor = Any
State = tuple[tuple[Tensor, ...], ...]


class TransformerNetwork:
    """Embedding -> layers of attention and feed-forward, each added to its input -> norm -> output.

    See `networks.Network`. Initial weights: norms 1; embeddings normal with unit variance; kernels normal with the
    variance 1 / inputs; those that add to the residual stream smaller by the root of their number (Radford et al.
    2019, "GPT-2"), so that the stream does not grow with the depth. A tied embedding must serve as output kernel too,
    and is drawn like one.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        assert config.context is not None
        self.config = config
        self.compute_dtype = compute_dtype_of(precision)
        self._cache_shape = (config.num_heads, config.context, config.hidden_dim // config.num_heads)
        initializer = seeded_initializers(random_seed)
        self._parameters = {
            name: tf.Variable(_initial_weight(name, shape, config, initializer), name=name)
            for name, shape in parameter_shapes(config).items()
        }

    def parameters(self) -> dict[str, Any]:
        """Name in the contract -> tf.Variable, in the contract's order."""
        return dict(self._parameters)

    def initial_state(self, batch_size: int) -> State:
        """Empty caches."""
        return tuple(empty_cache(batch_size, *self._cache_shape) for _ in range(self.config.num_layers))

    def with_restarts(self, state: State, rows: Tensor) -> State:
        """The state with those rows (B,) bool as in the beginning."""
        return tuple(restarted((keys, values, read), rows) for keys, values, read in state)

    def forward(
        self, token_ids: Tensor, state: State, dropout: float = 0.0, seed: Tensor = None
    ) -> tuple[Tensor, State]:
        """Logits for each position of a window, and the state after it: see `networks.Network.forward`.

        Dropout is that of the embedding and of what each half of a layer adds (Vaswani et al. 2017, 5.4).
        """
        masks = Dropout(dropout, seed)
        angles = rotary_tables(state[0][2], token_ids.shape[1], self._cache_shape[2])
        x = masks.each(self._embedded(token_ids), 0)  # (B, T, H) float32
        update, new_state = tf.zeros_like(x, self.compute_dtype), []
        for layer, (keys, values, positions_read) in enumerate(state):
            name = f"layers.{layer}"
            x, normed = add_and_norm(x, update, self.compute_dtype)
            projected = self._product(normed, f"{name}.attention.input_kernel", f"{name}.attention_norm.weight")
            found, cache = attention(projected, (keys, values, positions_read), self.compute_dtype, angles)
            update = masks.each(self._product(found, f"{name}.attention.output_kernel"), 2 * layer + 1)
            x, normed = add_and_norm(x, update, self.compute_dtype)
            fed = self._product(normed, f"{name}.feed_forward.input_kernel", f"{name}.feed_forward_norm.weight")
            update = masks.each(self._product(swiglu(fed), f"{name}.feed_forward.output_kernel"), 2 * layer + 2)
            new_state.append(cache)
        _, normed = add_and_norm(x, update, self.compute_dtype)
        output = "embedding.weight" if self.config.tied_embeddings else "output.kernel"
        logits = self._product(tf.transpose(normed, [1, 0, 2]), output, "norm.weight")  # (T, B, V)
        return tf.cast(logits, tf.float32), tuple(new_state)

    def _embedded(self, token_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, H) float32."""
        table = self._parameters["embedding.weight"]
        if table.shape[0] <= token_ids.shape[0] * token_ids.shape[1]:
            return look_up(table, token_ids, tf.float32)
        return tf.gather(table, token_ids)

    def _product(self, inputs: Tensor, name: str, norm: str | None = None) -> Tensor:
        """(B, T, D) -> (B, T, N) by the matrix `name`, with the weights of `norm` for its rows."""
        kernel = self._parameters[name]
        if name == "embedding.weight":
            kernel = transposed(kernel)  # (V, H) -> (H, V)
        if norm is not None:
            kernel = self._parameters[norm][:, None] * kernel
        return product(inputs, kernel, self.compute_dtype)


def _initial_weight(name: str, shape: tuple[int, ...], config: ModelConfig, initializer: Any) -> Tensor:
    if len(shape) == 1:
        return tf.ones(shape)
    if name == "embedding.weight":
        deviation = config.hidden_dim**-0.5 if config.tied_embeddings else 1.0
    else:
        deviation = shape[0] ** -0.5
        if name.endswith("output_kernel"):
            deviation /= math.sqrt(2 * config.num_layers)
    return initializer(keras.initializers.RandomNormal, stddev=deviation)(shape)
