"""Writing files so that a crash, a full disk or a pulled plug leaves the old content or the new, never half of it.

Everything is written beside its place under a temporary name, flushed to the disk, and renamed into place in one
step; then the folder's entry is flushed too. It knows bytes and paths only, nothing of what they mean.
After Pillai et al. (2014), "All File Systems Are Not Created Equal", on what a rename alone does not promise.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from quickfox.errors import CannotCreateError, StorageError

_TEMPORARY_PREFIX = ".quickfox-"
_TEMPORARY_SUFFIX = ".tmp"

_WRONG_PLACE = {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EPERM,
    errno.EROFS,
}
"""Failures that another place for the output would cure; all others are the storage's own."""


def write_file(path: Path, data: bytes) -> None:
    """Make `data` the content of the file `path`, atomically and durably.

    A symbolic link is followed and stays; a device or a pipe is written to directly.

    Raises:
        CannotCreateError: the folder is missing or not writable, or `path` is a folder.
        StorageError: the disk is full or failed; what was at `path` is untouched.
    """
    with output_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            _write_device(path, data)
            return
        target = Path(os.path.realpath(path))
        temporary = temporary_beside(target)
        try:
            _write_new_file(temporary, data)
            sync(temporary)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line to the text file `path`, which is made if it is not there, and flush it to the disk.

    Raises:
        CannotCreateError, StorageError: as `write_file`; what was in the file is untouched. A pulled plug can leave
            part of the line.
    """
    with output_errors(path):
        is_new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, line.encode() + b"\n")
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):  # the first failure is the one to tell
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            _sync_directory(path.parent)


def commit_directory(target: Path, files: Mapping[str, bytes]) -> None:
    """Make `target` a folder with exactly these files, atomically and durably: see `new_directory`.

    Args:
        target: must not exist, or be an empty folder.
        files: file name -> content, written in this order; put last what vouches for the others.
    """
    with new_directory(target) as directory:
        for name, data in files.items():
            _write_new_file(directory / name, data)


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target`, for the body to fill with files; then they are flushed, and it is `target`.

    Args:
        target: must not exist, or be an empty folder; missing parents are made.

    Raises:
        CannotCreateError: `target` holds something already, or cannot be made there.
        StorageError: the disk is full or failed; nothing is left behind.
    """
    with output_errors(target):
        _make_directories(target.parent)
        temporary = temporary_beside(target)
        temporary.mkdir()
        try:
            yield temporary
            for path in temporary.iterdir():
                sync(path)
            _sync_directory(temporary)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # the first failure is the one to tell
            raise
        _sync_directory(target.parent)


def remove_directory(path: Path) -> None:
    """Remove a folder and all in it; it disappears in one step, so that nobody ever sees half of it.

    Of a symbolic link only the link goes.

    Raises:
        CannotCreateError, StorageError: it cannot be removed; a temporary may be left for `sweep_temporaries`.
    """
    with output_errors(path, "remove"):
        temporary = temporary_beside(path)
        path.rename(temporary)
        _sync_directory(path.parent)
        _remove(temporary)


def sweep_temporaries(folder: Path) -> None:
    """Remove what interrupted writes left in `folder`. Only for a folder that nobody else writes to just now.

    Raises:
        CannotCreateError, StorageError: a leftover cannot be removed.
    """
    with output_errors(folder, "clean up"):
        for leftover in folder.glob(f"{_TEMPORARY_PREFIX}*{_TEMPORARY_SUFFIX}"):
            _remove(leftover)


@contextmanager
def output_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Turn the operating system's errors in the body into ours, naming `path` and what was to be done to it.

    Raises:
        CannotCreateError: the place is wrong (missing folder, no permission, something else is there).
        StorageError: the storage failed (disk full, device error).
    """
    try:
        yield
    except OSError as error:
        kind = CannotCreateError if error.errno in _WRONG_PLACE else StorageError
        raise kind(f"cannot {action} {path}: {error.strerror or error}") from error


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder, as `sweep_temporaries` looks for them."""
    return path.with_name(f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")


def _write_new_file(path: Path, data: bytes) -> None:
    """Write a file that must not exist; its mode follows the umask, like that of any new file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _write_device(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _make_directories(path: Path) -> None:
    """Make `path` and its missing parents, each one's entry flushed."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        _sync_directory(folder.parent)


def _sync_directory(path: Path) -> None:
    if os.name != "nt":  # Windows has no such call, and journals its directories
        sync(path)


def sync(path: Path) -> None:
    """Flush what is at `path` to the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
