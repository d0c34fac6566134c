"""Recurrent layers, one upon the other, trainable: Keras layers that own the weights, and what runs them.

The layers are stock Keras ones, so that their weights are where Keras, its exporters and its GPU kernels expect them.
On a GPU they run as they are (cuDNN); on a processor their arithmetic is done by `recurrent_kernels`, which is faster
there.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.models.parameters import parameter_shapes, recurrent_cell
from quickfox.training.networks.layers import Dropout, compute_dtype_of, seeded_initializers
from quickfox.training.networks.matmul import dense, look_up
from quickfox.training.networks.recurrent_kernels import gru, lstm, rnn
from quickfox.training.tensorflow_runtime import has_gpu

Tensor = Any
LayerState = tuple[Tensor, ...]
State = tuple[LayerState, ...]
Initializer = Callable[..., Any]

_LAYERS = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
_STATES = {"rnn": 1, "gru": 1, "lstm": 2}


class RecurrentStack:
    """A stack of the recurrent layers of one model.

    Initial weights: input kernels Glorot-uniform; recurrent kernels orthogonal (Saxe et al. 2014); forget biases 1
    (Jozefowicz et al. 2015), all other biases 0.

    Args:
        config: of the model.
        input_dim: numbers that the lowest layer reads at a time.
        initializer: (kind of Keras initializer) -> one with the next seed.
        compute_dtype: tf.float32 or tf.bfloat16, of the matrix products.
    """

    def __init__(self, config: ModelConfig, input_dim: int, initializer: Initializer, compute_dtype: Any) -> None:
        self._cell = recurrent_cell(config)
        self._hidden_dim = config.hidden_dim
        self._compute_dtype = compute_dtype
        self.layers = [
            _LAYERS[self._cell](
                config.hidden_dim,
                return_sequences=True,
                return_state=True,
                kernel_initializer=initializer(keras.initializers.GlorotUniform),
                recurrent_initializer=initializer(keras.initializers.Orthogonal),
            )
            for _ in range(config.num_layers)
        ]
        for number, layer in enumerate(self.layers):
            layer.build((None, None, input_dim if number == 0 else config.hidden_dim))

    def variables(self) -> list[Any]:
        """The weights, in the contract's order."""
        cells = [layer.cell for layer in self.layers]
        return [weight.value for cell in cells for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)]

    def initial_state(self, batch_size: int) -> State:
        """Zeros: for each layer h, and c of an lstm, (B, H) float32."""
        zeros = tf.zeros([batch_size, self._hidden_dim])
        return tuple((zeros,) * _STATES[self._cell] for _ in self.layers)

    def with_restarts(self, state: State, rows: Tensor) -> State:
        """The state with those rows (B,) bool as in the beginning."""
        return tuple(tuple(tf.where(rows[:, None], 0.0, array) for array in layer) for layer in state)

    def run_tokens(
        self, embeddings: Tensor, token_ids: Tensor, state: State, dropout: Dropout, place: int = 0
    ) -> tuple[Tensor, State]:
        """As `run`, on embedded tokens: the lowest layer's x W + b by a table of all tokens where that is less work.

        Args:
            embeddings: (V, D) float32.
            token_ids: (T, B) int32, both static.
            state, dropout, place: as for `run`.
        """
        steps, batch_size = token_ids.shape
        if has_gpu() or embeddings.shape[0] > steps * batch_size:
            return self.run(tf.gather(embeddings, token_ids), state, dropout, place)
        kernel, bias = self.layers[0].cell.kernel.value, _input_bias(self.layers[0])
        projected = look_up(tf.matmul(embeddings, kernel) + bias, token_ids, self._compute_dtype)
        return self._run_projected(projected, state, dropout, place)

    def run(self, inputs: Tensor, state: State, dropout: Dropout, place: int = 0) -> tuple[Tensor, State]:
        """Runs all layers over a window.

        Args:
            inputs: (T, B, D), both static.
            state: before the window, as `initial_state`.
            dropout: of each layer's outputs, one mask for all time steps of a sequence.
            place: of the lowest layer's mask among those of the network.

        Returns:
            The highest layer's outputs (T, B, H), and the state after the window.
        """
        if has_gpu():
            return self.run_stock(inputs, state, dropout, place)
        return self._run_projected(self._project(inputs, 0), state, dropout, place)

    def run_stock(self, inputs: Tensor, state: State, dropout: Dropout, place: int = 0) -> tuple[Tensor, State]:
        """The same through the stock Keras layers, which choose cuDNN on a GPU."""
        new_state = []
        for number, (layer, layer_state) in enumerate(zip(self.layers, state, strict=True)):
            outputs, *layer_arrays = layer(tf.transpose(inputs, [1, 0, 2]), initial_state=list(layer_state))
            inputs = dropout.same_over_time(tf.transpose(outputs, [1, 0, 2]), place + number)
            new_state.append(tuple(layer_arrays))
        return inputs, tuple(new_state)

    def _run_projected(self, projected: Tensor, state: State, dropout: Dropout, place: int) -> tuple[Tensor, State]:
        outputs, new_state = None, []
        for number, layer_state in enumerate(state):
            if number > 0:
                projected = self._project(outputs, number)
            outputs, *layer_arrays = self._run_layer(number, projected, layer_state)
            outputs = dropout.same_over_time(outputs, place + number)
            new_state.append(tuple(layer_arrays))
        return outputs, tuple(new_state)

    def _run_layer(self, number: int, projected: Tensor, state: LayerState) -> tuple[Tensor, ...]:
        """Outputs (T, B, H), then the arrays of the new state."""
        cell = self.layers[number].cell
        kernel, bias = cell.recurrent_kernel.value, cell.bias.value
        if self._cell == "lstm":
            return lstm(projected, kernel, state[0], state[1], self._compute_dtype)
        if self._cell == "gru":
            return gru(projected, kernel, bias[1], state[0], self._compute_dtype)
        return rnn(projected, kernel, state[0], self._compute_dtype)

    def _project(self, inputs: Tensor, number: int) -> Tensor:
        """A layer's x W + b: (T, B, D) -> (T, B, GH) in compute_dtype."""
        layer = self.layers[number]
        projected = dense(inputs, layer.cell.kernel.value, _input_bias(layer), self._compute_dtype)
        return tf.cast(projected, self._compute_dtype)


