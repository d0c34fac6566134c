"""The state that a language model carries from token to token, as arrays whose first axis is the batch."""

import numpy as np

LayerState = tuple[np.ndarray, ...]
"""The arrays of one layer: h, and c of an lstm, each (B, H) float32; keys, values and positions read of attention."""

State = tuple[LayerState, ...]
"""One `LayerState` per layer, the lowest first. Only the model that returned it interprets it."""


def replace_row(state: State, row: int, source: State) -> State:
    """A copy of a state of B texts, with the state of text `row` replaced by `source`, the state of one text."""
    replaced = []
    for layer, source_layer in zip(state, source, strict=True):
        arrays = [array.copy() for array in layer]
        for array, source_array in zip(arrays, source_layer, strict=True):
            array[row] = source_array[0]
        replaced.append(tuple(arrays))
    return tuple(replaced)


def select_rows(state: State, rows: np.ndarray | slice) -> State:
    """The state of the texts `rows`, in that order; a text may be selected more than once. A slice returns views."""
    return tuple(tuple(array[rows] for array in layer) for layer in state)
