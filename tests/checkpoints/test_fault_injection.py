"""Writing that fails, or dies, at any system call: what was there is whole, or what should be there is."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mutations import BUNDLE, STATE
from quickfox.checkpoints.checkpoint import load_model, load_training_state, save_checkpoint
from quickfox.checkpoints.run_directory import checkpoint_directory, list_checkpoints, prune_checkpoints
from quickfox.errors import ExitStatus, StorageError
from quickfox.files.atomic import append_line, commit_directory, remove_directory, remove_temporaries, write_file

SYSTEM_CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "scandir")
"""All that durable.py, pathlib and shutil.rmtree ask of the system to change a disk."""

MOST_CALLS = 300

Content = dict[str, bytes]
FILES = {"a": b"1" * 100, "b": b"", "manifest": b"3"}
IN_FOLDER = {f"folder/{name}": data for name, data in FILES.items()}
LOSSES = {1: 1.0, 2: 5.0, 3: 4.0, 4: 3.0}


class Fault:
    """Does something at the n-th system call that changes the disk, and, if told so, at every later one."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, action: Callable[[], None], lasting: bool = False) -> None:
        self.calls = 0
        for name in SYSTEM_CALLS:
            patch.setattr(os, name, self._counted(getattr(os, name), at, action, lasting))

    def _counted(
        self, call: Callable[..., object], at: int, action: Callable[[], None], lasting: bool
    ) -> Callable[..., object]:
        def counted(*args: object, **options: object) -> object:
            self.calls += 1
            if self.calls == at or (lasting and self.calls > at):
                action()
            return call(*args, **options)

        return counted


@dataclass(frozen=True)
class Operation:
    """What writes, and the contents of the folder it may leave.

    Attributes:
        prepare: makes what is there before, in a folder.
        run: the operation, in that folder.
        before, after: what is to be seen in the folder, temporaries aside; nothing else ever is.
        leaves_temporaries: whether a failure, not only a kill, can leave one for the next start.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    before: Content
    after: Content
    leaves_temporaries: bool = False


OPERATIONS = {
    "write a new file": Operation(
        prepare=lambda folder: None,
        run=lambda folder: write_file(folder / "file", b"new"),
        before={},
        after={"file": b"new"},
    ),
    "replace a file": Operation(
        prepare=lambda folder: write_file(folder / "file", b"old"),
        run=lambda folder: write_file(folder / "file", b"new"),
        before={"file": b"old"},
        after={"file": b"new"},
    ),
    "replace a linked file": Operation(
        prepare=lambda folder: (write_file(folder / "file", b"old"), (folder / "link").symlink_to("file")),
        run=lambda folder: write_file(folder / "link", b"new"),
        before={"file": b"old", "link": b"old"},
        after={"file": b"new", "link": b"new"},
    ),
    "commit a folder": Operation(
        prepare=lambda folder: None,
        run=lambda folder: commit_directory(folder / "folder", FILES),
        before={},
        after=IN_FOLDER,
    ),
    "commit over an empty folder": Operation(
        prepare=lambda folder: (folder / "folder").mkdir(),
        run=lambda folder: commit_directory(folder / "folder", FILES),
        before={},
        after=IN_FOLDER,
    ),
    "append to a new file": Operation(
        prepare=lambda folder: None,
        run=lambda folder: append_line(folder / "log", "one"),
        before={},
        after={"log": b"one\n"},
    ),
    "append a line": Operation(
        prepare=lambda folder: append_line(folder / "log", "one"),
        run=lambda folder: append_line(folder / "log", "two"),
        before={"log": b"one\n"},
        after={"log": b"one\ntwo\n"},
    ),
    "remove a folder": Operation(
        prepare=lambda folder: commit_directory(folder / "folder", FILES),
        run=lambda folder: remove_directory(folder / "folder"),
        before=IN_FOLDER,
        after={},
        leaves_temporaries=True,
    ),
}

operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
failures = pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])


def visible(folder: Path) -> Content:
    """Every file under `folder` that is in no temporary."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {str(name): path.read_bytes() for name, path in paths.items() if not str(name).startswith(".quickfox-")}


def temporaries(folder: Path) -> list[Path]:
    return list(folder.rglob(".quickfox-*"))


def fail_at(call: int, number: int, action: Callable[[], object], lasting: bool = False) -> tuple[bool, bool]:
    """Run `action` with that system call failing; returns whether it came so far, and whether it told of a failure."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, call, fail, lasting)
        try:
            action()
        except StorageError as error:
            told: StorageError | None = error
        else:
            told = None
    if told is not None:
        assert told.exit_status == ExitStatus.IO_ERROR
        assert str(told).startswith("cannot ")
    return fault.calls >= call, told is not None


def kill_at(call: int, action: Callable[[], object]) -> bool:
    """Run `action` in a process of its own that is killed at that system call; returns whether it came so far."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                Fault(patch, call, lambda: os.kill(os.getpid(), signal.SIGKILL))
                action()
            status = 0
        finally:
            os._exit(status)  # nothing of pytest's runs in the child
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def is_as_before_or_after(seen: Content, operation: Operation) -> bool:
    """An append that was cut off may have left an empty new file."""
    return seen in (operation.before, operation.after) or (operation.before == {} and seen == {"log": b""})