def _input_bias(layer: Any) -> Tensor:
    """Of a gru's two biases the one that goes with the input."""
    bias = layer.cell.bias.value
    return bias[0] if len(bias.shape) == 2 else bias


class RecurrentNetwork:
    """Embedding -> recurrent layers -> dense: see `networks.Network`.

    Initial weights: embeddings normal with unit variance, the output kernel Glorot-uniform; the layers': see
    `RecurrentStack`.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        self.config = config
        self.compute_dtype = compute_dtype_of(precision)
        initializer = seeded_initializers(random_seed)
        self.embedding = keras.layers.Embedding(
            config.vocabulary_size,
            config.embedding_dim,
            embeddings_initializer=initializer(keras.initializers.RandomNormal, stddev=1.0),
        )
        self.embedding.build((None, None))
        self.stack = RecurrentStack(config, config.embedding_dim, initializer, self.compute_dtype)
        self.output = keras.layers.Dense(
            config.vocabulary_size, kernel_initializer=initializer(keras.initializers.GlorotUniform)
        )
        self.output.build((None, None, config.hidden_dim))

    def parameters(self) -> dict[str, Any]:
        """Name in the contract -> tf.Variable, in the contract's order."""
        output = [self.output.kernel.value, self.output.bias.value]
        variables = [self.embedding.embeddings.value, *self.stack.variables(), *output]
        return dict(zip(parameter_shapes(self.config), variables, strict=True))

    def initial_state(self, batch_size: int) -> State:
        """Zeros."""
        return self.stack.initial_state(batch_size)

    def with_restarts(self, state: State, rows: Tensor) -> State:
        """The state with those rows (B,) bool as in the beginning."""
        return self.stack.with_restarts(state, rows)

    def forward(
        self, token_ids: Tensor, state: State, dropout: float = 0.0, seed: Tensor = None
    ) -> tuple[Tensor, State]:
        """Logits for each position of a window, and the state after it: see `networks.Network.forward`."""
        embeddings = self.embedding.embeddings.value
        masks = Dropout(dropout, seed)
        outputs, new_state = self.stack.run_tokens(embeddings, tf.transpose(token_ids), state, masks)
        return dense(outputs, self.output.kernel.value, self.output.bias.value, self.compute_dtype), new_state
