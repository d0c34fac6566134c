"""The LSTM language model in NumPy: embedding, a stack of LSTM layers, a dense output layer.

One LSTM step, per layer (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000):

    z = x W + h U + b                     its columns split into i, f, g, o
    c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h' = sigmoid(o) * tanh(c')

It only runs a model; how one is trained, saved or sampled from is not known here. Three things make it fast and
change no result beyond rounding, each done once, when the model is built:

- Token -> embedding -> x W + b of the first layer is a function of the token alone: a table with a row a token.
- sigmoid(x) = (1 + tanh(x / 2)) / 2. The gates' columns are halved, which is exact, so that one call of tanh serves all.
- The columns are reordered to i, f, o, g, so that the three sigmoids lie side by side.
"""

from collections.abc import Mapping

import numpy as np

from quickfox.config import ModelConfig
from quickfox.models.parameters import LSTM_GATES

LayerState = tuple[np.ndarray, np.ndarray]
"""Hidden state h and cell state c of a layer, each (B, H) float32."""

RecurrentState = tuple[LayerState, ...]
"""One (h, c) for each layer, the lowest first."""

_SIGMOID_GATES = 3


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
            _arrange_gates(parameters[f"recurrent.{layer}.recurrent_kernel"]) for layer in layers
        ]
        self._output_kernel = parameters["output.kernel"]  # (H, V)
        self._output_bias = parameters["output.bias"]  # (V,)

    def initial_state(self, batch_size: int) -> RecurrentState:
        """The state before any token: zeros."""
        zeros = np.zeros((batch_size, self._hidden_dim), np.float32)
        return tuple((zeros, zeros) for _ in self._recurrent_kernels)

    def forward(self, token_ids: np.ndarray, state: RecurrentState) -> tuple[np.ndarray, RecurrentState]:
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


def lstm_layer(
    gate_inputs: np.ndarray, state: LayerState, recurrent_kernel: np.ndarray
) -> tuple[np.ndarray, LayerState]:
    """Run one LSTM layer over a window.

    Args:
        gate_inputs: (T, B, 4H) float32, x W + b with the columns as `_arrange_gates` leaves them; overwritten.
        state: h and c before the window, each (B, H) float32; not changed.
        recurrent_kernel: (H, 4H) float32, U with its columns arranged likewise.

    Returns:
        h after each step, (T, B, H) float32; and h and c after the last.
    """
    h, c = state
    batch_size, hidden_dim = h.shape
    recurrent = np.empty((batch_size, LSTM_GATES * hidden_dim), np.float32)
    outputs = np.empty((len(gate_inputs), batch_size, hidden_dim), np.float32)
    for gates, output in zip(gate_inputs, outputs, strict=True):  # (B, 4H), (B, H)
        gates += np.matmul(h, recurrent_kernel, out=recurrent)
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
