"""Failures and kills at every system call of saving a checkpoint: every checkpoint that is left is complete."""

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from faults import MAX_CALLS, fail_at, kill_at, states_at_kills, temporaries, visible
from file_readers import BUNDLE, STATE
from quickfox.checkpoints.checkpoint import load_model, load_training_state, save_checkpoint
from quickfox.checkpoints.run_directory import (
    checkpoint_directory,
    finish_replacements,
    list_checkpoint_directories,
    list_checkpoints,
    prune_checkpoints,
    save_run_checkpoint,
)
from quickfox.files.atomic import remove_temporaries

LOSSES = {1: 1.0, 2: 5.0, 3: 4.0, 4: 3.0}


def save(run: Path, step: int) -> None:
    """Saves the checkpoint of a step, always with the same bytes."""
    bundle = replace(BUNDLE, step=step, validation_loss=LOSSES[step])
    save_checkpoint(checkpoint_directory(run, step), bundle, STATE)


@pytest.fixture(scope="module")
def four_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all four checkpoints, each of which can be loaded."""
    run = tmp_path_factory.mktemp("faults") / "run"
    for step in LOSSES:
        save(run, step)
        assert load_model(checkpoint_directory(run, step)).step == step
        load_training_state(checkpoint_directory(run, step))
    return run


@pytest.fixture(scope="module")
def three_checkpoints(four_checkpoints: Path) -> Path:
    """A run with three checkpoints; saving the fourth prunes the second."""
    run = four_checkpoints.with_name("three")
    shutil.copytree(four_checkpoints, run)
    shutil.rmtree(checkpoint_directory(run, 4))
    return run


@dataclass(frozen=True)
class Save:
    """Saves the fourth checkpoint of a copy of `three_checkpoints`, and compares the result with `four_checkpoints`."""

    run: Path
    reference: Path

    def save_and_prune(self) -> None:
        save(self.run, 4)
        prune_checkpoints(self.run)

    def complete_steps(self) -> list[int]:
        """The steps of all checkpoints; each must have exactly the files and bytes of the reference."""
        steps = [checkpoint.manifest.step for checkpoint in list_checkpoints(self.run)]
        for step in steps:
            found, expected = (visible(checkpoint_directory(run, step)) for run in (self.run, self.reference))
            assert found == expected
        assert len(list_checkpoint_directories(self.run)) == len(steps)
        return steps

    def check_result(self, is_finished: bool) -> None:
        """The result of a fault is valid, and the next start can save and prune."""
        steps = self.complete_steps()
        assert steps in ([[1, 3, 4]] if is_finished else [[1, 2, 3], [1, 2, 3, 4], [1, 3, 4]])
        remove_temporaries(self.run / "checkpoints")
        assert temporaries(self.run) == []
        if 4 not in steps:
            save(self.run, 4)
        prune_checkpoints(self.run)
        assert self.complete_steps() == [1, 3, 4]


@pytest.fixture
def saves(
    tmp_path: Path, three_checkpoints: Path, four_checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Save]:
    """A new copy of `three_checkpoints` for each system call."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)

    def copies() -> Iterator[Save]:
        for call in range(1, MAX_CALLS):
            shutil.copytree(three_checkpoints, tmp_path / str(call))
            yield Save(tmp_path / str(call), four_checkpoints)

    return copies()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_failing_system_call_while_saving_a_checkpoint(saves: Iterator[Save], number: int) -> None:
    for call, copy in enumerate(saves, start=1):
        reached, failed = fail_at(call, number, copy.save_and_prune)
        copy.check_result(is_finished=not failed)
        if not reached:
            assert not failed
            return
    pytest.fail("more system calls than expected")


@pytest.mark.slow
def test_a_kill_while_saving_a_checkpoint(saves: Iterator[Save]) -> None:
    for call, copy in enumerate(saves, start=1):
        was_killed = kill_at(call, copy.save_and_prune)
        copy.check_result(is_finished=not was_killed)
        if not was_killed:
            return
    pytest.fail("more system calls than expected")


def test_a_checkpoint_or_its_replacement_is_there_at_every_system_call(tmp_path: Path) -> None:
    run = tmp_path / "run"
    old, new = (replace(BUNDLE, step=1, validation_loss=loss) for loss in (None, 1.0))
    save_run_checkpoint(run, old, STATE)
    states = states_at_kills(run, tmp_path / "states", lambda: save_run_checkpoint(run, new, STATE))
    for state in [*states, run]:
        losses = {load_model(checkpoint.directory).validation_loss for checkpoint in list_checkpoints(state)}
        assert losses in ({None}, {1.0}, {None, 1.0})
        remove_temporaries(state / "checkpoints")
        finish_replacements(state)
        [checkpoint] = list_checkpoints(state)
        assert checkpoint.directory == checkpoint_directory(state, 1)
        load_training_state(checkpoint.directory)
    assert checkpoint.manifest.validation_loss == 1.0
