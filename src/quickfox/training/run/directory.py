"""The folder of a new run: made, locked, and taken away again where no run comes of it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quickfox.checkpoints.run_directory import (
    LOCK_FILE,
    RUN_FILE,
    RUNS_FOLDER,
    TOKENS_FILE,
    make_run_directory,
    new_run_directory,
)
from quickfox.data.dataset import remove_tokens
from quickfox.errors import BusyError
from quickfox.files.atomic import output_errors, sweep_temporaries
from quickfox.training.run.dataset import TOKENIZER_FILE


def make_directory(output: Path | None, name: str) -> tuple[Path, list[Path]]:
    """The run's folder, and all folders that had to be made for it, the innermost first."""
    goal = Path(RUNS_FOLDER) if output is None else output
    missing = [folder for folder in (goal, *goal.parents) if not folder.exists()]
    if output is None:
        directory = new_run_directory(name)
        return directory, [directory, *missing]
    make_run_directory(output)
    return output, missing


@contextmanager
def new_run(directory: Path, made: list[Path]) -> Iterator[None]:
    """Locks the folder of a new run; if there is no record after the block to resume it by, removes what was made.

    Args:
        directory: the folder.
        made: the folders that were not there before, the innermost first.

    Raises: as `locked`.
    """
    record = directory / RUN_FILE
    try:
        with run_lock(directory):
            sweep_temporaries(directory)
            try:
                yield
            finally:
                if not record.exists():
                    remove_tokens(directory / TOKENS_FILE)
                    (directory / TOKENIZER_FILE).unlink(missing_ok=True)
    finally:
        if not record.exists():
            with suppress(OSError):  # somebody else's file is in it; the first failure is the one to tell
                for folder in made:
                    folder.rmdir()


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Holds the lock of the folder `run` within the block.

    Raises:
        BusyError: another process trains this run.
        CannotCreateError, StorageError: the lock file cannot be written.
    """
    path = run / LOCK_FILE
    descriptor = _take(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still ours: nobody else's can be meant
        os.close(descriptor)


def _take(path: Path) -> int:
    """An open descriptor that holds the lock on the file `path` as it is there now."""
    while True:
        with output_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                raise BusyError(f"{path.parent} is being trained by {holder}: wait for it, or stop it") from None
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it meanwhile: once more


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
