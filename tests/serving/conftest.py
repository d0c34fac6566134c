"""A server for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ngram_models import mix_with_ngrams
from quickfox.checkpoints.checkpoint import load_model, save_checkpoint
from running_server import RunningServer, run_server


@pytest.fixture(scope="session")
def mixture_directory(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    """A model directory with random weights, mixed with n-grams."""
    directory = tmp_path_factory.mktemp("models") / "mixture"
    save_checkpoint(directory, mix_with_ngrams(load_model(model_directory), "the quick brown fox\n" * 3, 3), None)
    return directory


@pytest.fixture(scope="session")
def server(model_directory: Path, mixture_directory: Path) -> Iterator[RunningServer]:
    """A server of the models "random" and "mixture" that accepts small requests only."""
    with run_server(model_directory, mixture_directory, "--max-length", 2000) as running:
        yield running
