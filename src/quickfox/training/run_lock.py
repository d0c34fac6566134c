"""One trainer a run: a lock file that names its holder.

    lock        pid and host of the process that trains here, while it does

The operating system holds the lock (flock), not the file's being there: it ends with its process, however that
dies, so a stale one needs no recovery.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quickfox.durable import output_errors
from quickfox.errors import BusyError
from quickfox.runs import LOCK_FILE


@contextmanager
def locked(run: Path) -> Iterator[None]:
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
