"""Inference of the recurrent language models in NumPy: embedding, a stack of rnn, gru or lstm layers, a dense layer.

The equations of the layers are in `recurrent_cells`.
"""

from collections.abc import Callable, Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.inputs import Frames, input_table
from quickfox.models.language_model import LayerTrace, State
from quickfox.models.network import Network
from quickfox.models.parameters import recurrent_cell
from quickfox.models.recurrent_cells import CELLS, SIGMOID_GATES, CellWeights, build_cell_weights

_MAX_TABLE_BYTES = 2**26


class RecurrentStack:
    """A stack of recurrent layers of a model; `name` is the prefix of its tensors in the parameter schema."""

    def __init__(self, name: str, config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> None:
        cell = recurrent_cell(config)
        self._name = name
        self._gates = SIGMOID_GATES[cell]
        self._run_layer = CELLS[cell]
        self._state_arrays = 2 if cell == "lstm" else 1  # h, and c of an lstm
        self._hidden_dim = config.hidden_dim
        self.layers = [build_cell_weights(cell, parameters, f"{name}.{layer}") for layer in range(config.num_layers)]

    def initial_state(self, batch_size: int) -> State:
        """The state before any token: zeros, (B, H) each."""
        zeros = np.zeros((batch_size, self._hidden_dim), np.float32)
        return ((zeros,) * self._state_arrays,) * len(self.layers)

    def run(
        self, projected: np.ndarray, state: State, traces: list[LayerTrace] | None = None
    ) -> tuple[np.ndarray, State]:
        """Run all layers over a window.

        Args:
            projected: (T, B, GH) float32, the lowest layer's x W + b; overwritten.
            state: before the window; not changed.
            traces: if given, that of each layer is appended.

        Returns:
            The highest layer's h after each step, (T, B, H) float32; and the state after the last step.
        """
        outputs, layer_state = self._run_layer(projected, state[0], self.layers[0])
        new_state = [layer_state]
        if traces is not None:
            traces.append(self._trace(0, outputs, projected))
        for weights, layer_state in zip(self.layers[1:], state[1:], strict=True):
            projected = weights.project(outputs)
            outputs, layer_state = self._run_layer(projected, layer_state, weights)
            if traces is not None:
                traces.append(self._trace(len(new_state), outputs, projected))
            new_state.append(layer_state)
        return outputs, tuple(new_state)

    def _trace(self, layer: int, outputs: np.ndarray, gates: np.ndarray) -> LayerTrace:
        """The trace of a layer: outputs (T, B, H), gates (T, B, GH) as its cell leaves them."""
        columns = np.split(gates.transpose(1, 0, 2), gates.shape[-1] // self._hidden_dim, axis=-1)  # (B, T, H) each
        named = dict(zip(self._gates, columns, strict=False))  # the candidate comes last
        return LayerTrace(f"{self._name}.{layer}", outputs.transpose(1, 0, 2), named)


def token_projection(embedding: np.ndarray, weights: CellWeights) -> Callable[[np.ndarray], np.ndarray]:
    """Token ids (T, B) -> a new array (T, B, GH) float32, x W + b of the lowest layer, x the token's embedding.

    The result depends only on the token, so unless the vocabulary is large it is read from a table, a row per token.

    Args:
        embedding: (V, D) float32.
        weights: of the lowest layer.
    """
    if len(embedding) * weights.input_bias.nbytes > _MAX_TABLE_BYTES:
        return lambda token_ids: weights.project(embedding[token_ids])
    table = weights.project(embedding)  # (V, GH)
    return lambda token_ids: table[token_ids]


class RecurrentLanguageModel(Network):
    """An rnn, gru or lstm; for its arguments see `registry.build_language_model`."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray], frames: Frames | None = None) -> None:
        super().__init__(config, parameters)
        self._stack = RecurrentStack("recurrent", config, parameters)
        inputs = input_table(config, parameters, frames)
        self._project_tokens = token_projection(inputs, self._stack.layers[0])

    def initial_state(self, batch_size: int) -> State:
        return self._stack.initial_state(batch_size)

    def _hidden(
        self, token_ids: np.ndarray, state: State, traces: list[LayerTrace] | None = None
    ) -> tuple[np.ndarray, State]:
        outputs, new_state = self._stack.run(self._project_tokens(token_ids.T), state, traces)  # (B, T) -> (T, B, H)
        return outputs.transpose(1, 0, 2), new_state
