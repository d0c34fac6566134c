"""What a machine cannot hold is refused before it is begun."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from quickfox.config import ModelConfig, TrainingConfig
from quickfox.errors import CannotCreateError, StorageError, UsageError
from quickfox.models.parameters import parameter_count
from quickfox.training.cost import training_memory
from quickfox.training.resources import check_disk_space, check_memory

MODEL = ModelConfig(vocabulary_size=3, embedding_dim=4, hidden_dim=16)
TRAINING = TrainingConfig(
    steps=40,
    batch_size=4,
    window=8,
    learning_rate=0.02,
    warmup_steps=5,
    weight_decay=0.0,
    clip_norm=1.0,
    dropout=0.0,
    validation_interval=20,
    patience=None,
    random_seed=1,
    precision="float32",
    threads=2,
)


def have_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": size}.__getitem__)


def have_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_a_small_model_fits(tmp_path: Path) -> None:
    check_memory(MODEL, TRAINING)
    check_disk_space(tmp_path, MODEL, TRAINING)


def test_what_does_not_fit_into_memory_by_a_byte_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = training_memory(MODEL, TRAINING)
    have_memory(monkeypatch, needed)
    check_memory(MODEL, TRAINING)
    have_memory(monkeypatch, needed - 1)
    with pytest.raises(UsageError, match=r"1,\d\d\d parameters on batches of 4 x 8 tokens .* smaller --hidden-dim"):
        check_memory(MODEL, TRAINING)


def test_workers_need_the_memory_of_their_share_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    large = dataclasses.replace(TRAINING, batch_size=2**16)
    have_memory(monkeypatch, training_memory(MODEL, large) - 1)
    with pytest.raises(UsageError, match="batches of 65536 x 8 tokens"):
        check_memory(MODEL, large)
    check_memory(MODEL, large, workers=4)


def test_the_largest_settings_of_all_are_refused_in_a_line() -> None:
    model = ModelConfig(vocabulary_size=2**24, embedding_dim=2**16, hidden_dim=2**16, num_layers=64)
    with pytest.raises(UsageError, match="GiB") as caught:
        check_memory(model, dataclasses.replace(TRAINING, batch_size=2**16, window=2**10))
    assert "\n" not in str(caught.value)


def test_a_disk_that_cannot_hold_the_checkpoints_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_checkpoints = 3 * 3 * 4 * parameter_count(MODEL)  # weights and two moments each; a fourth is being written
    have_disk(monkeypatch, three_checkpoints)
    with pytest.raises(StorageError, match="make room") as caught:
        check_disk_space(tmp_path, MODEL, TRAINING)
    assert str(tmp_path) in str(caught.value)
    have_disk(monkeypatch, 2 * three_checkpoints)
    check_disk_space(tmp_path, MODEL, TRAINING)


def test_a_folder_that_is_not_there_has_no_space(tmp_path: Path) -> None:
    with pytest.raises(CannotCreateError, match="nowhere"):
        check_disk_space(tmp_path / "nowhere", MODEL, TRAINING)


def test_the_cache_of_many_streams_takes_its_place_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelConfig(
        architecture="transformer", vocabulary_size=3, embedding_dim=16, hidden_dim=16, num_layers=2, context=1024
    )
    training = dataclasses.replace(TRAINING, window=1, batch_size=64)
    have_disk(monkeypatch, 4 * 4 * 2 * 2 * 64 * 1024 * 16)  # four checkpoints of keys and values in two layers
    with pytest.raises(StorageError, match="make room"):
        check_disk_space(tmp_path, model, training)
    check_disk_space(tmp_path, dataclasses.replace(model, context=8), training)
