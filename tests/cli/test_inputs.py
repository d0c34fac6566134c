"""Prompts as JSON lines: what is one, and that a line that is none costs itself only."""

import io
from collections.abc import Iterator

import pytest

from quickfox.cli.inputs import PromptLine, iter_prompt_lines
from quickfox.errors import DataError
from quickfox.files.json import MAX_JSON_BYTES


def read(data: bytes) -> list[PromptLine | str]:
    """The prompts, and the messages in place of those that are none."""
    lines = iter_prompt_lines(io.BytesIO(data), "file")
    return [str(line) if isinstance(line, DataError) else line for line in lines]


def test_a_line_is_a_text_or_an_object_with_options() -> None:
    data = '"ä\\nb"\n\n{"prompt": "a", "length": 3}\r\n{"seed": ""}'.encode()
    assert read(data) == [PromptLine(1, "ä\nb"), PromptLine(3, "a", {"length": 3}), PromptLine(4, "")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "file line 2: "),
        (b"[1]", "file line 2: expected a text or an object, found list"),
        (b"null", "found NoneType"),
        (b'{"length": 2}', "expected one text called prompt or seed"),
        (b'{"prompt": "a", "seed": "b"}', "expected one text called prompt or seed"),
        (b'{"prompt": ["a"]}', "expected one text called prompt or seed"),
        (b'{"prompt": "a", "prompt": "b"}', "'prompt' is given twice"),
        (b'"\xff"', "file line 2: "),
        (b'{"prompt": "a", "top_p": NaN}', "NaN is not a JSON number"),
    ],
)
def test_a_line_that_is_no_prompt_costs_itself_only(line: bytes, said: str) -> None:
    first, wrong, last = read(b'"a"\n' + line + b'\n"b"\n')
    assert (first, last) == (PromptLine(1, "a"), PromptLine(3, "b"))
    assert isinstance(wrong, str)
    assert said in wrong


def test_an_endless_line_is_not_kept() -> None:
    wrong, last = read(b'"' + b"a" * (2 * MAX_JSON_BYTES) + b'"\n"b"')
    assert wrong == f"file line 1: longer than {MAX_JSON_BYTES:,} bytes"
    assert last == PromptLine(2, "b")


def test_a_prompt_is_there_as_soon_as_its_line_is() -> None:
    class Conversation(io.BytesIO):
        """Fails when more is read than was answered."""

        def __init__(self) -> None:
            self.answered = 0
            self.asked = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            assert self.answered == self.asked
            self.asked += 1
            return b'"question"\n' if self.asked < 4 else b""

    file = Conversation()
    prompts: Iterator[PromptLine | DataError] = iter_prompt_lines(file, "file")
    for _ in prompts:
        file.answered += 1
    assert file.answered == 3
