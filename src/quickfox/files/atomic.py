"""Write files and directories atomically: after a crash or a full disk the old content is there or the new.

Data is written under a temporary name in the same directory, flushed to the disk and renamed; then the directory is
flushed too. Independent of what the bytes mean.
After Pillai et al. (2014), "All File Systems Are Not Created Equal", on what a rename does not guarantee.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from quickfox.errors import QuickfoxError
from quickfox.files.errors import translate_write_errors

_TEMPORARY_NAME = ".quickfox-{}.tmp"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL

_clean_ups: list[Callable[[], object]] = []  # of the contexts that are entered, in this process


@contextmanager
def clean_up_after(clean_up: Callable[[], object]) -> Iterator[None]:
    """Calls `clean_up` at the end of the block, also if the process is ended within it by `clean_up_now`.

    Args:
        clean_up: removes what the block leaves behind unless it is finished. It may be called at any moment, by any
            thread, and twice. If it fails, the leftovers stay, so that an error of the block is reported; if a signal
            interrupts it, `clean_up_now` calls it again.
    """
    _clean_ups.append(clean_up)
    try:
        yield
    finally:
        with suppress(OSError, QuickfoxError):
            clean_up()
        _clean_ups.remove(clean_up)


def clean_up_now() -> None:
    """Removes what is half written, before the process is ended by a signal."""
    for clean_up in reversed(list(_clean_ups)):  # the innermost first
        with suppress(OSError, QuickfoxError):
            clean_up()


def write_file(path: Path, data: bytes) -> None:
    """Replaces the content of the file `path`, atomically and durably.

    The target of a symbolic link is replaced, not the link; a device or a pipe is written to directly.

    Raises:
        CannotCreateError: the directory is missing or not writable, or `path` is a directory.
        StorageError: the disk is full or failed; the file is unchanged.
    """
    with translate_write_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            _write(path, os.O_WRONLY, data)
            return
        target = Path(os.path.realpath(path))
        temporary = temporary_sibling(target)
        with clean_up_after(partial(temporary.unlink, missing_ok=True)):
            _write(temporary, _NEW_FILE, data)
            sync(temporary)
            temporary.replace(target)
        sync(target.parent)


def append_line(path: Path, line: str) -> None:
    """Appends a line to the text file `path`, created if missing, and flushes it to the disk.

    Raises:
        CannotCreateError, StorageError: as `write_file`; the earlier lines are unchanged. A power failure can leave
            a part of the line.
    """
    with translate_write_errors(path):
        is_new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, line.encode() + b"\n")
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):  # report the first failure
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            sync(path.parent)


def commit_directory(target: Path, files: Mapping[str, bytes]) -> None:
    """Creates the directory `target` with exactly these files, name -> content, as `new_directory` does."""
    with new_directory(target) as directory:
        for name, data in files.items():
            _write(directory / name, _NEW_FILE, data)


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Yields a hidden sibling directory to fill with files; at the end it is flushed and renamed to `target`.

    Args:
        target: a path that does not exist, or an empty directory; missing parents are created.

    Raises:
        CannotCreateError: `target` is not empty, or cannot be created there.
        StorageError: the disk is full or failed; the temporary directory is removed.
    """
    make_directory(target.parent)
    with translate_write_errors(target):
        temporary = temporary_sibling(target)
        with clean_up_after(partial(shutil.rmtree, temporary, ignore_errors=True)):
            temporary.mkdir()
            yield temporary
            for path in temporary.iterdir():
                sync(path)
            sync(temporary)
            temporary.rename(target)
        sync(target.parent)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yields a directory among the system's temporary files, removed at the end however the command is ended.

    Raises:
        StorageError: it cannot be created.
    """
    with translate_write_errors(None):
        path = Path(tempfile.mkdtemp(prefix="quickfox-"))
    with clean_up_after(partial(shutil.rmtree, path, ignore_errors=True)):
        yield path


def make_directory(path: Path) -> None:
    """Creates a directory and its missing parents, unless it exists, and flushes those that they are created in.

    Raises:
        CannotCreateError: it cannot be created there.
        StorageError: the disk is full or failed.
    """
    with translate_write_errors(path):
        missing = [directory for directory in (path, *path.parents) if not directory.exists()]
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            sync(directory.parent)


def rename_directory(path: Path, target: Path) -> None:
    """Renames a directory to a path that does not exist, beside it. Raises CannotCreateError, StorageError."""
    with translate_write_errors(target):
        path.rename(target)
        sync(target.parent)


def remove_directory(path: Path) -> None:
    """Removes a directory and its content; it is renamed first, so it is never seen half removed.

    Of a symbolic link only the link is removed.

    Raises:
        CannotCreateError, StorageError: it cannot be removed; a temporary may remain for `remove_temporaries`.
    """
    with translate_write_errors(path, "remove"):
        temporary = temporary_sibling(path)
        path.rename(temporary)
        sync(path.parent)
        _remove(temporary)


def remove_temporaries(directory: Path) -> None:
    """Removes what interrupted writes left in `directory`, to which no other process may be writing.

    Raises:
        CannotCreateError, StorageError: a file cannot be removed.
    """
    with translate_write_errors(directory, "clean up"):
        for leftover in directory.glob(_TEMPORARY_NAME.format("*")):
            _remove(leftover)


def temporary_sibling(path: Path) -> Path:
    """A new hidden name in the same directory, which `remove_temporaries` recognizes."""
    return path.with_name(_TEMPORARY_NAME.format(secrets.token_hex(8)))


def sync(path: Path) -> None:
    """Flushes a file or directory to the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, flags: int, data: bytes) -> None:
    descriptor = os.open(path, flags, 0o666)
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
