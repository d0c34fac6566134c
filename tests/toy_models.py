"""Models for tests, with random parameters or a known distribution, a text for them, and settings of a short run."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from quickfox.config.model import Architecture, ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.models.language_model import LanguageModel, Prior, State
from quickfox.models.parameters import parameter_shapes
from quickfox.models.registry import build_language_model

NETWORK_ARCHITECTURES: tuple[Architecture, ...] = tuple(
    architecture for architecture in get_args(Architecture) if architecture != "ngram"
)

NGRAM_TABLES = {
    "ngram.1.probs": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    "ngram.2.offsets": np.array([0, 2, 3, 3, 3], np.uint32),
    "ngram.2.tokens": np.array([1, 3, 0], np.uint8),
    "ngram.2.probs": np.array([0.5, 0.25, 0.5], np.float32),
    "ngram.3.offsets": np.array([0, 1, 1, 2], np.uint32),
    "ngram.3.tokens": np.array([2, 1], np.uint8),
    "ngram.3.probs": np.array([0.5, 0.5], np.float32),
}
"""Tables of 4 tokens, with ngrams = (4, 3, 2)."""


def training_config(**changes: Any) -> TrainingConfig:
    """The settings of a short training run, with these changes."""
    settings: dict[str, Any] = {
        "steps": 40,
        "batch_size": 4,
        "window": 8,
        "learning_rate": 0.02,
        "warmup_steps": 5,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "dropout": 0.0,
        "validation_interval": 20,
        "patience": None,
        "random_seed": 1,
        "precision": "float32",
        "threads": 2,
    }
    return TrainingConfig(**settings | changes)


def markov_text(length: int, vocabulary_size: int, random_seed: int = 0) -> np.ndarray:
    """Token ids (length,) uint8, each of which is most often the one before it plus 1."""
    steps = np.random.default_rng(random_seed).choice([0, 1, 2], size=length, p=[0.1, 0.7, 0.2])
    return (np.cumsum(steps) % vocabulary_size).astype(np.uint8)


def random_parameters(config: ModelConfig, *, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Normally distributed weights and biases, none of them zero; the same ones for the same configuration."""
    random = np.random.default_rng(0)
    return {
        name: random.normal(scale=scale, size=shape).astype(np.float32)
        for name, shape in parameter_shapes(config).items()
    }


def random_lstm(vocabulary_size: int, ngram_gate: int = 0) -> LanguageModel:
    """A small lstm with two layers."""
    config = ModelConfig(
        vocabulary_size=vocabulary_size, embedding_dim=3, hidden_dim=6, num_layers=2, ngram_gate=ngram_gate
    )
    return build_language_model(config, random_parameters(config))


class FixedModel:
    """A network with the same logits, (V,), at every position."""

    context = None

    def __init__(self, logits: Sequence[float] | np.ndarray) -> None:
        self.logits = np.array(logits, np.float32)

    def initial_state(self, batch_size: int) -> State:
        return ()

    def forward(self, token_ids: np.ndarray, state: State, prior: Prior | None = None) -> tuple[np.ndarray, State]:
        return np.broadcast_to(self.logits, (*token_ids.shape, len(self.logits))), state


def fixed_distribution(*probabilities: float) -> FixedModel:
    """A language model with the same distribution at every position."""
    return FixedModel(np.log(np.array(probabilities, np.float32)) + 3)  # logits are unnormalized
