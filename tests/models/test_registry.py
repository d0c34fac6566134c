"""Every architecture can be built and implements the LanguageModel protocol; states are selected by row."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from quickfox.config.model import ATTENTION_ARCHITECTURES, Architecture, ModelConfig, ngram_config
from quickfox.models.language_model import LanguageModel, replace_first
from quickfox.models.mixture import MixtureLanguageModel
from quickfox.models.registry import build_language_model
from toy_models import NETWORK_ARCHITECTURES, NGRAM_TABLES, random_parameters


def random_config(architecture: Architecture, **changes: Any) -> ModelConfig:
    """Two layers; with attention, two heads and a context of three tokens."""
    has_attention = architecture in ATTENTION_ARCHITECTURES
    sizes: dict[str, Any] = {"vocabulary_size": 6, "embedding_dim": 4, "hidden_dim": 4, "num_layers": 2}
    attention = {"num_heads": 2, "context": 3} if has_attention else {}
    return ModelConfig(architecture=architecture, **sizes | attention | changes)


def random_model(architecture: Architecture) -> LanguageModel:
    config = random_config(architecture)
    parameters = random_parameters(config)
    for array in parameters.values():
        array.flags.writeable = False  # no model changes its parameters
    return build_language_model(config, parameters)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_logits_have_shape_batch_window_vocabulary(architecture: Architecture) -> None:
    model = random_model(architecture)
    logits, state = model.forward(np.array([[0, 5, 1], [2, 2, 4]]), model.initial_state(2))
    assert logits.shape == (2, 3, 6)
    assert logits.dtype == np.float32
    logits, _ = model.forward(np.array([[3], [3]]), state)
    assert logits.shape == (2, 1, 6)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_context_is_that_of_the_configuration(architecture: Architecture) -> None:
    assert random_model(architecture).context == (3 if architecture in ATTENTION_ARCHITECTURES else None)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_forward_does_not_change_the_given_state(architecture: Architecture) -> None:
    model = random_model(architecture)
    _, state = model.forward(np.array([[1, 2]]), model.initial_state(1))
    before = [array.copy() for layer in state for array in layer]
    first, _ = model.forward(np.array([[3]]), state)
    first_copy = first.copy()
    model.forward(np.array([[4, 0]]), state)
    second, _ = model.forward(np.array([[3]]), state)
    np.testing.assert_array_equal(first, first_copy)
    np.testing.assert_array_equal(first, second)
    for array, expected in zip((array for layer in state for array in layer), before, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_a_replaced_text_continues_from_its_new_state(architecture: Architecture) -> None:
    model = random_model(architecture)
    _, state = model.forward(np.array([[1, 2, 3, 4], [5, 5, 0, 1]]), model.initial_state(2))
    logits, _ = model.forward(np.array([[2, 1], [2, 1]]), replace_first(state, model.initial_state(1)))
    fresh, _ = model.forward(np.array([[2, 1]]), model.initial_state(1))
    carried, _ = model.forward(np.array([[2, 1], [2, 1]]), state)
    np.testing.assert_allclose(logits[0], fresh[0], atol=1e-6)
    np.testing.assert_allclose(logits[1], carried[1], atol=1e-6)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_the_network_of_a_mixture_reads_the_tables_by_its_gate(architecture: Architecture) -> None:
    config = random_config(architecture, vocabulary_size=4, ngram_gate=3)
    parameters = random_parameters(config)
    network, token_ids = build_language_model(config, parameters), np.array([[0, 1, 2], [3, 1, 0]])
    mixture = build_language_model(dataclasses.replace(config, ngrams=(4, 3, 2)), parameters | NGRAM_TABLES)
    ngram = build_language_model(ngram_config(4, (4, 3, 2)), NGRAM_TABLES)
    expected = MixtureLanguageModel(network, ngram, 4)
    logits, _ = mixture.forward(token_ids, mixture.initial_state(2))
    expected_logits, _ = expected.forward(token_ids, expected.initial_state(2))
    np.testing.assert_array_equal(logits, expected_logits)
    without_gate = build_language_model(dataclasses.replace(config, ngram_gate=0), parameters)
    alone = MixtureLanguageModel(without_gate, ngram, 4)
    logits_alone, _ = alone.forward(token_ids, alone.initial_state(2))
    assert not np.allclose(logits, logits_alone, atol=1e-3)


def test_replace_first_copies_and_changes_only_the_first_text() -> None:
    state = ((np.ones((3, 2)), np.full((3, 2), 2.0)), (np.full((3, 4), 3.0),))
    source = ((np.zeros((1, 2)), np.full((1, 2), -1.0)), (np.full((1, 4), -2.0),))
    replaced = replace_first(state, source)
    assert [[array[:, 0].tolist() for array in layer] for layer in replaced] == [
        [[0, 1, 1], [-1, 2, 2]],
        [[-2, 3, 3]],
    ]
    assert state[0][0].all(), "the given state is unchanged"
