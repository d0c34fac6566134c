"""Prompts for `llm generate`, from standard input, a text file or a file of prompts, one per line."""

import codecs
import fcntl
import os
import re
import select
import stat
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from quickfox.cli.signals import interrupt_blocking_read
from quickfox.cli.streams import notify
from quickfox.errors import DataError, NoInputError, StorageError
from quickfox.files.errors import translate_read_errors
from quickfox.files.json import MAX_JSON_BYTES, parse_json

if TYPE_CHECKING:
    from quickfox.text.documents import Signal
    from quickfox.text.sources import Source

PROMPT_KEYS = ("prompt", "seed")

PATIENCE = 0.5
"""Seconds without input after which standard input is said to be waited for."""

_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


def read_standard_input() -> str:
    """Standard input without the line end that `echo` appends; empty if standard input is a terminal or closed.

    If nothing comes from it for PATIENCE seconds, the user is told.

    Raises:
        DataError: it is not UTF-8.
        StorageError: reading failed.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    with translate_read_errors("standard input"), interrupt_blocking_read():
        if not select.select([sys.stdin], [], [], PATIENCE)[0]:
            notify("waiting for a prompt on standard input; to continue a text without it, use --seed TEXT")
        return _decode(sys.stdin.buffer.read(), "standard input")


def warn_of_unread_input(reason: str) -> None:
    """Tells the user that text in a pipe on standard input is not read; `reason` is the option that replaces it."""
    if sys.stdin is None or not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return
    available = int.from_bytes(fcntl.ioctl(sys.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)
    if available:
        notify(f"the text on standard input is not read: {reason} gives the text to continue")


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
    """A prompt from a file with one per line.

    Attributes:
        number: line number, from 1.
        text: the text to continue.
        options: sampling options of this prompt, as in SamplingConfig; not yet checked.
        labels: members that the answer repeats: the id, if the prompt has one.
        signal: the sound or picture before the text; None: there is none.
    """

    number: int
    text: str
    options: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    signal: "Signal | None" = None


def iter_prompt_lines(file: BinaryIO, name: str) -> Iterator[PromptLine | DataError]:
    """The prompts of a file, each as soon as its line is complete; a DataError for an invalid line.

    The lines are JSON if the name says so or the first one is a JSON string or object, else they are the prompts; the
    user is told then. A name in *.txt always means the latter.

    Args:
        file: UTF-8; empty lines are skipped.
        name: of the file, for messages.
    """
    number = 0
    suffix = Path(name).suffix.lower()
    is_json = True if suffix in _JSON_SUFFIXES else False if suffix == ".txt" else None
    while line := file.readline(MAX_JSON_BYTES + 1):
        number += 1
        where = f"{name} line {number}"
        if len(line) > MAX_JSON_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_JSON_BYTES)
            yield DataError(f"{where}: longer than {MAX_JSON_BYTES:,} bytes")
        elif line.strip():
            if is_json is None:
                is_json = line.lstrip().removeprefix(codecs.BOM_UTF8).startswith((b"{", b'"'))
                if not is_json:
                    notify(f"{name}: each line is a prompt, because the first is not a JSON string or object")
            try:
                parse = _parse_prompt_line if is_json else _read_prompt_line
                yield parse(line, number, where, name)
            except DataError as error:
                yield error


def _read_prompt_line(line: bytes, number: int, where: str, _name: str) -> PromptLine:
    return PromptLine(number, _decode(line, where))


def _parse_prompt_line(line: bytes, number: int, where: str, name: str) -> PromptLine:
    value = parse_json(line, where)
    if isinstance(value, str):
        return PromptLine(number, value)
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a string or an object, found {type(value).__name__}")
    from quickfox.text.documents import SIGNALS, parse_signal
    from quickfox.text.sources import FileSource

    signal = parse_signal(value, where, lambda file: FileSource(Path(name).parent / file))
    for kind in SIGNALS:
        value.pop(kind, None)
    if signal is not None and not any(key in value for key in PROMPT_KEYS):
        value[PROMPT_KEYS[0]] = ""
    keys = [key for key in PROMPT_KEYS if key in value]
    if len(keys) != 1 or not isinstance(value[keys[0]], str):
        raise DataError(f"{where}: expected exactly one of the keys {' and '.join(PROMPT_KEYS)}, with a string")
    labels = {name: value.pop(name) for name in ("id",) if name in value}
    return PromptLine(number, value.pop(keys[0]), value, labels, signal)


def open_signal(name: str | None) -> "Source | None":
    """The source of a signal; standard input is read to its end."""
    from quickfox.text.sources import STANDARD_INPUT, FileSource, spool

    if name is None:
        return None
    if name != STANDARD_INPUT:
        return FileSource(Path(name))
    if sys.stdin is None:
        raise NoInputError("standard input is closed")
    return spool(name, sys.stdin.buffer)
