"""ModelConfig -> trainable network: Keras layers that own the weights, and one function that runs them.

A network holds stock Keras layers, so that its weights are where Keras, its exporters and its GPU kernels
expect them. On a GPU they run as they are (cuDNN); on a processor their arithmetic is done by
`recurrent_kernels`, which is faster there. `parameters()` maps the contract's names to their variables.
"""

from typing import Any

import keras
import tensorflow as tf

from quickfox.config import ModelConfig, Precision
from quickfox.models.parameters import LSTM_GATES, parameter_shapes
from quickfox.training.recurrent_kernels import dense, look_up, lstm

Tensor = Any
State = tuple[tuple[Tensor, Tensor], ...]


class LSTMNetwork:
    """Embedding -> stack of LSTM layers -> dense: logits of the next token (equations: `recurrent_kernels.lstm`).

    Initial weights: embeddings normal with unit variance; input and output kernels Glorot-uniform; recurrent kernels
    orthogonal (Saxe et al. 2014); forget biases 1 (Jozefowicz et al. 2015), all other biases 0.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        self.config = config
        self.compute_dtype = tf.bfloat16 if precision == "bfloat16" else tf.float32
        seeds = iter(range(random_seed, random_seed + 2**20))

        def initializer(kind: Any, **arguments: Any) -> Any:
            return kind(seed=next(seeds) % 2**31, **arguments)

        self.embedding = keras.layers.Embedding(
            config.vocabulary_size,
            config.embedding_dim,
            embeddings_initializer=initializer(keras.initializers.RandomNormal, stddev=1.0),
        )
        self.recurrent = [
            keras.layers.LSTM(
                config.hidden_dim,
                return_sequences=True,
                return_state=True,
                kernel_initializer=initializer(keras.initializers.GlorotUniform),
                recurrent_initializer=initializer(keras.initializers.Orthogonal),
            )
            for _ in range(config.num_layers)
        ]
        self.output = keras.layers.Dense(
            config.vocabulary_size, kernel_initializer=initializer(keras.initializers.GlorotUniform)
        )
        self._build()

    def _build(self) -> None:
        config = self.config
        self.embedding.build((None, None))
        for layer, recurrent in enumerate(self.recurrent):
            recurrent.build((None, None, config.embedding_dim if layer == 0 else config.hidden_dim))
        self.output.build((None, None, config.hidden_dim))

    def parameters(self) -> dict[str, Any]:
        """Name in the contract -> tf.Variable, in the contract's order."""
        variables = [self.embedding.embeddings]
        for layer in self.recurrent:
            variables += [layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias]
        variables += [self.output.kernel, self.output.bias]
        return dict(zip(parameter_shapes(self.config), [variable.value for variable in variables], strict=True))

    def matrix_blocks(self) -> dict[str, int]:
        """The large matrices by name, and the number of gates whose maps stand side by side in each."""
        return {name: LSTM_GATES for name in self.parameters() if name.endswith("_kernel")}

    def initial_state(self, batch_size: int) -> State:
        """Zeros: for each layer h and c, (B, H) float32."""
        zeros = tf.zeros([batch_size, self.config.hidden_dim])
        return tuple((zeros, zeros) for _ in self.recurrent)

    def forward(
        self, token_ids: Tensor, state: State, dropout: float = 0.0, seed: Tensor = None
    ) -> tuple[Tensor, State]:
        """Logits for each position of a window, and the state after it.

        Args:
            token_ids: (B, T) int32, both static.
            state: as `initial_state`.
            dropout: share of each recurrent layer's outputs that is dropped, one mask for all time steps of a
                sequence (Gal & Ghahramani 2016, "variational dropout").
            seed: (2,) int32, needed with dropout: fixes the masks.

        Returns:
            logits (T, B, V) float32, TIME-major, and the new state.
        """
        if tf.config.list_physical_devices("GPU"):
            return self.forward_stock(token_ids, state, dropout, seed)
        token_ids = tf.transpose(token_ids)  # (T, B)
        inputs, new_state = None, []
        for layer, (recurrent, (h, c)) in enumerate(zip(self.recurrent, state, strict=True)):
            kernel, bias = recurrent.cell.kernel.value, recurrent.cell.bias.value
            if layer == 0:
                projected = self._project_tokens(token_ids, kernel, bias)
            else:
                projected = tf.cast(dense(inputs, kernel, bias, self.compute_dtype), self.compute_dtype)
            inputs, h, c = lstm(projected, recurrent.cell.recurrent_kernel.value, h, c, self.compute_dtype)
            inputs = _drop(inputs, dropout, seed, layer)
            new_state.append((h, c))
        logits = dense(inputs, self.output.kernel.value, self.output.bias.value, self.compute_dtype)
        return logits, tuple(new_state)

    def _project_tokens(self, token_ids: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """The first layer's x W + b, (T, B, 4H): by a table of all tokens where that is less work."""
        embeddings = self.embedding.embeddings.value
        steps, batch = token_ids.shape
        if self.config.vocabulary_size <= steps * batch:
            return look_up(tf.matmul(embeddings, kernel) + bias, token_ids, self.compute_dtype)
        projected = dense(tf.gather(embeddings, token_ids), kernel, bias, self.compute_dtype)
        return tf.cast(projected, self.compute_dtype)

    def forward_stock(self, token_ids: Tensor, state: State, dropout: float, seed: Tensor) -> tuple[Tensor, State]:
        """The same through the stock Keras layers, which choose cuDNN on a GPU."""
        inputs, new_state = self.embedding(token_ids), []
        for layer, (recurrent, layer_state) in enumerate(zip(self.recurrent, state, strict=True)):
            inputs, h, c = recurrent(inputs, initial_state=list(layer_state))
            inputs = tf.transpose(_drop(tf.transpose(inputs, [1, 0, 2]), dropout, seed, layer), [1, 0, 2])
            new_state.append((h, c))
        return tf.transpose(self.output(inputs), [1, 0, 2]), tuple(new_state)


def _drop(outputs: Tensor, dropout: float, seed: Tensor, layer: int) -> Tensor:
    """Variational dropout of (T, B, H): one mask (B, H) for all time steps."""
    if dropout == 0.0:
        return outputs
    uniform = tf.random.stateless_uniform(outputs.shape[1:], tf.stack([seed[0], seed[1] * 64 + layer]))
    mask = tf.cast(uniform >= dropout, tf.float32) / (1.0 - dropout)
    return outputs * tf.cast(mask, outputs.dtype)


_NETWORKS = {"lstm": LSTMNetwork}


def build_network(config: ModelConfig, random_seed: int, precision: Precision) -> LSTMNetwork:
    """The network that `config` describes, with fresh weights that depend on `random_seed` alone."""
    return _NETWORKS[config.architecture](config, random_seed, precision)
