"""The interface of a language model, and the constructor of each architecture and of the mixture with n-grams.

A model is stateless: `forward` takes the state and returns the next one, so one model can process any number of texts,
each from its own state.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from quickfox.config.model import Architecture, ModelConfig
from quickfox.models.attention_rnn import AttentionRNNLanguageModel
from quickfox.models.mixture import MixtureLanguageModel
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.models.recurrent import RecurrentLanguageModel
from quickfox.models.state import State
from quickfox.models.transformer import TransformerLanguageModel


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


_BUILDERS: dict[Architecture, Callable[[ModelConfig, Mapping[str, np.ndarray]], LanguageModel]] = {
    "rnn": RecurrentLanguageModel,
    "gru": RecurrentLanguageModel,
    "lstm": RecurrentLanguageModel,
    "attention-rnn": AttentionRNNLanguageModel,
    "transformer": TransformerLanguageModel,
}


def build_language_model(config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> LanguageModel:
    """The language model that `config` describes.

    Args:
        config: fixes the architecture and all shapes.
        parameters: name -> array, as `parameters.tensor_specs(config)` lists them; not changed.

    Returns:
        The network, the n-gram model, or, if the config describes both, their mixture.
    """
    ngram = NgramLanguageModel(config, parameters) if config.ngrams else None
    if config.architecture == "ngram":
        assert ngram is not None, "an ngram model has tables"
        return ngram
    network = _BUILDERS[config.architecture](config, parameters)
    return network if ngram is None else MixtureLanguageModel(network, ngram, config.vocabulary_size)
