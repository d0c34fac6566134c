"""The interface of a language model, and the state that it carries from token to token.

A model is stateless: `forward` takes the state and returns the next one, so one model can process any number of texts,
each from its own state. The state consists of arrays whose first axis is the batch.
"""

from typing import Protocol

import numpy as np

LayerState = tuple[np.ndarray, ...]
"""The arrays of one layer: h, and c of an lstm, each (B, H) float32; of attention: the cached keys and values,
and the number of positions read (B,)."""

State = tuple[LayerState, ...]
"""One `LayerState` per layer, the lowest first. Only the model that returned it interprets it."""


class LanguageModel(Protocol):
    """A function from the tokens read so far to the distribution of the next token."""

    @property
    def context(self) -> int | None:
        """Maximum number of last tokens that a token attends to; None: no attention, no limit."""

    def initial_state(self, batch_size: int) -> State:
        """The state of `batch_size` texts before their first token."""

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Read the next tokens of each text.

        Args:
            token_ids: (B, T) integers, 0 <= id < V, T >= 1.
            state: as returned by `initial_state(B)` or by the last call; not changed.

        Returns:
            (B, T, V) float32 logits: [b, t] is the unnormalized log-probability of the token after token t of text b;
            and the state after the last token.
        """


def replace_first(state: State, source: State) -> State:
    """A copy of a state of B texts, with the state of the first replaced by `source`, the state of one text."""
    return tuple(
        tuple(np.concatenate([first, array[1:]]) for array, first in zip(layer, source_layer, strict=True))
        for layer, source_layer in zip(state, source, strict=True)
    )


def select_rows(state: State, rows: np.ndarray | slice) -> State:
    """The state of the texts `rows`, in that order; a text may be selected more than once. A slice returns views."""
    return tuple(tuple(array[rows] for array in layer) for layer in state)
