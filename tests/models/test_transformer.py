"""The NumPy transformer compared with Llama's equations for a whole text, in float64."""

import numpy as np
import pytest

from quickfox.config.model import ModelConfig
from quickfox.models.transformer import TransformerLanguageModel
from toy_models import random_parameters

Parameters = dict[str, np.ndarray]
CONTEXT = 5


@pytest.fixture(params=[False, True], ids="tied={}".format)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return ModelConfig(
        architecture="transformer", vocabulary_size=11, embedding_dim=12, hidden_dim=12, num_layers=3, num_heads=3,
        context=CONTEXT, tied_embeddings=request.param,
    )  # fmt: skip


@pytest.fixture
def parameters(config: ModelConfig) -> Parameters:
    return random_parameters(config, scale=0.5)


def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5) * weight


def rotate(vectors: np.ndarray) -> np.ndarray:
    """(n, d) -> (n, d): each pair (k, k + d/2), as a complex number, rotated by position / 10000^(2k/d)."""
    half = vectors.shape[1] // 2
    frequencies = 10000.0 ** (-np.arange(half) / half)
    pairs = (vectors[:, :half] + 1j * vectors[:, half:]) * np.exp(1j * np.arange(len(vectors))[:, None] * frequencies)
    return np.concatenate([pairs.real, pairs.imag], axis=1)


def naive_logits(config: ModelConfig, parameters: Parameters, token_ids: np.ndarray) -> np.ndarray:
    """(n,) token ids of one text -> (n, V) logits."""
    weights = {name: weight.astype(np.float64) for name, weight in parameters.items()}
    x = weights["embedding.weight"][token_ids]
    distance = np.arange(len(x))[:, None] - np.arange(len(x))
    for layer in range(config.num_layers):
        name = f"layers.{layer}"
        projected = norm(x, weights[f"{name}.attention_norm.weight"]) @ weights[f"{name}.attention.input_kernel"]
        heads = []
        for head in range(config.num_heads):
            width = config.hidden_dim // config.num_heads
            query, key, value = (
                part[:, head * width : (head + 1) * width] for part in np.split(projected, 3, axis=1)
            )  # fmt: skip
            scores = np.exp(rotate(query) @ rotate(key).T / np.sqrt(width))
            scores[(distance < 0) | (distance >= CONTEXT)] = 0
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ value)
        x = x + np.concatenate(heads, axis=1) @ weights[f"{name}.attention.output_kernel"]
        gate_and_up = (
            norm(x, weights[f"{name}.feed_forward_norm.weight"]) @ weights[f"{name}.feed_forward.input_kernel"]
        )
        gate, up = np.split(gate_and_up, 2, axis=1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[f"{name}.feed_forward.output_kernel"]
    output = weights["embedding.weight"].T if config.tied_embeddings else weights["output.kernel"]
    return norm(x, weights["norm.weight"]) @ output


def test_logits_match_the_equations(config: ModelConfig, parameters: Parameters) -> None:
    token_ids = np.random.default_rng(1).integers(0, 11, size=(2, 13))
    model = TransformerLanguageModel(config, parameters)
    logits, _ = model.forward(token_ids, model.initial_state(2))
    for row, text in zip(logits, token_ids, strict=True):
        np.testing.assert_allclose(row, naive_logits(config, parameters, text), atol=1e-4)


def test_each_layer_attends_to_its_context_only(config: ModelConfig, parameters: Parameters) -> None:
    """Three layers with a context of 5 reach back 12 positions, to token 7: token 6 does not change the last logits."""
    model = TransformerLanguageModel(config, parameters)
    token_ids = np.random.default_rng(2).integers(0, 10, size=(1, 20))
    last = [
        model.forward(changed, model.initial_state(1))[0][0, -1]
        for changed in (token_ids, *(np.where(np.arange(20) == at, 10, token_ids) for at in (6, 7)))
    ]
    np.testing.assert_array_equal(last[1], last[0])
    assert not np.array_equal(last[2], last[0])
