"""Let the n-th system call of a write fail, or kill the process there."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from quickfox.errors import ExitStatus, StorageError

SYSTEM_CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "listdir", "scandir")
"""All calls of atomic.py, pathlib and shutil.rmtree that change a disk, or flush it."""

MAX_CALLS = 300

Content = dict[str, bytes]


class Fault:
    """Performs an action before the n-th system call, and before all later ones if `lasting`.

    fsync is counted but not executed: without a power failure it has no effect but the time it takes.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int, action: Callable[[], None], lasting: bool = False) -> None:
        self.calls = 0
        for name in SYSTEM_CALLS:
            call = getattr(os, name) if name != "fsync" else lambda _descriptor: None
            patch.setattr(os, name, self._wrap(call, at, action, lasting))

    def _wrap(
        self, call: Callable[..., object], at: int, action: Callable[[], None], lasting: bool
    ) -> Callable[..., object]:
        def counted(*args: object, **options: object) -> object:
            self.calls += 1
            if self.calls == at or (lasting and self.calls > at):
                action()
            return call(*args, **options)

        return counted


def visible(folder: Path) -> Content:
    """All files under `folder` except temporary ones."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {str(name): path.read_bytes() for name, path in paths.items() if not str(name).startswith(".quickfox-")}


def temporaries(folder: Path) -> list[Path]:
    return list(folder.rglob(".quickfox-*"))


def states_at_kills(folder: Path, copies: Path, action: Callable[[], object]) -> list[Path]:
    """Runs `action`, which writes in `folder`; returns copies of it as a kill at each system call would leave it.

    Args:
        folder: exists.
        copies: where the copies are made, one of each state.
    """
    states: dict[frozenset[tuple[str, bytes]], Path] = {}
    is_copying = False

    def copy() -> None:
        nonlocal is_copying
        if is_copying:  # a system call of this function
            return
        is_copying = True
        state = frozenset(
            (re.sub(r"\.quickfox-\w+", ".quickfox", str(path)), path.read_bytes() if path.is_file() else b"")
            for path in folder.rglob("*")
        )
        if state not in states:
            states[state] = Path(shutil.copytree(folder, copies / str(len(states))))
        is_copying = False

    with pytest.MonkeyPatch.context() as patch:
        Fault(patch, 1, copy, lasting=True)
        action()
    return list(states.values())


def fail_at(call: int, number: int, action: Callable[[], object], lasting: bool = False) -> tuple[bool, bool]:
    """Runs `action` with that system call failing; returns whether the call was reached, and whether it raised."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, call, fail, lasting)
        try:
            action()
        except StorageError as error:
            raised: StorageError | None = error
        else:
            raised = None
    if raised is not None:
        assert raised.exit_status == ExitStatus.IO_ERROR
        assert str(raised).startswith("cannot ")
    return fault.calls >= call, raised is not None


def kill_at(call: int, action: Callable[[], object]) -> bool:
    """Runs `action` in a child process that is killed at that system call; returns whether the call was reached."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                Fault(patch, call, lambda: os.kill(os.getpid(), signal.SIGKILL))
                action()
            status = 0
        finally:
            os._exit(status)  # skips the exit handlers of pytest
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
