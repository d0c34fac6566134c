"""Settings and fixtures of all tests: reproducible property tests, and a small model with random weights."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from quickfox.checkpoints.checkpoint import ModelBundle, save_checkpoint
from quickfox.config.model import ModelConfig
from quickfox.models.parameters import parameter_shapes
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer

settings.register_profile("reproducible", max_examples=50, derandomize=True, deadline=None)
settings.load_profile("reproducible")
settings.register_profile("thorough", max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))

CHARACTERS = tuple(sorted("\n abcdefghijklmnopqrstuvwxyzäß"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests of several processes, unless the expression after `-m` names them."""
    if "distributed" in config.option.markexpr:
        return
    distributed = [item for item in items if item.get_closest_marker("distributed")]
    if distributed:
        config.hook.pytest_deselected(items=distributed)
        items[:] = [item for item in items if item not in set(distributed)]


def random_bundle(random_seed: int = 0, characters: tuple[str, ...] = CHARACTERS) -> ModelBundle:
    """A model with random weights and biases, all of them non-zero."""
    config = ModelConfig(vocabulary_size=len(characters), embedding_dim=5, hidden_dim=7, num_layers=2)
    random = np.random.default_rng(random_seed)
    parameters = {
        name: random.normal(scale=0.5, size=shape).astype(np.float32)
        for name, shape in parameter_shapes(config).items()
    }
    tokenizer = CharacterTokenizer(Vocabulary(characters))
    return ModelBundle(config, tokenizer, parameters, step=3, validation_loss=2.5, sampling={"temperature": 0.8})


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with random weights."""
    directory = tmp_path_factory.mktemp("models") / "random"
    save_checkpoint(directory, random_bundle(), None)
    return directory
