"""What a language model can do, whatever its architecture, and how one is built from its tensors. NumPy only.

All state is explicit: `forward` takes it and returns it and remembers nothing, so that one model serves any number
of texts at a time, each going on from wherever its state says.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from quickfox.config.model import Architecture, ModelConfig
from quickfox.models.attention_rnn import AttentionRNNLanguageModel
from quickfox.models.recurrent import RecurrentLanguageModel
from quickfox.models.state import State
from quickfox.models.transformer import TransformerLanguageModel


class LanguageModel(Protocol):
    """From the tokens read so far to the next one's distribution."""

    @property
    def context(self) -> int | None:
        """How many of the last tokens, at most, a token attends to directly; None: the model keeps no such bound."""

    def initial_state(self, batch_size: int) -> State:
        """The state of `batch_size` texts of which nothing has been read yet."""

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Read some tokens of each text.

        Args:
            token_ids: (B, T) integers, 0 <= id < V, T >= 1.
            state: as returned by `initial_state(B)` or by the last call; not changed.

        Returns:
            (B, T, V) float32 logits: [b, t] is the unnormalised log-probability of what follows token t of text b;
            and the state after the last token.
        """


_BUILDERS: dict[Architecture, Callable[[ModelConfig, Mapping[str, np.ndarray]], LanguageModel]] = {
    "rnn": RecurrentLanguageModel,
    "gru": RecurrentLanguageModel,
    "lstm": RecurrentLanguageModel,
    "attention-rnn": AttentionRNNLanguageModel,
    "transformer": TransformerLanguageModel,
}


def build_language_model(config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> LanguageModel:
    """The model that `config` describes, ready to run.

    Args:
        config: fixes the architecture and all shapes.
        parameters: name -> float32 array, as `parameters.parameter_shapes(config)` lists them; not changed.
    """
    return _BUILDERS[config.architecture](config, parameters)
