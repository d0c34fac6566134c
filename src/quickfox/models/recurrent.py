"""The LSTM language model in NumPy: embedding, a stack of LSTM layers, a dense output layer.

One LSTM step, per layer (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000):

    z = x W + h U + b                     its columns split into i, f, g, o
    c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h' = sigmoid(o) * tanh(c')

It only runs a model; how one is trained, saved or sampled from is not known here. Three things make it fast and
change no result beyond rounding, each done once, when the model is built:

- Token -> embedding -> x W + b of the first layer is a function of the token alone: a table with a row a token.
- sigmoid(x) = (1 + tanh(x / 2)) / 2. The columns of i, f and o are halved, which is exact: one call of tanh serves all.
- The columns are reordered to i, f, o, g, so that the three sigmoids lie side by side.
"""

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from quickfox.config import ModelConfig
from quickfox.models.parameters import LSTM_GATES
from quickfox.models.state import LayerState, State

_SIGMOID_GATES = 3
_BLOCK_BYTES = 2**19  # small beside a core's own cache, large beside the cost of a call


class LSTMLanguageModel:
    """A language model that is ready to run; see `language_model.LanguageModel` for the protocol.

    Args:
        config: of a model with the architecture "lstm".
        parameters: name -> float32 array, as `parameters.lstm_shapes(config)` lists them; not changed.
    """

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> None:
        layers = range(config.num_layers)
        input_kernels = [_arrange_gates(parameters[f"recurrent.{layer}.input_kernel"]) for layer in layers]
        biases = [_arrange_gates(parameters[f"recurrent.{layer}.bias"]) for layer in layers]
        self._hidden_dim = config.hidden_dim
        self._token_table = parameters["embedding.weight"] @ input_kernels[0] + biases[0]  # (V, D) -> (V, 4H)
        self._upper_inputs = list(zip(input_kernels[1:], biases[1:], strict=True))
        self._recurrent_kernels = [
            RecurrentKernel(_arrange_gates(parameters[f"recurrent.{layer}.recurrent_kernel"])) for layer in layers
        ]
        self._output_kernel = parameters["output.kernel"]  # (H, V)
        self._output_bias = parameters["output.bias"]  # (V,)

    def initial_state(self, batch_size: int) -> State:
        """The state before any token: zeros."""
        zeros = np.zeros((batch_size, self._hidden_dim), np.float32)
        return tuple((zeros, zeros) for _ in self._recurrent_kernels)

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Logits after each token, and the state after the last: see `language_model.LanguageModel.forward`."""
        gate_inputs = self._token_table[token_ids.T]  # (B, T) -> (T, B, 4H)
        outputs, layer_state = lstm_layer(gate_inputs, state[0], self._recurrent_kernels[0])  # (T, B, H)
        new_state = [layer_state]
        for layer, (input_kernel, bias) in enumerate(self._upper_inputs, start=1):
            gate_inputs = outputs @ input_kernel + bias  # (T, B, H) -> (T, B, 4H)
            outputs, layer_state = lstm_layer(gate_inputs, state[layer], self._recurrent_kernels[layer])
            new_state.append(layer_state)
        logits = outputs @ self._output_kernel + self._output_bias  # (T, B, H) -> (T, B, V)
        return logits.transpose(1, 0, 2), tuple(new_state)


class RecurrentKernel:
    """A recurrent kernel U, laid out for h U with one row, as in sampling, and with many.

    With one row the product takes as long as U takes to reach the core, and from 512 units on U is larger than the
    core's own cache: read from start to end each time, every byte comes from farther away. Read forwards and
    backwards in turns, the part that was read last is still near. That takes a fifth off the time (512 units, a cache
    of 2 MiB) and changes no bit of the result.

    Args:
        kernel: (H, 4H) float32.
    """

    def __init__(self, kernel: np.ndarray) -> None:
        self._kernel = kernel
        num_blocks = math.ceil(kernel.nbytes / _BLOCK_BYTES)
        edges = [block * kernel.shape[1] // num_blocks for block in range(num_blocks + 1)]
        blocks = tuple(
            (slice(start, stop), np.ascontiguousarray(kernel[:, start:stop].T)) for start, stop in pairwise(edges)
        )
        self._orders = (blocks, blocks[::-1])
        self._turn = 0

    def multiply(self, h: np.ndarray, out: np.ndarray) -> np.ndarray:
        """h U: (B, H) float32 -> (B, 4H) float32, written to `out`."""
        if len(h) > 1:
            return np.matmul(h, self._kernel, out=out)
        self._turn = 1 - self._turn
        row, out_row = h[0], out[0]
        for columns, block in self._orders[self._turn]:
            np.dot(block, row, out=out_row[columns])
        return out


def lstm_layer(
    gate_inputs: np.ndarray, state: LayerState, recurrent_kernel: RecurrentKernel
) -> tuple[np.ndarray, LayerState]:
    """Run one LSTM layer over a window.

    Args:
        gate_inputs: (T, B, 4H) float32, x W + b with the columns as `_arrange_gates` leaves them; overwritten.
        state: h and c before the window, each (B, H) float32; not changed.
        recurrent_kernel: U, its columns arranged likewise.

    Returns:
        h after each step, (T, B, H) float32; and h and c after the last.
    """
    h, c = state
    batch_size, hidden_dim = h.shape
    recurrent = np.empty((batch_size, LSTM_GATES * hidden_dim), np.float32)
    outputs = np.empty((len(gate_inputs), batch_size, hidden_dim), np.float32)
    for gates, output in zip(gate_inputs, outputs, strict=True):  # (B, 4H), (B, H)
        gates += recurrent_kernel.multiply(h, out=recurrent)
        np.tanh(gates, out=gates)
        sigmoids = gates[:, : _SIGMOID_GATES * hidden_dim]
        sigmoids *= 0.5
        sigmoids += 0.5
        i, f, o, g = (gates[:, gate * hidden_dim : (gate + 1) * hidden_dim] for gate in range(LSTM_GATES))
        c = f * c
        c += np.multiply(i, g, out=g)
        h = np.multiply(o, np.tanh(c), out=output)
    return outputs, (h, c)


def _arrange_gates(columns: np.ndarray) -> np.ndarray:
    """Columns (..., 4H) in the contract's order i, f, g, o -> i/2, f/2, o/2, g, contiguous."""
    i, f, g, o = np.split(columns, LSTM_GATES, axis=-1)
    return np.concatenate([i * 0.5, f * 0.5, o * 0.5, g], axis=-1, dtype=np.float32)
