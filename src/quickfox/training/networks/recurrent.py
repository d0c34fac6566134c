"""Trainable recurrent networks: a stack of rnn, gru or lstm layers between an embedding and a dense output layer.

The layers' weights belong to stock Keras layers, where Keras and its GPU kernels expect them. On a GPU the layers run
as they are (cuDNN); on a processor `recurrent_kernels` computes the same function faster.
"""

from typing import Any

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.models.parameters import parameter_shapes, recurrent_cell
from quickfox.training.networks.matmul import Tensor, dense, embedding_lookup
from quickfox.training.networks.network import (
    NO_DROPOUT,
    Dropout,
    FrameTensors,
    Initializer,
    LayerState,
    Network,
    State,
    seeded_initializers,
)
from quickfox.training.networks.recurrent_kernels import gru, lstm, rnn
from quickfox.training.tensorflow_runtime import has_gpu

_KERAS_LAYERS = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}


class RecurrentStack:
    """A stack of recurrent layers.

    Initial weights: input kernels Glorot-uniform (Glorot & Bengio 2010); recurrent kernels orthogonal (Saxe et al.
    2014); forget biases 1 (Jozefowicz et al. 2015), all other biases 0.

    Args:
        config: of the model.
        input_dim: number of features of the lowest layer's input.
        initializer: as returned by `seeded_initializers`.
        compute_dtype: tf.float32 or tf.bfloat16, of the matrix products.
    """

    def __init__(self, config: ModelConfig, input_dim: int, initializer: Initializer, compute_dtype: Any) -> None:
        self._cell = recurrent_cell(config)
        self._hidden_dim = config.hidden_dim
        self._compute_dtype = compute_dtype
        self.layers = [
            _KERAS_LAYERS[self._cell](
                config.hidden_dim,
                return_sequences=True,
                return_state=True,
                kernel_initializer=initializer(keras.initializers.GlorotUniform),
                recurrent_initializer=initializer(keras.initializers.Orthogonal),
            )
            for _ in range(config.num_layers)
        ]
        for index, layer in enumerate(self.layers):
            layer.build((None, None, input_dim if index == 0 else config.hidden_dim))

    def variables(self) -> list[Any]:
        """The weights, in the order of `parameter_shapes`."""
        cells = [layer.cell for layer in self.layers]
        return [weight.value for cell in cells for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)]

    def initial_state(self, batch_size: int) -> State:
        """Zeros: h of each layer, and c of an lstm layer, (B, H) float32."""
        zeros = tf.zeros([batch_size, self._hidden_dim])
        return tuple((zeros, zeros) if self._cell == "lstm" else (zeros,) for _ in self.layers)

    def reset_rows(self, state: State, is_reset: Tensor) -> State:
        """The state, with zeros in the rows where `is_reset` (B,) bool is true."""
        return tuple(tuple(tf.where(is_reset[:, None], 0.0, tensor) for tensor in layer) for layer in state)

    def run_tokens(self, embeddings: Tensor, token_ids: Tensor, state: State, dropout: Dropout) -> tuple[Tensor, State]:
        """As `run`, on embedded tokens: embeddings (V, D) float32, token_ids (T, B) int32, both static.

        If the vocabulary is no larger than the window, x W + b of the lowest layer is computed once per token of the
        vocabulary and looked up.
        """
        window, batch_size = token_ids.shape
        if has_gpu() or embeddings.shape[0] > window * batch_size:
            return self.run(tf.gather(embeddings, token_ids), state, dropout)
        kernel, bias = self.layers[0].cell.kernel.value, _input_bias(self.layers[0])
        table = tf.matmul(embeddings, kernel) + bias  # (V, D) -> (V, GH)
        projected = embedding_lookup(table, token_ids, self._compute_dtype)  # (T, B) -> (T, B, GH)
        return self._run_projected(projected, state, dropout, mask_index=0)

    def run(self, inputs: Tensor, state: State, dropout: Dropout, mask_index: int = 0) -> tuple[Tensor, State]:
        """Runs all layers over a window.

        Args:
            inputs: (T, B, D), T and B static.
            state: before the window, as returned by `initial_state`.
            dropout: of each layer's outputs, one mask for all time steps of a sequence.
            mask_index: index of the lowest layer's dropout mask in the network.

        Returns:
            The highest layer's outputs (T, B, H), and the state after the window.
        """
        if has_gpu():
            return self.run_stock(inputs, state, dropout, mask_index)
        return self._run_projected(self._project(inputs, 0), state, dropout, mask_index)

    def run_stock(self, inputs: Tensor, state: State, dropout: Dropout, mask_index: int = 0) -> tuple[Tensor, State]:
        """As `run`, by the stock Keras layers, which use cuDNN on a GPU."""
        new_state = []
        for index, (layer, layer_state) in enumerate(zip(self.layers, state, strict=True)):
            outputs, *new_layer_state = layer(tf.transpose(inputs, [1, 0, 2]), initial_state=list(layer_state))
            inputs = dropout.apply_variational(tf.transpose(outputs, [1, 0, 2]), mask_index + index)
            new_state.append(tuple(new_layer_state))
        return inputs, tuple(new_state)

    def _run_projected(
        self, projected: Tensor, state: State, dropout: Dropout, mask_index: int
    ) -> tuple[Tensor, State]:
        """As `run`, given x W + b of the lowest layer, (T, B, GH)."""
        outputs, new_state = None, []
        for index, layer_state in enumerate(state):
            if index > 0:
                projected = self._project(outputs, index)
            outputs, *new_layer_state = self._run_layer(index, projected, layer_state)
            outputs = dropout.apply_variational(outputs, mask_index + index)
            new_state.append(tuple(new_layer_state))
        return outputs, tuple(new_state)

    def _run_layer(self, index: int, projected: Tensor, state: LayerState) -> tuple[Tensor, ...]:
        """(T, B, GH) -> outputs (T, B, H), and the tensors of the new state."""
        cell = self.layers[index].cell
        kernel, bias = cell.recurrent_kernel.value, cell.bias.value
        if self._cell == "lstm":
            return lstm(projected, kernel, state[0], state[1], self._compute_dtype)
        if self._cell == "gru":
            return gru(projected, kernel, bias[1], state[0], self._compute_dtype)
        return rnn(projected, kernel, state[0], self._compute_dtype)

    def _project(self, inputs: Tensor, index: int) -> Tensor:
        """x W + b of a layer: (T, B, D) -> (T, B, GH) in compute_dtype."""
        layer = self.layers[index]
        projected = dense(inputs, layer.cell.kernel.value, _input_bias(layer), self._compute_dtype)
        return tf.cast(projected, self._compute_dtype)


