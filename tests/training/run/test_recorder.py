"""What reaches the disk while a run trains: checkpoints when they are due, whatever fails meanwhile."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
from run_driver import outcome, resume, start

from quickfox.checkpoints.run_directory import list_checkpoint_directories, list_checkpoints
from quickfox.errors import DivergedError, StorageError
from quickfox.files import atomic
from quickfox.training.engine import trainer

pytestmark = pytest.mark.usefixtures("fake_training")


def test_a_full_disk_keeps_the_checkpoints_that_were_saved(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = atomic._write

    def write_until_full(path: Path, flags: int, data: bytes) -> None:
        if path.name == "training.safetensors" and len(list_checkpoint_directories(tmp_path / "run")) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, flags, data)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", write_until_full)
        with pytest.raises(StorageError, match="No space left"):
            start(tmp_path, checkpoint_every="10")
    assert [checkpoint.manifest.step for checkpoint in list_checkpoints(tmp_path / "run")] == [10, 20]
    assert not list((tmp_path / "run").rglob(".quickfox-*"))
    assert resume(tmp_path)[0].step == 20
    assert outcome(tmp_path) == outcome(uninterrupted)


@pytest.mark.parametrize(("bad_step", "checkpoint_every", "kept"), [(56, "40", 50), (56, "1", 55), (75, "1000", 50)])
def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad_step: int,
    checkpoint_every: str,
    kept: int,
) -> None:
    """Detected in the next step's loss, in the weights to be saved, or in the validation loss."""
    learning_rate = trainer.learning_rate

    def rate_until_bad(step: int, *plan: Any) -> float:
        return learning_rate(step, *plan) if step < bad_step - 1 else math.nan

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "learning_rate", rate_until_bad)
        with pytest.raises(DivergedError, match=f"step {bad_step}|step {bad_step + 1}"):
            start(tmp_path, checkpoint_every=checkpoint_every)
    assert list_checkpoints(tmp_path / "run")[-1].manifest.step == kept
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted)
