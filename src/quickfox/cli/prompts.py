"""Where `llm generate` reads what it is to continue: standard input, a file, or a file of many prompts."""

import codecs
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from quickfox.errors import DataError, StorageError
from quickfox.strict_json import input_errors


def read_standard_input() -> str:
    """What is piped to us, less one line end at its end, which `echo` adds; nothing if a person would have to type.

    Raises:
        DataError: it is not UTF-8.
        StorageError: reading failed.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        return _decoded(sys.stdin.buffer.read(), "standard input")
    except OSError as error:
        raise StorageError(f"cannot read standard input: {error.strerror or error}") from error


def read_seed_file(path: Path) -> str:
    """The text of a file, less one line end at its end, which editors add.

    Raises:
        NoInputError: there is no such file.
        DataError: it is not UTF-8.
        StorageError: reading failed.
    """
    with input_errors(path):
        return _decoded(path.read_bytes(), str(path))


@contextmanager
def open_prompts(name: str) -> Iterator[tuple[BinaryIO, str]]:
    """The file `name`, `-` for standard input, and what to call it in messages.

    Raises:
        NoInputError: there is no such file.
        StorageError: reading failed.
    """
    if name == "-":
        if sys.stdin is None:
            raise StorageError("cannot read standard input: it is closed")
        yield sys.stdin.buffer, "standard input"
        return
    path = Path(name)
    with input_errors(path):
        file = path.open("rb")
    with file:
        yield file, name


def _decoded(data: bytes, name: str) -> str:
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 at byte {error.start}") from None
    return re.sub(r"\r?\n\Z", "", text)
