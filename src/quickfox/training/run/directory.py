"""The directory of a run: created for a new one and removed if that fails, and locked while a process trains in it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from quickfox.checkpoints.run_directory import (
    LOCK_FILE,
    RUN_FILE,
    RUNS_DIRECTORY,
    TOKENIZER_FILE,
    TOKENS_FILE,
    make_run_directory,
    new_run_directory,
)
from quickfox.data.dataset import remove_tokens
from quickfox.errors import BusyError
from quickfox.files.atomic import clean_up_after, remove_temporaries
from quickfox.files.errors import translate_write_errors


@contextmanager
def new_run(output: Path | None, name: str) -> Iterator[Path]:
    """Context manager of the directory of a new run: created, locked, and removed if the body wrote no `run.json`.

    Args:
        output: the directory, which must be missing or empty; None: `runs/NAME`, numbered if that exists.
        name: any text.

    Raises:
        BusyError: another process trains in this directory.
        CannotCreateError, StorageError: the directory or its lock cannot be created.
    """
    goal = Path(RUNS_DIRECTORY) if output is None else output
    with translate_write_errors(goal):  # of a name that is too long
        created = [folder for folder in (goal, *goal.parents) if not folder.exists()]  # innermost first
    directory = output

    def remove_files() -> None:
        if directory is not None and not (directory / RUN_FILE).exists():
            remove_temporaries(directory)
            remove_tokens(directory / TOKENS_FILE)
            (directory / TOKENIZER_FILE).unlink(missing_ok=True)

    def remove_folders() -> None:
        if directory is None or not (directory / RUN_FILE).exists():
            for folder in created:
                folder.rmdir()

    with clean_up_after(remove_folders):
        if directory is None:
            directory = new_run_directory(name)
            created.insert(0, directory)
        else:
            make_run_directory(directory)
        with run_lock(directory):
            remove_temporaries(directory)
            with clean_up_after(remove_files):
                yield directory


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Context manager that holds the lock of the run directory `run`.

    Raises:
        BusyError: another process trains in this directory.
        CannotCreateError, StorageError: the lock file cannot be written.
    """
    path = run / LOCK_FILE
    descriptor = _acquire_lock(path)
    try:
        # The file is removed before the lock is released: afterwards it may be another process's.
        with clean_up_after(partial(path.unlink, missing_ok=True)):
            with translate_write_errors(path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
            yield
    finally:
        os.close(descriptor)


def _acquire_lock(path: Path) -> int:
    """Returns an open descriptor that holds the lock on the file now at `path`."""
    while True:
        with translate_write_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                raise BusyError(f"{path.parent} is being trained by {holder}: wait for it, or stop it") from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the previous holder removed this file in the meantime: retry
