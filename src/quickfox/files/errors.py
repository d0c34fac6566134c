"""Translate the operating system's errors into this program's, each into one line that names the file."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quickfox.errors import CannotCreateError, NoInputError, StorageError

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
"""Failures that another output path would avoid."""


@contextmanager
def translate_read_errors(name: Path | str) -> Iterator[None]:
    """Translates every OSError of the body, which reads or inspects `name`.

    Raises:
        NoInputError: there is no such file.
        StorageError: reading failed.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NoInputError(f"{name}: no such file") from None
    except OSError as error:
        raise StorageError(f"cannot read {name}: {error.strerror or error}") from error


@contextmanager
def translate_write_errors(path: Path | None, action: str = "write") -> Iterator[None]:
    """Translates every OSError of the body, which changes `path`, or a temporary file if it is None.

    Raises:
        CannotCreateError: the path is wrong: a missing directory, no permission, something else is there.
        StorageError: the storage failed: disk full, device error, no place for temporary files.
    """
    try:
        yield
    except OSError as error:
        kind = CannotCreateError if path and error.errno in _WRONG_PLACE else StorageError
        target = path or f"a temporary file in {tempfile.tempdir or 'any directory'}"
        advice = "" if path else "; set TMPDIR to another disk"
        raise kind(f"cannot {action} {target}: {error.strerror or error}{advice}") from error
