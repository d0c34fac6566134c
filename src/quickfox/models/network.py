"""What all networks have in common in NumPy: the output layer, to which an n-gram gate may add.

    logits = h W + b + the n-gram term (see `ngram.gate`)

with h the vector that the layers of the network compute for a position. The transformer has no b.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.language_model import LayerTrace, Prior, State
from quickfox.models.ngram.gate import NgramGate


class Network(ABC):
    """A `TraceableNetwork`, of which a subclass computes h; for its arguments see `registry.build_language_model`."""

    context: int | None = None

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> None:
        tied = config.tied_embeddings
        self._output_kernel = parameters["embedding.weight"].T if tied else parameters["output.kernel"]  # (H, V)
        self._output_bias = parameters.get("output.bias")  # (V,)
        self._ngram_gate = NgramGate(config, parameters)

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state of `batch_size` texts before their first token."""

    @abstractmethod
    def _hidden(
        self, token_ids: np.ndarray, state: State, traces: list[LayerTrace] | None = None
    ) -> tuple[np.ndarray, State]:
        """h of each position, (B, T, H), and the state after the window; `traces`: if given, each layer's is appended.

        Arguments are those of `forward`.
        """

    def forward(self, token_ids: np.ndarray, state: State, prior: Prior | None = None) -> tuple[np.ndarray, State]:
        hidden, new_state = self._hidden(token_ids, state)
        # The rows of one product: with one token of each text, `hidden @ kernel` would be a product for each text.
        logits = hidden.reshape(-1, hidden.shape[-1]) @ self._output_kernel  # (B T, H) -> (B T, V)
        if self._output_bias is not None:
            logits += self._output_bias
        logits = logits.reshape(*token_ids.shape, -1)
        self._ngram_gate.add_prior(logits, hidden, prior)
        return logits, new_state

    def trace(self, token_ids: np.ndarray, state: State) -> tuple[list[LayerTrace], State]:
        traces: list[LayerTrace] = []
        _, new_state = self._hidden(token_ids, state, traces)
        return traces, new_state
