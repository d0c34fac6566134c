"""The interface of a language model, and the state that it carries from token to token.

A model is stateless: `forward` takes the state and returns the next one, so one model can process any number of texts,
each from its own state. The state consists of arrays whose first axis is the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

LayerState = tuple[np.ndarray, ...]
"""The arrays of one layer: h, and c of an lstm, each (B, H) float32; of attention: the cached keys and values,
and the number of positions read (B,)."""

State = tuple[LayerState, ...]
"""One `LayerState` per layer, the lowest first. Only the model that returned it interprets it."""


class Prior(NamedTuple):
    """What an n-gram model knows of the token after each token; a network with an n-gram gate reads it.

    Attributes:
        log_probs: (B, T, V) float32, the logarithms of the n-gram model's distribution.
        lengths: (B, T) integers from 0 to K - 1, the number of tokens of the longest context found in its tables of
            order K.
    """

    log_probs: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What a layer of a network computed for a window.

    Attributes:
        name: of the layer, as in the names of its parameters.
        units: (B, T, H) float32, its output: h of a recurrent layer, the residual stream after a transformer's layer.
        gates: name -> (B, T, H) float32 from 0, closed, to 1, open; empty: it has none.
        attention: (B, heads, T, context + T) float32, how much each position attends to the `context` positions before
            the window and to those of the window; rows sum to 1. None: it has no attention.
    """

    name: str
    units: np.ndarray
    gates: Mapping[str, np.ndarray] = field(default_factory=dict)
    attention: np.ndarray | None = None


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
            token_ids: (B, T) integers, T >= 1, from 0 to V - 1, or above for signals (see `inputs`).
            state: as returned by `initial_state(B)` or by the last call; not changed.

        Returns:
            (B, T, V) float32 logits: [b, t] is the unnormalized log-probability of the token after token t of text b;
            and the state after the last token.
        """


class NetworkLanguageModel(LanguageModel, Protocol):
    """A network as a `LanguageModel`, which may have an n-gram gate (see `ngram.gate`)."""

    def forward(self, token_ids: np.ndarray, state: State, prior: Prior | None = None) -> tuple[np.ndarray, State]:
        """As `LanguageModel.forward`.

        Args:
            prior: of the n-gram model after the same tokens, for a network with an n-gram gate; others ignore it. None:
                the logits of the network alone, without the n-gram term.
        """


class TokenExclusion:
    """A language model that never predicts one of its tokens, which has the logit -inf; the others keep theirs."""

    def __init__(self, model: LanguageModel, token_id: int) -> None:
        self.model = model
        self._token_id = token_id

    @property
    def context(self) -> int | None:
        return self.model.context

    def initial_state(self, batch_size: int) -> State:
        return self.model.initial_state(batch_size)

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        logits, state = self.model.forward(token_ids, state)
        logits[..., self._token_id] = -np.inf  # `forward` returns a new array
        return logits, state


class TraceableNetwork(NetworkLanguageModel, Protocol):
    """A network that also reports what its layers compute."""

    def trace(self, token_ids: np.ndarray, state: State) -> tuple[list[LayerTrace], State]:
        """What each layer computes for the tokens that `forward` would read, in the order of the layers' states."""


def replace_first(state: State, source: State) -> State:
    """A copy of a state of B texts, with the state of the first replaced by `source`, the state of one text."""
    return tuple(
        tuple(np.concatenate([first, array[1:]]) for array, first in zip(layer, source_layer, strict=True))
        for layer, source_layer in zip(state, source, strict=True)
    )


def select_rows(state: State, rows: np.ndarray | slice) -> State:
    """The state of the texts `rows`, in that order; a text may be selected more than once. A slice returns views."""
    return tuple(tuple(array[rows] for array in layer) for layer in state)


def concatenate_states(states: Sequence[State]) -> State:
    """The state of the texts of all `states`, at least one, in that order; all of the same model."""
    return tuple(tuple(map(np.concatenate, zip(*layers, strict=True))) for layers in zip(*states, strict=True))
