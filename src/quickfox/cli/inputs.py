"""Prompts for `llm generate`, from standard input, a text file or a file of JSON lines."""

import codecs
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from quickfox.cli.signals import interrupt_blocking_read
from quickfox.errors import DataError, StorageError
from quickfox.files.errors import translate_read_errors
from quickfox.files.json import MAX_JSON_BYTES, parse_json

PROMPT_KEYS = ("prompt", "seed")


def read_standard_input() -> str:
    """Standard input without the line end that `echo` appends; empty if standard input is a terminal or closed.

    Raises:
        DataError: it is not UTF-8.
        StorageError: reading failed.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    with translate_read_errors("standard input"), interrupt_blocking_read():
        return _decode(sys.stdin.buffer.read(), "standard input")


def read_seed_file(path: Path) -> str:
    """The text of a file without the line end that editors append.

    Raises:
        NoInputError: the file does not exist.
        DataError: it is not UTF-8.
        StorageError: reading failed.
    """
    with translate_read_errors(path):
        return _decode(path.read_bytes(), str(path))


def _decode(data: bytes, name: str) -> str:
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 at byte {error.start}") from None
    return re.sub(r"\r?\n\Z", "", text)


@contextmanager
def open_prompts(name: str) -> Iterator[tuple[BinaryIO, str]]:
    """Opens the file `name`, or standard input for `-`; gives the file and its name for messages.

    Raises:
        NoInputError: the file does not exist.
        StorageError: reading failed.
    """
    if name != "-":
        path = Path(name)
        with translate_read_errors(path):
            file = path.open("rb")
        with file:
            yield file, name
    elif sys.stdin is None:
        raise StorageError("cannot read standard input: it is closed")
    else:
        with interrupt_blocking_read():
            yield sys.stdin.buffer, "standard input"


@dataclass(frozen=True)
class PromptLine:
    """A prompt from a file of JSON lines.

    Attributes:
        number: line number, from 1.
        text: the text to continue.
        options: sampling options of this prompt, as in SamplingConfig; not yet checked.
    """

    number: int
    text: str
    options: dict[str, Any] = field(default_factory=dict)


def iter_prompt_lines(file: BinaryIO, name: str) -> Iterator[PromptLine | DataError]:
    """The prompts of a file of JSON lines, each as soon as its line is complete; a DataError for an invalid line.

    Args:
        file: UTF-8, a JSON string or object per line; empty lines are skipped.
        name: of the file, for messages.
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
                yield _parse_prompt_line(line, number, where)
            except DataError as error:
                yield error


def _parse_prompt_line(line: bytes, number: int, where: str) -> PromptLine:
    value = parse_json(line, where)
    if isinstance(value, str):
        return PromptLine(number, value)
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a string or an object, found {type(value).__name__}")
    keys = [key for key in PROMPT_KEYS if key in value]
    if len(keys) != 1 or not isinstance(value[keys[0]], str):
        raise DataError(f"{where}: expected exactly one of the keys {' and '.join(PROMPT_KEYS)}, with a string")
    return PromptLine(number, value.pop(keys[0]), value)
