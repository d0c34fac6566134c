"""The recurrent cells in NumPy: rnn, gru, lstm; one layer of them over a window. Knows no model around them.

With x the layer's input at a step, h its state before and h' after, W, U, b input kernel, recurrent kernel and bias:

    rnn     h' = tanh(x W + h U + b)
            (Elman 1990, "Finding structure in time")

    gru     z = sigmoid(x Wz + az + h Uz + bz)                 a and b: the two rows of the bias
            r = sigmoid(x Wr + ar + h Ur + br)
            g = tanh(x Wg + ag + r * (h Ug + bg))
            h' = z * h + (1 - z) * g
            (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder"; r after the product,
            as cuDNN and Keras with `reset_after` compute it, so that U is one product)

    lstm    i, f, g, o = the quarters of x W + h U + b
            c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h' = sigmoid(o) * tanh(c')
            (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000)

Two things make them fast and change no result beyond rounding, each done once, when the model is built:

- sigmoid(x) = (1 + tanh(x / 2)) / 2. The columns of sigmoid gates are halved, which is exact, and one tanh serves all.
- The columns of an lstm are reordered to i, f, o, g, so that the three sigmoids lie side by side.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from quickfox.models.parameters import RECURRENT_GATES
from quickfox.models.state import LayerState
from quickfox.system.threads import pinned_numpy_threads

_BLOCK_BYTES = 2**20  # half of a core's own cache; OpenBLAS gives a product with so little one thread only


class RecurrentKernel:
    """A recurrent kernel U, laid out for h U with one row, as in sampling, and with many.

    With one row the product takes as long as U takes to reach the core, and from 512 units of an lstm on U is larger
    than the core's own cache: read from start to end each time, every byte comes from farther away. Read forwards and
    backwards in turns, the part that was read last is still near. That takes a fifth off the time (512 units, a cache
    of 2 MiB). If NumPy has several threads it is one product of them all, each with its share in its own cache.

    Args:
        kernel: (H, N) float32.
    """

    def __init__(self, kernel: np.ndarray) -> None:
        self._kernel = kernel
        num_blocks = math.ceil(kernel.nbytes / _BLOCK_BYTES) if pinned_numpy_threads() == 1 else 1
        edges = [block * kernel.shape[1] // num_blocks for block in range(num_blocks + 1)]
        blocks = tuple(
            (slice(start, stop), np.ascontiguousarray(kernel[:, start:stop].T)) for start, stop in pairwise(edges)
        )
        self._orders = (blocks, blocks[::-1])
        self._turn = 0

    def multiply(self, h: np.ndarray, out: np.ndarray) -> np.ndarray:
        """h U: (B, H) float32 -> (B, N) float32, written to `out`."""
        if len(h) > 1:
            return np.matmul(h, self._kernel, out=out)
        self._turn = 1 - self._turn
        row, out_row = h[0], out[0]
        for columns, block in self._orders[self._turn]:
            np.dot(block, row, out=out_row[columns])
        return out


@dataclass(frozen=True)
class CellWeights:
    """The weights of one layer, as its cell wants them.

    Attributes:
        input_kernel: W, (D, GH) float32.
        input_bias: (GH,) float32, added to x W.
        recurrent_kernel: U.
        recurrent_bias: (GH,) float32, added to h U; zeros but for a gru.
    """

    input_kernel: np.ndarray
    input_bias: np.ndarray
    recurrent_kernel: RecurrentKernel
    recurrent_bias: np.ndarray

    def project(self, inputs: np.ndarray) -> np.ndarray:
        """x W + b: (..., D) -> (..., GH)."""
        projected: np.ndarray = inputs @ self.input_kernel + self.input_bias
        return projected


def cell_weights(cell: str, parameters: Mapping[str, np.ndarray], layer: str) -> CellWeights:
    """The weights of the layer whose tensors in `parameters` are named `layer`.* ."""
    arrange = CELLS[cell].arrange
    kernel, recurrent, bias = (
        arrange(parameters[f"{layer}.{name}"]) for name in ("input_kernel", "recurrent_kernel", "bias")
    )
    input_bias, recurrent_bias = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    return CellWeights(kernel, input_bias, RecurrentKernel(recurrent), recurrent_bias)


def rnn_layer(inputs: np.ndarray, state: LayerState, weights: CellWeights) -> tuple[np.ndarray, LayerState]:
    """Run a layer over a window; all `*_layer` are alike.

    Args:
        inputs: (T, B, GH) float32, x W + b; overwritten.
        state: before the window: h, and c of an lstm, each (B, H) float32; not changed.
        weights: of the layer.

    Returns:
        h after each step, (T, B, H) float32; and the state after the last.
    """
    (h,) = state
    outputs = np.empty(inputs.shape, np.float32)
    for projected, output in zip(inputs, outputs, strict=True):  # (B, H), (B, H)
        weights.recurrent_kernel.multiply(h, out=output)
        output += projected
        h = np.tanh(output, out=output)
    return outputs, (h,)


def gru_layer(inputs: np.ndarray, state: LayerState, weights: CellWeights) -> tuple[np.ndarray, LayerState]:
    """Run a gru layer over a window: see `rnn_layer`."""
    (h,) = state
    batch_size, hidden_dim = h.shape
    recurrent = np.empty((batch_size, RECURRENT_GATES["gru"] * hidden_dim), np.float32)
    outputs = np.empty((len(inputs), batch_size, hidden_dim), np.float32)
    for projected, output in zip(inputs, outputs, strict=True):  # (B, 3H), (B, H)
        weights.recurrent_kernel.multiply(h, out=recurrent)
        recurrent += weights.recurrent_bias
        gates, candidate = projected[:, : 2 * hidden_dim], projected[:, 2 * hidden_dim :]
        gates += recurrent[:, : 2 * hidden_dim]
        np.tanh(gates, out=gates)
        gates *= 0.5
        gates += 0.5
        update, reset = gates[:, :hidden_dim], gates[:, hidden_dim:]
        candidate += reset * recurrent[:, 2 * hidden_dim :]
        np.tanh(candidate, out=candidate)
        np.subtract(h, candidate, out=output)  # z h + (1 - z) g = g + z (h - g)
        output *= update
        output += candidate
        h = output
    return outputs, (h,)


def lstm_layer(inputs: np.ndarray, state: LayerState, weights: CellWeights) -> tuple[np.ndarray, LayerState]:
    """Run an lstm layer over a window: see `rnn_layer`; the columns are arranged as i, f, o, g."""
    h, c = state
    batch_size, hidden_dim = h.shape
    recurrent = np.empty((batch_size, RECURRENT_GATES["lstm"] * hidden_dim), np.float32)
    outputs = np.empty((len(inputs), batch_size, hidden_dim), np.float32)
    for gates, output in zip(inputs, outputs, strict=True):  # (B, 4H), (B, H)
        gates += weights.recurrent_kernel.multiply(h, out=recurrent)
        np.tanh(gates, out=gates)
        sigmoids = gates[:, : 3 * hidden_dim]
        sigmoids *= 0.5
        sigmoids += 0.5
        i, f, o, g = (gates[:, gate * hidden_dim : (gate + 1) * hidden_dim] for gate in range(4))
        c = f * c
        c += np.multiply(i, g, out=g)
        h = np.multiply(o, np.tanh(c), out=output)
    return outputs, (h, c)


def _arrange_gru(columns: np.ndarray) -> np.ndarray:
    """Columns (..., 3H) in the contract's order z, r, g -> z/2, r/2, g."""
    update, reset, candidate = np.split(columns, 3, axis=-1)
    return np.concatenate([update * 0.5, reset * 0.5, candidate], axis=-1, dtype=np.float32)


def _arrange_lstm(columns: np.ndarray) -> np.ndarray:
    """Columns (..., 4H) in the contract's order i, f, g, o -> i/2, f/2, o/2, g."""
    i, f, g, o = np.split(columns, 4, axis=-1)
    return np.concatenate([i * 0.5, f * 0.5, o * 0.5, g], axis=-1, dtype=np.float32)


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent layer.

    Attributes:
        run: over a window: see `rnn_layer`.
        arrange: the contract's columns -> those that `run` wants.
        num_states: arrays of its state.
    """

    run: Callable[[np.ndarray, LayerState, CellWeights], tuple[np.ndarray, LayerState]]
    arrange: Callable[[np.ndarray], np.ndarray]
    num_states: int


CELLS = {
    "rnn": Cell(rnn_layer, np.ascontiguousarray, 1),
    "gru": Cell(gru_layer, _arrange_gru, 1),
    "lstm": Cell(lstm_layer, _arrange_lstm, 2),
}
