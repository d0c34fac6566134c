"""Fixtures of the tests of runs: short epochs, fake training, and runs that were or were not interrupted."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_driver import STEPS, at_step, start, start_ngram_model, write_run_json

from quickfox.training.engine.events import RunFinished, RunInterrupted
from quickfox.training.planning import auto_config
from quickfox.training.run import start as start_module


@pytest.fixture(scope="module")
def short_epochs() -> Iterator[None]:
    """Validates after every epoch, however short it is, so that short runs have several validations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_config, "MIN_VALIDATION_INTERVAL", 10)
        patch.setattr(auto_config, "VALIDATION_FRACTION", 10.0)
        yield


@pytest.fixture(scope="module")
def fake_training(short_epochs: None) -> Iterator[None]:
    """Trains without TensorFlow's compiler and without n-gram gates; see `fake_training.py`."""
    from fake_training import replace_compiled_training

    with pytest.MonkeyPatch.context() as patch:
        replace_compiled_training(patch)
        patch.setattr(start_module, "MAX_GATE_EPOCHS", 0.0)
        yield


@pytest.fixture(scope="module")
def uninterrupted(fake_training: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert isinstance(start(folder)[-1], RunFinished)
    return folder


@pytest.fixture(scope="module")
def uninterrupted_ngram_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an uninterrupted run of an n-gram model alone."""
    folder = tmp_path_factory.mktemp("ngram")
    assert isinstance(start_ngram_model(folder)[-1], RunFinished)
    return folder


@pytest.fixture(scope="module")
def stopped_once(fake_training: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with a checkpoint every 10 steps, stopped after step 60; read-only."""
    folder = tmp_path_factory.mktemp("stopped")
    last = start(folder, checkpoint_every="10", stop=at_step(60))[-1]
    assert isinstance(last, RunInterrupted)
    assert 60 <= last.step < STEPS
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of `stopped_once` with a corpus of its own, for a test to change."""
    folder = tmp_path / "copy"
    shutil.copytree(stopped_once, folder)
    record = folder / "run" / "run.json"
    write_run_json(record, json.loads(record.read_text().replace(str(stopped_once), str(folder))))
    return folder
