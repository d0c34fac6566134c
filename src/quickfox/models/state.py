"""What a language model remembers of the texts it reads: opaque to all but the model, except that texts are rows."""

import numpy as np

LayerState = tuple[np.ndarray, ...]
"""The arrays of one layer, whose first axis is the batch: h and c of an lstm, each (B, H) float32; keys, values and
positions read of an attention's cache."""

State = tuple[LayerState, ...]
"""One for each layer, the lowest first."""


def replace_row(state: State, row: int, source: State) -> State:
    """`state` (of B texts) with the state of the text `row` replaced by that of the one text in `source`."""
    replaced = []
    for layer, source_layer in zip(state, source, strict=True):
        arrays = [array.copy() for array in layer]
        for array, source_array in zip(arrays, source_layer, strict=True):
            array[row] = source_array[0]
        replaced.append(tuple(arrays))
    return tuple(replaced)


def take_rows(state: State, rows: np.ndarray) -> State:
    """The state of the texts `rows`, in that order; a text may be taken several times."""
    return tuple(tuple(array[rows] for array in layer) for layer in state)
