"""The constructor of each architecture, and of the mixture with n-grams."""

from collections.abc import Callable, Mapping

import numpy as np

from quickfox.config.model import Architecture, ModelConfig
from quickfox.models.attention_rnn import AttentionRNNLanguageModel
from quickfox.models.inputs import Frames
from quickfox.models.language_model import (
    LanguageModel,
    NetworkLanguageModel,
    TokenExclusion,
    TraceableNetwork,
)
from quickfox.models.mixture import MixtureLanguageModel
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.models.parallel import ParallelNetwork
from quickfox.models.recurrent import RecurrentLanguageModel
from quickfox.models.transformer import TransformerLanguageModel

_Builder = Callable[[ModelConfig, Mapping[str, np.ndarray], Frames | None], TraceableNetwork]
_BUILDERS: dict[Architecture, _Builder] = {
    "rnn": RecurrentLanguageModel,
    "gru": RecurrentLanguageModel,
    "lstm": RecurrentLanguageModel,
    "attention-rnn": AttentionRNNLanguageModel,
    "transformer": TransformerLanguageModel,
}


def build_network(
    config: ModelConfig, parameters: Mapping[str, np.ndarray], frames: Frames | None = None
) -> TraceableNetwork:
    """The network of a model that has one; for the arguments see `build_language_model`."""
    return _BUILDERS[config.architecture](config, parameters, frames)


def build_language_model(
    config: ModelConfig,
    parameters: Mapping[str, np.ndarray],
    threads: int = 1,
    unknown_token: int | None = None,
    frames: Frames | None = None,
) -> LanguageModel:
    """The language model that `config` describes.

    Args:
        config: fixes the architecture and all shapes.
        parameters: name -> array, as `parameters.tensor_specs(config)` lists them; not changed.
        threads: on which the network processes a batch of texts; if more than one, NumPy should use one thread.
        unknown_token: a token id that the model reads but never predicts; None: there is none.
        frames: of the signals that the model will read, see `inputs`; None: none.

    Returns:
        The network, the n-gram model, or, if the config describes both, their mixture. Without n-gram tables, a network
        with an n-gram gate computes the logits of the network alone.
    """
    model = _build_complete(config, parameters, threads, frames)
    return model if unknown_token is None else TokenExclusion(model, unknown_token)


def _build_complete(
    config: ModelConfig, parameters: Mapping[str, np.ndarray], threads: int, frames: Frames | None
) -> LanguageModel:
    ngram = NgramLanguageModel(config, parameters) if config.ngrams else None
    if config.architecture == "ngram":
        assert ngram is not None, "an ngram model has tables"
        return ngram
    network: NetworkLanguageModel = build_network(config, parameters, frames)
    if threads > 1:
        network = ParallelNetwork(network, threads)
    if ngram is None:
        return network
    return MixtureLanguageModel(network, ngram, config.vocabulary_size, config.exponents, adapts=config.exponents_adapt)
