"""Prompts from JSON lines: valid lines, and errors for invalid ones."""

import io
from collections.abc import Iterator

import pytest

from quickfox.cli.inputs import PromptLine, iter_prompt_lines
from quickfox.errors import DataError
from quickfox.files.json import MAX_JSON_BYTES


def read(data: bytes) -> list[PromptLine | str]:
    """The prompts, and for invalid lines the messages."""
    lines = iter_prompt_lines(io.BytesIO(data), "file")
    return [str(line) if isinstance(line, DataError) else line for line in lines]


def test_a_line_is_a_string_or_an_object_with_options() -> None:
    data = '"ä\\nb"\n\n{"prompt": "a", "length": 3}\r\n{"seed": ""}'.encode()
    assert read(data) == [PromptLine(1, "ä\nb"), PromptLine(3, "a", {"length": 3}), PromptLine(4, "")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "file line 2: "),
        (b"[1]", "file line 2: expected a string or an object, found list"),
        (b"null", "found NoneType"),
        (b'{"length": 2}', "expected exactly one of the keys prompt and seed, with a string"),
        (b'{"prompt": "a", "seed": "b"}', "expected exactly one of the keys prompt and seed, with a string"),
        (b'{"prompt": ["a"]}', "expected exactly one of the keys prompt and seed, with a string"),
        (b'{"prompt": "a", "prompt": "b"}', "'prompt' is given twice"),
        (b'"\xff"', "file line 2: "),
        (b'{"prompt": "a", "top_p": NaN}', "NaN is not a JSON number"),
    ],
)
def test_an_invalid_line_does_not_affect_other_lines(line: bytes, message: str) -> None:
    first, error, last = read(b'"a"\n' + line + b'\n"b"\n')
    assert (first, last) == (PromptLine(1, "a"), PromptLine(3, "b"))
    assert isinstance(error, str)
    assert message in error


def test_a_line_beyond_the_size_limit_is_skipped() -> None:
    error, last = read(b'"' + b"a" * (2 * MAX_JSON_BYTES) + b'"\n"b"')
    assert error == f"file line 1: longer than {MAX_JSON_BYTES:,} bytes"
    assert last == PromptLine(2, "b")


def test_a_prompt_is_given_before_the_next_line_is_read() -> None:
    class Pipe(io.BytesIO):
        """Fails if a line is read before the previous prompt was answered."""

        def __init__(self) -> None:
            self.answered = 0
            self.lines_read = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            assert self.answered == self.lines_read
            self.lines_read += 1
            return b'"question"\n' if self.lines_read < 4 else b""

    pipe = Pipe()
    prompts: Iterator[PromptLine | DataError] = iter_prompt_lines(pipe, "pipe")
    for _ in prompts:
        pipe.answered += 1
    assert pipe.answered == 3


def test_the_answer_repeats_the_id_of_a_prompt() -> None:
    data = b'{"id": "q-7", "prompt": "a"}\n{"id": null, "prompt": "b", "length": 3}'
    assert read(data) == [PromptLine(1, "a", {}, {"id": "q-7"}), PromptLine(2, "b", {"length": 3}, {"id": None})]


@pytest.mark.parametrize("name", ["lines.txt", "standard input"])
def test_lines_of_plain_text_are_prompts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = "\ufeffWho? \r\n\n{ä}\n7".encode()
    assert list(iter_prompt_lines(io.BytesIO(data), name)) == [
        PromptLine(1, "Who? "),
        PromptLine(3, "{ä}"),
        PromptLine(4, "7"),
    ]
    assert ("each line is a prompt" in capsys.readouterr().err) == (name != "lines.txt")


def test_a_line_of_plain_text_that_is_not_utf_8_is_an_error() -> None:
    first, error = iter_prompt_lines(io.BytesIO(b"a\n\xff\n"), "lines.txt")
    assert first == PromptLine(1, "a")
    assert isinstance(error, DataError)
    assert "lines.txt line 2: not UTF-8" in str(error)
