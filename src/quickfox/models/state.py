"""The state that a language model carries from token to token, as arrays whose first axis is the batch."""

import numpy as np

LayerState = tuple[np.ndarray, ...]
"""The arrays of one layer: h, and c of an lstm, each (B, H) float32; of attention: the cached keys and values,
and the number of positions read (B,)."""

State = tuple[LayerState, ...]
"""One `LayerState` per layer, the lowest first. Only the model that returned it interprets it."""


def replace_first(state: State, source: State) -> State:
    """A copy of a state of B texts, with the state of the first replaced by `source`, the state of one text."""
    return tuple(
        tuple(np.concatenate([first, array[1:]]) for array, first in zip(layer, source_layer, strict=True))
        for layer, source_layer in zip(state, source, strict=True)
    )


def select_rows(state: State, rows: np.ndarray | slice) -> State:
    """The state of the texts `rows`, in that order; a text may be selected more than once. A slice returns views."""
    return tuple(tuple(array[rows] for array in layer) for layer in state)
