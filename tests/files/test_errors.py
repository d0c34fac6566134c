"""The operating system's errors become one line with the file and the right exit status."""

import errno
import os
from pathlib import Path

import pytest

from quickfox.errors import CannotCreateError, NoInputError, QuickfoxError, StorageError
from quickfox.files.errors import translate_read_errors, translate_write_errors


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOENT, NoInputError, "a.txt: no such file"),
        (errno.ENOTDIR, NoInputError, "a.txt: no such file"),
        (errno.EACCES, StorageError, "cannot read a.txt: Permission denied"),
        (errno.EIO, StorageError, "cannot read a.txt: Input/output error"),
    ],
)
def test_read_errors(number: int, kind: type[QuickfoxError], message: str) -> None:
    with pytest.raises(kind) as caught, translate_read_errors(Path("a.txt")):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, CannotCreateError),
        (errno.EACCES, CannotCreateError),
        (errno.ENOSPC, StorageError),
        (errno.EIO, StorageError),
    ],
)
def test_write_errors(number: int, kind: type[QuickfoxError]) -> None:
    with pytest.raises(kind) as caught, translate_write_errors(Path("runs"), "remove"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"cannot remove runs: {os.strerror(number)}"


def test_every_failure_of_a_temporary_file_is_a_storage_error() -> None:
    message = "cannot copy it to a temporary file in .*: No such file or directory; set TMPDIR to another disk"
    with pytest.raises(StorageError, match=message), translate_write_errors(None, "copy it to"):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def test_other_exceptions_are_unchanged() -> None:
    with pytest.raises(ValueError, match="not ours"), translate_read_errors("a"), translate_write_errors(None):
        raise ValueError("not ours")
