"""Prompts as JSON lines: one JSON value a line, a text or an object of a text and how to continue it.

    "The quick"
    {"prompt": "The quick", "length": 20, "temperature": 0.7}

What the settings may be is not known here. A line that is no prompt is an error of that line alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from quickfox.errors import DataError
from quickfox.strict_json import MAX_JSON_BYTES, parse_json

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
