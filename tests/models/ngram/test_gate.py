"""The n-gram gate, compared with its definition."""

import dataclasses

import numpy as np
import pytest

from quickfox.config.model import ATTENTION_ARCHITECTURES, Architecture, ModelConfig
from quickfox.models.language_model import Prior
from quickfox.models.ngram.gate import NgramGate
from quickfox.models.registry import build_language_model
from toy_models import NETWORK_ARCHITECTURES, random_parameters

SIZE, ORDER = 4, 3
TOKENS = np.array([[0, 3, 1, 1, 2], [2, 2, 1, 0, 3]])
RANDOM = np.random.default_rng(0)
PRIOR = Prior(
    np.log(RANDOM.dirichlet(np.ones(SIZE), TOKENS.shape)).astype(np.float32), RANDOM.integers(0, ORDER, TOKENS.shape)
)


def gated_config(architecture: Architecture) -> ModelConfig:
    """A network with as many tokens as hidden units."""
    has_attention = architecture in ATTENTION_ARCHITECTURES
    return ModelConfig(
        architecture=architecture,
        vocabulary_size=SIZE,
        embedding_dim=SIZE,
        hidden_dim=SIZE,
        num_layers=2,
        num_heads=2 if has_attention else 1,
        context=3 if has_attention else None,
        ngram_gate=ORDER,
    )


def logits_of(config: ModelConfig, parameters: dict[str, np.ndarray], prior: Prior | None) -> np.ndarray:
    for array in parameters.values():
        array.flags.writeable = False  # no model changes its parameters
    model = build_language_model(config, parameters)
    logits, _ = model.forward(TOKENS, model.initial_state(2), prior)
    assert (logits.shape, logits.dtype) == ((*TOKENS.shape, SIZE), np.float32)
    return logits


def test_one_position_by_hand() -> None:
    config = dataclasses.replace(gated_config("lstm"), hidden_dim=2)
    parameters = {"ngram_gate.kernel": np.float32([0.5, -1]), "ngram_gate.length_bias": np.float32([9, 9, 0.25])}
    logits = np.array([[[1.0, 2, 3, 4]]], np.float32)
    prior = Prior(np.array([[[-1.0, -2, -4, 0]]], np.float32), np.array([[2]]))
    NgramGate(config, parameters).add_prior(logits, np.array([[[3.0, 2]]], np.float32), prior)
    # s = 1 + (0.5 * 3 - 1 * 2) + 0.25 = 0.75
    np.testing.assert_allclose(logits, [[[0.25, 0.5, 0, 4]]], atol=1e-6)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_the_gate_as_defined(architecture: Architecture) -> None:
    config = gated_config(architecture)
    output = {"output.kernel": np.eye(SIZE, dtype=np.float32), "output.bias": np.zeros(SIZE, np.float32)}
    parameters = random_parameters(config)
    parameters |= {name: array for name, array in output.items() if name in parameters}
    hidden = logits_of(config, parameters, None)  # the output layer is the identity
    kernel, length_bias = parameters["ngram_gate.kernel"], parameters["ngram_gate.length_bias"]
    expected = hidden.copy()
    for text, position in np.ndindex(*TOKENS.shape):
        scale = 1 + hidden[text, position] @ kernel + length_bias[PRIOR.lengths[text, position]]
        expected[text, position] += scale * PRIOR.log_probs[text, position]
    assert np.abs(expected - hidden).max() > 1, "the term is not small"
    np.testing.assert_allclose(logits_of(config, parameters, PRIOR), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_a_gate_of_zeros_multiplies_both_distributions(architecture: Architecture) -> None:
    config = gated_config(architecture)
    parameters = random_parameters(config)
    parameters |= {name: np.zeros_like(array) for name, array in parameters.items() if name.startswith("ngram_gate.")}
    alone = logits_of(config, parameters, None)
    np.testing.assert_allclose(logits_of(config, parameters, PRIOR), alone + PRIOR.log_probs, atol=1e-5)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_without_a_prior_or_a_gate_it_is_the_network_alone(architecture: Architecture) -> None:
    config = gated_config(architecture)
    parameters = random_parameters(config)
    without_gate = dataclasses.replace(config, ngram_gate=0)
    alone = logits_of(without_gate, parameters, None)
    np.testing.assert_array_equal(logits_of(config, parameters, None), alone)
    np.testing.assert_array_equal(logits_of(without_gate, parameters, PRIOR), alone)
    assert not np.allclose(logits_of(config, parameters, PRIOR), alone)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
@pytest.mark.parametrize("window", [1, 2, 4])
def test_windows_and_texts_are_independent(architecture: Architecture, window: int) -> None:
    config = gated_config(architecture)
    parameters = random_parameters(config)
    expected = logits_of(config, parameters, PRIOR)
    model = build_language_model(config, parameters)
    for text in range(len(TOKENS)):
        state = model.initial_state(1)
        for start in range(0, TOKENS.shape[1], window):
            part = slice(text, text + 1), slice(start, start + window)
            logits, state = model.forward(TOKENS[part], state, Prior(*(array[part] for array in PRIOR)))
            np.testing.assert_allclose(logits, expected[part], atol=1e-5)