@operations
@failures
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_failing_disk(tmp_path: Path, operation: Operation, number: int, lasting: bool) -> None:
    for call in range(1, MOST_CALLS):
        folder = tmp_path / str(call)
        folder.mkdir()
        operation.prepare(folder)
        reached, failed = fail_at(call, number, lambda folder=folder: operation.run(folder), lasting)
        assert failed or visible(folder) == operation.after
        assert is_as_before_or_after(visible(folder), operation)
        if not lasting and not operation.leaves_temporaries:  # a disk that stays dead cannot be tidied up
            assert temporaries(folder) == []
        remove_temporaries(folder)
        assert temporaries(folder) == []
        assert is_as_before_or_after(visible(folder), operation)
        if not reached:
            assert not failed
            return
    pytest.fail("it never ended")


@operations
def test_a_kill_at_any_system_call(tmp_path: Path, operation: Operation) -> None:
    for call in range(1, MOST_CALLS):
        folder = tmp_path / str(call)
        folder.mkdir()
        operation.prepare(folder)
        was_killed = kill_at(call, lambda folder=folder: operation.run(folder))
        assert is_as_before_or_after(visible(folder), operation)
        remove_temporaries(folder)
        assert temporaries(folder) == []
        if not was_killed:
            assert visible(folder) == operation.after
            return
    pytest.fail("it never ended")


def test_a_disk_that_takes_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_line(tmp_path / "log", "one")
    write = os.write
    pieces = iter([2])

    def write_a_little(descriptor: int, data: bytes) -> int:
        if (size := next(pieces, None)) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:size])

    monkeypatch.setattr(os, "write", write_a_little)
    with pytest.raises(StorageError):
        append_line(tmp_path / "log", "two")
    assert visible(tmp_path) == {"log": b"one\n"}


def save(run: Path, step: int) -> None:
    bundle = replace(BUNDLE, step=step, validation_loss=LOSSES[step])
    save_checkpoint(checkpoint_directory(run, step), bundle, STATE)


@pytest.fixture(scope="module")
def three_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three checkpoints; after the fourth, the second may go."""
    run = tmp_path_factory.mktemp("faults") / "run"
    for step in (1, 2, 3):
        save(run, step)
    return run


def save_and_prune(run: Path) -> None:
    save(run, 4)
    prune_checkpoints(run)


def steps_that_load(run: Path) -> list[int]:
    """The steps of all checkpoints, each verified and read in full: one that is damaged would raise."""
    damaged: list[Exception] = []
    steps = [checkpoint.manifest.step for checkpoint in list_checkpoints(run, damaged)]
    assert damaged == []
    for step in steps:
        assert load_model(checkpoint_directory(run, step)).step == step
        load_training_state(checkpoint_directory(run, step))
    return steps


@failures
def test_saving_a_checkpoint_on_a_failing_disk(tmp_path: Path, three_checkpoints: Path, number: int) -> None:
    for call in range(1, MOST_CALLS):
        run = tmp_path / str(call)
        shutil.copytree(three_checkpoints, run)
        reached, failed = fail_at(call, number, lambda run=run: save_and_prune(run))
        assert failed or steps_that_load(run) == [1, 3, 4]
        assert steps_that_load(run) in ([1, 2, 3], [1, 2, 3, 4], [1, 3, 4])
        remove_temporaries(run / "checkpoints")
        assert temporaries(run) == []
        if not reached:
            assert not failed
            return
        save_and_prune_again(run)
    pytest.fail("it never ended")


def test_a_kill_at_any_system_call_of_saving_a_checkpoint(tmp_path: Path, three_checkpoints: Path) -> None:
    for call in range(1, MOST_CALLS):
        run = tmp_path / str(call)
        shutil.copytree(three_checkpoints, run)
        was_killed = kill_at(call, lambda run=run: save_and_prune(run))
        assert steps_that_load(run) in ([1, 2, 3], [1, 2, 3, 4], [1, 3, 4])
        remove_temporaries(run / "checkpoints")
        assert temporaries(run) == []
        if not was_killed:
            assert steps_that_load(run) == [1, 3, 4]
            return
        save_and_prune_again(run)
    pytest.fail("it never ended")


def save_and_prune_again(run: Path) -> None:
    """What the next start does: nothing that was left is in its way."""
    if 4 not in steps_that_load(run):
        save(run, 4)
    prune_checkpoints(run)
    assert steps_that_load(run) == [1, 3, 4]
