"""Failures and kills at every system call of a write: either the old content is complete, or the new."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults import MAX_CALLS, Content, fail_at, kill_at, temporaries, visible
from quickfox.errors import StorageError
from quickfox.files.atomic import append_line, commit_directory, remove_directory, remove_temporaries, write_file

FILES = {"a": b"1" * 100, "b": b"", "manifest": b"3"}
IN_FOLDER = {f"folder/{name}": data for name, data in FILES.items()}


@dataclass(frozen=True)
class Operation:
    """An operation that writes, and the two contents of the directory that are allowed at any time.

    Attributes:
        prepare: creates the content before, in a directory.
        run: the operation, in that directory.
        before, after: all files except temporary ones.
        leaves_temporaries: whether a failure, not only a kill, can leave a temporary file.
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


def is_as_before_or_after(seen: Content, operation: Operation) -> bool:
    """An interrupted append may leave an empty new file."""
    return seen in (operation.before, operation.after) or (operation.before == {} and seen == {"log": b""})


@operations
@failures
@pytest.mark.parametrize("lasting", [False, True], ids=["one call", "all later calls"])
def test_a_failing_system_call(tmp_path: Path, operation: Operation, number: int, lasting: bool) -> None:
    for call in range(1, MAX_CALLS):
        folder = tmp_path / str(call)
        folder.mkdir()
        operation.prepare(folder)
        reached, failed = fail_at(call, number, lambda folder=folder: operation.run(folder), lasting)
        assert failed or visible(folder) == operation.after
        assert is_as_before_or_after(visible(folder), operation)
        if not lasting and not operation.leaves_temporaries:  # otherwise the cleanup fails, too
            assert temporaries(folder) == []
        remove_temporaries(folder)
        assert temporaries(folder) == []
        assert is_as_before_or_after(visible(folder), operation)
        if not reached:
            assert not failed
            return
    pytest.fail("more system calls than expected")


@operations
def test_a_kill_at_any_system_call(tmp_path: Path, operation: Operation) -> None:
    for call in range(1, MAX_CALLS):
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
    pytest.fail("more system calls than expected")


def test_a_partly_written_line_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_line(tmp_path / "log", "one")
    write = os.write
    sizes = iter([2])

    def write_partly(descriptor: int, data: bytes) -> int:
        if (size := next(sizes, None)) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:size])

    monkeypatch.setattr(os, "write", write_partly)
    with pytest.raises(StorageError):
        append_line(tmp_path / "log", "two")
    assert visible(tmp_path) == {"log": b"one\n"}
