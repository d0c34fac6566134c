"""Lines and documents, from files and standard input, in groups; those of standard input as soon as they are there."""

import codecs
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quickfox.cli.streams import escape_unprintable, notify
from quickfox.errors import DataError, NoInputError
from quickfox.files.errors import translate_read_errors
from quickfox.text.corpus import STANDARD_INPUT, open_corpus

CHUNK_BYTES = 2**18
GROUP_CHARACTERS = 2**18
"""What is read at a time, and what a group has at least: enough to be read side by side, little beside the model."""


@dataclass(frozen=True)
class Text:
    """A line or a document.

    Attributes:
        file: its name, fit to be shown; "-" for standard input.
        line: its number in the file, from 1; None: it is the whole file.
        text: a line comes without its end.
        end: the end of the line as it was: "\\n", "\\r\\n" or, at the end of a file, nothing.
    """

    file: str
    line: int | None
    text: str
    end: str = ""


@dataclass(frozen=True)
class Source:
    """A file or standard input: its name, and its text, which can be read once."""

    name: str
    chunks: Iterator[str]


def open_sources(names: Sequence[str]) -> list[Source]:
    """The files that are named, and those in folders and globs, in this order; an empty file has no text.

    Raises:
        NoInputError: a file is not there, or there is no text in a folder.
        DataError: a file is no UTF-8 text, by its first bytes.
        StorageError: reading failed.
    """
    sources = []
    for name in names:
        if name == STANDARD_INPUT:
            sources.append(Source(name, _iter_standard_input()))
        elif Path(name).is_dir() or not Path(name).exists():
            sources += [_open_file(found, _ignore) for found in open_corpus([name], notify).names]
        else:
            sources.append(_open_file(name, notify))
    return sources


def iter_groups(sources: Iterable[Source], by: str) -> Iterator[list[Text]]:
    """The lines of the sources, or with `by` "document" each as a whole, in groups that are not empty.

    Raises:
        DataError: not UTF-8, or damaged gzip data. The lines before it have been given if it was in standard input.
        StorageError: reading failed.
    """
    group: list[Text] = []
    size = 0
    for source in sources:
        for texts in _iter_lines(source) if by == "line" else _iter_document(source):
            group += texts
            size += sum(len(text.text) for text in texts)
            if size >= GROUP_CHARACTERS or source.name == STANDARD_INPUT:  # whoever pipes to us may wait for an answer
                yield group
                group, size = [], 0
    if group:
        yield group


def _iter_lines(source: Source) -> Iterator[list[Text]]:
    """The lines of a source, as many as there are at a time."""
    held: list[str] = []  # of a line whose end has not come
    number = 1
    for chunk in source.chunks:
        first, *others = chunk.split("\n")
        held.append(first)
        if others:
            lines = ["".join(held), *others[:-1]]
            held = others[-1:]
            yield [_as_line(source.name, number + index, line, "\n") for index, line in enumerate(lines)]
            number += len(lines)
    if last := "".join(held):
        yield [_as_line(source.name, number, last, "")]


def _as_line(name: str, number: int, line: str, end: str) -> Text:
    text = line.removesuffix("\r")
    return Text(name, number, text, line[len(text) :] + end)


def _iter_document(source: Source) -> Iterator[list[Text]]:
    yield [Text(source.name, None, "".join(source.chunks))]


def _open_file(name: str, notice: Callable[[str], None]) -> Source:
    path = Path(name)
    if path.is_file() and path.stat().st_size == 0:  # no reason for `llm score *.log` to stop
        return Source(escape_unprintable(name), iter(()))
    return Source(escape_unprintable(name), open_corpus([name], notice).iter_text(CHUNK_BYTES))


def _ignore(_notice: str) -> None:
    """For notices that were given when the folder was opened."""


def _iter_standard_input() -> Iterator[str]:
    """What standard input holds at a time, without waiting for more; less a byte-order mark."""
    if sys.stdin is None:
        raise NoInputError("standard input is closed")
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    bytes_read, line = 0, 1
    while True:
        with translate_read_errors("standard input"):
            block = os.read(sys.stdin.fileno(), CHUNK_BYTES)
        bytes_read += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode()
            yield text
            offset = bytes_read - len(error.object) + error.start  # the object begins with what was held back
            raise DataError(
                f"standard input: not UTF-8 in line {line + text.count(chr(10))}, at byte {offset} "
                f"(0x{error.object[error.start]:02x}); convert it, for example with iconv -f latin1 -t utf-8"
            ) from None
        if text:
            line += text.count("\n")
            yield text
        if not block:
            return
