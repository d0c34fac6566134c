"""The lock of a run directory: one process trains a run at a time."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quickfox.errors import BusyError, CannotCreateError, StorageError
from quickfox.training.run.directory import LOCK_FILE, run_lock

HOLDER = """
import sys
from pathlib import Path
from quickfox.training.run.directory import run_lock

with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_names_its_process_and_is_removed(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text().startswith(f"pid {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_a_locked_run_is_refused_with_the_process_that_holds_it(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        with pytest.raises(BusyError, match=rf"is being trained by pid {os.getpid()} on "), run_lock(tmp_path):
            pytest.fail("locked twice")
        assert (tmp_path / LOCK_FILE).exists(), "a refused process must not remove the lock of another"
    with run_lock(tmp_path):
        pass


def test_the_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        raise ZeroDivisionError
    with run_lock(tmp_path):
        pass


def test_a_lock_that_cannot_be_written_is_reported_and_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(StorageError, match="lock: No space left"), run_lock(tmp_path):
            pytest.fail("not locked")
    with run_lock(tmp_path):
        pass


def test_a_stale_lock_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("pid 1 on elsewhere, and a line much longer than ours\n" * 9)
    with run_lock(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text().splitlines()[0].startswith(f"pid {os.getpid()} on ")
        assert len((tmp_path / LOCK_FILE).read_text().splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_lock_of_a_killed_process_is_ignored(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=f"pid {holder.pid} "), run_lock(tmp_path):
            pytest.fail("locked twice")
        holder.kill()
    assert (tmp_path / LOCK_FILE).exists()
    with run_lock(tmp_path):
        pass


def test_a_lock_file_removed_while_locking_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, calls = fcntl.flock, []

    def flock_after_removal(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / LOCK_FILE).unlink()
        calls.append(operation)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_removal)
    with run_lock(tmp_path):
        assert len(calls) == 2
        with pytest.raises(BusyError), run_lock(tmp_path):
            pytest.fail("locked twice")


def test_a_missing_directory_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(CannotCreateError, match="nowhere"), run_lock(tmp_path / "nowhere"):
        pytest.fail("locked a missing directory")
