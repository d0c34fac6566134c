"""What several rooms' tests need: a small model that nobody had to train."""

from pathlib import Path

import numpy as np
import pytest

from quickfox.checkpoints.checkpoint import ModelBundle, save_checkpoint
from quickfox.config.model import ModelConfig
from quickfox.models.parameters import parameter_shapes
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer

CHARACTERS = tuple(sorted("\n abcdefghijklmnopqrstuvwxyzäß"))


def random_bundle(random_seed: int = 0, characters: tuple[str, ...] = CHARACTERS) -> ModelBundle:
    """A model of random weights and biases, none of them zero."""
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
    """A model directory with a random model."""
    directory = tmp_path_factory.mktemp("models") / "random"
    save_checkpoint(directory, random_bundle(), None)
    return directory