def _input_bias(layer: Any) -> Tensor:
    """(GH,); a gru has two biases, (2, GH), the first of them for the input."""
    bias = layer.cell.bias.value
    return bias[0] if len(bias.shape) == 2 else bias


class RecurrentNetwork(Network):
    """Embedding -> recurrent layers -> dense.

    Initial weights: embeddings normal with unit variance; the layers as in `RecurrentStack`; the output kernel
    Glorot-uniform, its bias 0.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        super().__init__(config, precision)
        initializer, shapes = seeded_initializers(random_seed), parameter_shapes(config)
        embedding = tf.Variable(initializer(keras.initializers.RandomNormal, stddev=1.0)(shapes["embedding.weight"]))
        self.stack = RecurrentStack(config, config.embedding_dim, initializer, self.compute_dtype)
        output_kernel = tf.Variable(initializer(keras.initializers.GlorotUniform)(shapes["output.kernel"]))
        output_bias = tf.Variable(tf.zeros(shapes["output.bias"]))
        variables = [embedding, *self.stack.variables(), output_kernel, output_bias, *self._last_variables(initializer)]
        self._parameters = dict(zip(shapes, variables, strict=True))

    def initial_state(self, batch_size: int, context: int | None = None) -> State:
        return self.stack.initial_state(batch_size)

    def reset_rows(self, state: State, is_reset: Tensor) -> State:
        return self.stack.reset_rows(state, is_reset)

    def hidden(
        self, token_ids: Tensor, state: State, dropout: Dropout = NO_DROPOUT, frames: FrameTensors = ()
    ) -> tuple[Tensor, State]:
        if frames:
            inputs = self._embed(token_ids, frames)  # (B, T, D)
            return self.stack.run(tf.transpose(inputs, [1, 0, 2]), state, dropout)
        token_ids = tf.transpose(token_ids)  # (B, T) -> (T, B)
        return self.stack.run_tokens(self._parameters["embedding.weight"], token_ids, state, dropout)

    def output(self, hidden: Tensor) -> Tensor:
        weights = self._parameters
        return dense(hidden, weights["output.kernel"], weights["output.bias"], self.compute_dtype)
