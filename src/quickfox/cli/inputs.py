"""Where `llm generate` reads what it is to continue: standard input, a file, or a file of many prompts."""

import codecs
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from quickfox.errors import DataError, StorageError
from quickfox.files.errors import translate_read_errors
from quickfox.files.json import MAX_JSON_BYTES, parse_json


def read_standard_input() -> str:
    """What is piped to us, less one line end at its end, which `echo` adds; nothing if a person would have to type.

    Raises:
        DataError: it is not UTF-8.
        StorageError: reading failed.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    with translate_read_errors("standard input"):
        return _decoded(sys.stdin.buffer.read(), "standard input")


def read_seed_file(path: Path) -> str:
    """The text of a file, less one line end at its end, which editors add.

    Raises:
        NoInputError: there is no such file.
        DataError: it is not UTF-8.
        StorageError: reading failed.
    """
    with translate_read_errors(path):
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
    with translate_read_errors(path):
        file = path.open("rb")
    with file:
        yield file, name


def _decoded(data: bytes, name: str) -> str:
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 at byte {error.start}") from None
    return re.sub(r"\r?\n\Z", "", text)


PROMPT_NAMES = ("prompt", "seed")


@dataclass(frozen=True)
class PromptLine:
    """A line that asks for something.

    Attributes:
        number: of the line, from 1.
        text: the text to continue.
        options: the other members of its object.
    """

    number: int
    text: str
    options: dict[str, Any] = field(default_factory=dict)


def iter_prompt_lines(file: BinaryIO, name: str) -> Iterator[PromptLine | DataError]:
    """The prompts of a file, each as soon as its line is there; in place of a line that is none, what is wrong.

    Args:
        file: UTF-8; empty lines are passed over.
        name: of the file, for the messages.
    """
    number = 0
    while line := file.readline(MAX_JSON_BYTES + 1):
        number += 1
        where = f"{name} line {number}"
        if len(line) > MAX_JSON_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_JSON_BYTES)
            yield DataError(f"{where}: longer than {MAX_JSON_BYTES:,} bytes")
        elif line.strip():
            try:
                yield _parse(line, number, where)
            except DataError as error:
                yield error


def _parse(line: bytes, number: int, where: str) -> PromptLine:
    value = parse_json(line, where)
    if isinstance(value, str):
        return PromptLine(number, value)
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a text or an object, found {type(value).__name__}")
    named = [key for key in PROMPT_NAMES if key in value]
    if len(named) != 1 or not isinstance(value[named[0]], str):
        raise DataError(f"{where}: expected one text called {' or '.join(PROMPT_NAMES)}")
    return PromptLine(number, value.pop(named[0]), value)
