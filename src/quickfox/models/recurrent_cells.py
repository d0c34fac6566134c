"""The recurrent cells in NumPy: rnn, gru and lstm, each as one layer over a window. Independent of any model.

With x the layer's input at a step, h its state before and h' after the step, W the input kernel, U the recurrent kernel
and b the bias:

    rnn     h' = tanh(x W + h U + b)
            (Elman 1990, "Finding structure in time")

    gru     z = sigmoid(x Wz + az + h Uz + bz)                 update gate; a and b: the two rows of the bias
            r = sigmoid(x Wr + ar + h Ur + br)                 reset gate
            g = tanh(x Wg + ag + r * (h Ug + bg))              candidate
            h' = z * h + (1 - z) * g
            (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder"; r applied after the product,
            as in cuDNN and in Keras with `reset_after`, so that h U is one product)

    lstm    i, f, g, o = the quarters of x W + h U + b         input gate, forget gate, candidate, output gate
            c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h' = sigmoid(o) * tanh(c')
            (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000)

Two rearrangements of the weights, made once when the model is built, speed this up:

- sigmoid(x) = (1 + tanh(x / 2)) / 2. The columns of the sigmoid gates are halved, which is exact, so that a single tanh
  computes all gates.
- The columns of an lstm are reordered to i, f, o, g, so that the three sigmoid gates are contiguous.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from quickfox.models.language_model import LayerState
from quickfox.models.parameters import RECURRENT_GATES
from quickfox.system.threads import pinned_numpy_threads

_TILE_BYTES = 2**20  # half of a core's L2 cache; OpenBLAS multiplies so little with a single thread


class RecurrentKernel:
    """A recurrent kernel U, laid out for fast products h U with one row, as in sampling, and with many rows.

    The time of a product with one row is the time of loading U, which from 512 units of an lstm on exceeds the L2
    cache. Always read from start to end, U would be evicted before it is read again. It is therefore read in tiles,
    forwards and backwards in turn, so that the tiles read last are still cached: 20 % faster (512 units, 2 MiB of
    cache). If NumPy has several threads, U is a single tile, which the threads divide among their caches.

    Args:
        kernel: (H, N) float32.
    """

    def __init__(self, kernel: np.ndarray) -> None:
        self._kernel = kernel
        num_tiles = math.ceil(kernel.nbytes / _TILE_BYTES) if pinned_numpy_threads() == 1 else 1
        edges = [tile * kernel.shape[1] // num_tiles for tile in range(num_tiles + 1)]
        tiles = tuple(
            (slice(start, stop), np.ascontiguousarray(kernel[:, start:stop].T)) for start, stop in pairwise(edges)
        )
        self._directions = (tiles, tiles[::-1])
        self._direction = 0

    def multiply(self, h: np.ndarray, out: np.ndarray) -> np.ndarray:
        """h U: (B, H) float32 -> (B, N) float32, written to `out`."""
        if len(h) > 1:
            return np.matmul(h, self._kernel, out=out)
        self._direction = 1 - self._direction
        row, out_row = h[0], out[0]  # (H,), (N,)
        for columns, tile in self._directions[self._direction]:
            np.dot(tile, row, out=out_row[columns])
        return out


@dataclass(frozen=True)
class CellWeights:
    """The weights of one layer, arranged as its cell computes with them.

    Attributes:
        input_kernel: W, (D, GH) float32, G the number of gates.
        input_bias: (GH,) float32, added to x W.
        recurrent_kernel: U, (H, GH).
        recurrent_bias: (GH,) float32, added to h U; zeros except in a gru.
    """

    input_kernel: np.ndarray
    input_bias: np.ndarray
    recurrent_kernel: RecurrentKernel
    recurrent_bias: np.ndarray

    def project(self, inputs: np.ndarray) -> np.ndarray:
        """x W + b: (..., D) -> (..., GH)."""
        projected: np.ndarray = inputs @ self.input_kernel + self.input_bias
        return projected


def build_cell_weights(cell: str, parameters: Mapping[str, np.ndarray], layer: str) -> CellWeights:
    """The weights of the layer whose tensors in `parameters` are named `layer`.* ."""
    kernel, recurrent, bias = (
        _arrange_gates(cell, parameters[f"{layer}.{name}"]) for name in ("input_kernel", "recurrent_kernel", "bias")
    )
    input_bias, recurrent_bias = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    return CellWeights(kernel, input_bias, RecurrentKernel(recurrent), recurrent_bias)


def _arrange_gates(cell: str, columns: np.ndarray) -> np.ndarray:
    """Gates (..., GH) in the order of the parameter schema -> the halved sigmoid gates, then the candidate."""
    gates = np.split(columns, RECURRENT_GATES[cell], axis=-1)
    if cell == "lstm":
        i, f, g, o = gates
        gates = [i, f, o, g]
    *sigmoids, candidate = gates
    return np.concatenate([*(gate * 0.5 for gate in sigmoids), candidate], axis=-1, dtype=np.float32)


def rnn_layer(inputs: np.ndarray, state: LayerState, weights: CellWeights) -> tuple[np.ndarray, LayerState]:
    """Run an rnn layer over a window; all `*_layer` functions have this signature.

    Args:
        inputs: (T, B, GH) float32, x W + b; overwritten, in the columns of the sigmoid gates by these gates.
        state: before the window: h, and c of an lstm, each (B, H) float32; not changed.
        weights: of the layer.

    Returns:
        h after each step, (T, B, H) float32; and the state after the last step.
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
        weights.recurrent_kernel.multiply(h, out=recurrent)  # (B, H) -> (B, 3H)
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
        gates += weights.recurrent_kernel.multiply(h, out=recurrent)  # (B, H) -> (B, 4H)
        np.tanh(gates, out=gates)
        sigmoids = gates[:, : 3 * hidden_dim]
        sigmoids *= 0.5
        sigmoids += 0.5
        i, f, o, g = (gates[:, gate * hidden_dim : (gate + 1) * hidden_dim] for gate in range(4))  # (B, H) each
        c = f * c
        c += np.multiply(i, g, out=g)
        h = np.multiply(o, np.tanh(c), out=output)
    return outputs, (h, c)


SIGMOID_GATES = {"rnn": (), "gru": ("update", "reset"), "lstm": ("input", "forget", "output")}
"""The gates of each cell in the order of their columns, which come first."""

CELLS = {"rnn": rnn_layer, "gru": gru_layer, "lstm": lstm_layer}
