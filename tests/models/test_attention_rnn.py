"""The NumPy attention-rnn compared with two lstm stacks and a known attention output between them."""

from collections.abc import Callable

import numpy as np
import pytest

from quickfox.config.model import ModelConfig
from quickfox.models.attention_rnn import AttentionRNNLanguageModel
from quickfox.models.recurrent import RecurrentLanguageModel
from toy_models import random_parameters

CONFIG = ModelConfig(
    architecture="attention-rnn", vocabulary_size=9, embedding_dim=3, hidden_dim=4, num_heads=2, context=3
)
TOKENS = np.random.default_rng(1).integers(0, 9, size=(2, 8))


@pytest.fixture
def parameters() -> dict[str, np.ndarray]:
    return random_parameters(CONFIG, scale=0.6)


def logits_of(parameters: dict[str, np.ndarray]) -> np.ndarray:
    model = AttentionRNNLanguageModel(CONFIG, parameters)
    return model.forward(TOKENS, model.initial_state(2))[0]


def stacked_lstm_logits(parameters: dict[str, np.ndarray], attend: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The logits of two lstm models as encoder and decoder; `attend`: encoder outputs -> attention outputs."""
    encoder = ModelConfig(vocabulary_size=9, embedding_dim=3, hidden_dim=4)
    weights = {name.replace("encoder", "recurrent"): value for name, value in parameters.items() if "encoder" in name}
    weights |= {"embedding.weight": parameters["embedding.weight"]}
    weights |= {"output.kernel": np.eye(4, dtype=np.float32), "output.bias": np.zeros(4, np.float32)}
    model = RecurrentLanguageModel(encoder, weights)
    states, _ = model.forward(TOKENS, model.initial_state(2))  # (B, T, H)
    decoder_inputs = np.concatenate([states, attend(states)], axis=-1)  # (B, T, 2H)
    decoder = ModelConfig(vocabulary_size=16, embedding_dim=8, hidden_dim=4)  # each position is a token of its own
    weights = {name.replace("decoder", "recurrent"): value for name, value in parameters.items() if "decoder" in name}
    weights |= {"embedding.weight": decoder_inputs.reshape(16, 8)}
    weights |= {name: parameters[name] for name in ("output.kernel", "output.bias")}
    model = RecurrentLanguageModel(decoder, weights)
    return model.forward(np.arange(16).reshape(2, 8), model.initial_state(2))[0]


def test_zero_values_give_two_stacked_lstms(parameters: dict[str, np.ndarray]) -> None:
    parameters["attention.input_kernel"][:, 8:] = 0
    np.testing.assert_allclose(logits_of(parameters), stacked_lstm_logits(parameters, np.zeros_like), atol=1e-5)


def test_zero_queries_give_the_mean_of_the_values_in_the_context(parameters: dict[str, np.ndarray]) -> None:
    parameters["attention.input_kernel"][:, :4] = 0
    value_kernel = parameters["attention.input_kernel"][:, 8:]

    def mean_value(states: np.ndarray) -> np.ndarray:
        return np.stack([states[:, max(0, t - 2) : t + 1].mean(axis=1) @ value_kernel for t in range(8)], axis=1)

    np.testing.assert_allclose(logits_of(parameters), stacked_lstm_logits(parameters, mean_value), atol=1e-5)
