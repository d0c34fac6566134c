"""Atomic writes of files and directories; test_fault_injection.py lets their system calls fail."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from quickfox.errors import CannotCreateError, QuickfoxError, StorageError
from quickfox.files import atomic
from quickfox.files.atomic import (
    append_line,
    clean_up_after,
    clean_up_now,
    commit_directory,
    remove_directory,
    remove_temporaries,
    temporary_directory,
    write_file,
)


def content(folder: Path) -> dict[str, bytes]:
    """All files under `folder`, including hidden ones."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_write_file_creates_and_replaces(tmp_path: Path) -> None:
    for data in (b"first", b"", b"x" * 100_000):
        write_file(tmp_path / "file", data)
        assert content(tmp_path) == {"file": data}


def test_the_mode_of_a_new_file_depends_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_the_target_of_a_symbolic_link_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere" / "file")
    write_file(link, b"data")
    assert link.is_symlink()
    assert content(tmp_path / "elsewhere") == {"file": b"data"}


def test_write_to_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, b"data")
        assert os.read(reader, 100) == b"data"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_write_to_a_full_device(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="/dev/full"):
        write_file(Path("/dev/full"), b"data")


def test_commit_directory_writes_all_files(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "below" / "target"
    commit_directory(target, {"a": b"1", "b": b"", "last": b"3"})
    assert content(tmp_path) == {
        "deep/below/target/a": b"1",
        "deep/below/target/b": b"",
        "deep/below/target/last": b"3",
    }


def test_commit_directory_replaces_only_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    commit_directory(tmp_path / "empty", {"a": b"1"})
    with pytest.raises(CannotCreateError, match="empty"):
        commit_directory(tmp_path / "empty", {"a": b"2"})
    assert content(tmp_path) == {"empty/a": b"1"}


def test_an_interrupted_write_removes_its_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", b"data")
    with pytest.raises(KeyboardInterrupt):
        commit_directory(tmp_path / "folder", {"a": b"1"})
    assert list(tmp_path.iterdir()) == []


def test_partial_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.write may write less than it is given."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    write_file(tmp_path / "file", b"a longer text")
    assert content(tmp_path) == {"file": b"a longer text"}


@pytest.mark.parametrize("path", ["missing/file", "folder", "a-file/file", "x" * 300])
def test_paths_that_cannot_be_written(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(CannotCreateError, match="cannot write"):
        write_file(tmp_path / path, b"data")
    assert content(tmp_path) == {"a-file": b""}


def test_append_line(tmp_path: Path) -> None:
    for line in ("one", "zwei ä"):
        append_line(tmp_path / "log", line)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "one\nzwei ä\n"


def test_remove_directory(tmp_path: Path) -> None:
    commit_directory(tmp_path / "target", {"a": b"1"})
    remove_directory(tmp_path / "target")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(QuickfoxError, match="cannot remove"):
        remove_directory(tmp_path / "target")


def test_remove_temporaries_removes_only_leftovers_of_killed_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "file", b"data")
    (tmp_path / ".hidden.tmp").write_bytes(b"not ours")
    with monkeypatch.context() as patch:  # a killed process does not clean up
        patch.setattr(os, "fsync", _die)
        patch.setattr("pathlib.Path.unlink", _die)
        patch.setattr("shutil.rmtree", _die)
        for write in (
            lambda: write_file(tmp_path / "new", b"data"),
            lambda: commit_directory(tmp_path / "folder", {"a": b"1"}),
        ):
            with pytest.raises(_KilledError):
                write()
    assert len(list(tmp_path.iterdir())) == 4
    remove_temporaries(tmp_path)
    assert content(tmp_path) == {"file": b"data", ".hidden.tmp": b"not ours"}


class _KilledError(BaseException):
    pass


def _die(*args: object, **options: object) -> None:
    raise _KilledError


def test_a_temporary_directory_is_removed_at_the_end_and_by_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_clean_ups", [])
    with temporary_directory() as directory:
        (directory / "file").write_bytes(b"data")
    assert not directory.exists()
    with temporary_directory() as directory:
        (directory / "file").write_bytes(b"data")
        clean_up_now()  # as before a process is ended by a signal
        assert not directory.exists()


def test_a_clean_up_that_a_signal_interrupts_is_completed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_clean_ups", [])
    calls = []

    def clean_up() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), clean_up_after(clean_up):
        pass
    clean_up_now()
    assert len(calls) == 2


def test_no_place_for_a_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/missing")
    with pytest.raises(StorageError, match="a temporary file in /missing"), temporary_directory():
        pass
