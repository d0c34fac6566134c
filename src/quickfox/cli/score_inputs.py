"""Reads the texts for `llm score`, lines or whole documents, in batches."""

import codecs
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quickfox.cli.streams import escape_unprintable, notify
from quickfox.errors import DataError, NoInputError
from quickfox.files.errors import translate_read_errors
from quickfox.text.corpus import open_corpus
from quickfox.text.sources import STANDARD_INPUT

CHUNK_BYTES = 2**18
BATCH_CHARACTERS = 2**18
"""Minimum size of a batch: enough texts for efficient batches of similar length, in little memory."""


@dataclass(frozen=True)
class InputText:
    """A line or a document.

    Attributes:
        file: printable name of the file; "-" for standard input.
        line: line number, from 1; None for a document.
        text: the text; a line without its line end.
        end: the line end: "\\n", "\\r\\n", or empty at the end of a file.
    """

    file: str
    line: int | None
    text: str
    end: str = ""


@dataclass(frozen=True)
class Source:
    """A file or standard input: its name, and its text in chunks, which can be read once."""

    name: str
    chunks: Iterator[str]


def open_sources(names: Sequence[str]) -> list[Source]:
    """Opens files, the files in folders and those that match globs, in this order; an empty file has no chunks.

    Raises:
        NoInputError: a file does not exist, or a folder contains no text.
        DataError: the beginning of a file is not UTF-8.
        StorageError: reading failed.
    """
    sources = []
    for name in names:
        if name == STANDARD_INPUT:
            sources.append(Source(name, _iter_standard_input()))
        elif Path(name).is_dir() or not Path(name).exists():
            # The notices about these files have been given by the first open_corpus.
            sources += [_open_file(file, lambda _notice: None) for file in open_corpus([name], notify).names]
        else:
            sources.append(_open_file(name, notify))
    return sources


def _open_file(name: str, notify: Callable[[str], None]) -> Source:
    path = Path(name)
    if path.is_file() and path.stat().st_size == 0:  # not an error, so that `llm score *.log` works
        return Source(escape_unprintable(name), iter(()))
    return Source(escape_unprintable(name), open_corpus([name], notify).iter_text(CHUNK_BYTES))


def iter_batches(sources: Iterable[Source], by: str) -> Iterator[list[InputText]]:
    """The lines (`by` "line") or documents (`by` "document") of the sources, in batches that are not empty.

    Raises:
        DataError: not UTF-8, or damaged gzip data. Complete lines of standard input before the error are given first.
        StorageError: reading failed.
    """
    batch: list[InputText] = []
    size = 0
    for source in sources:
        for texts in _iter_lines(source) if by == "line" else _iter_document(source):
            batch += texts
            size += sum(len(text.text) for text in texts)
            if size >= BATCH_CHARACTERS or source.name == STANDARD_INPUT:  # a writer of a pipe may wait for the result
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _iter_lines(source: Source) -> Iterator[list[InputText]]:
    """The lines that each chunk completes."""
    incomplete: list[str] = []
    number = 1
    for chunk in source.chunks:
        first, *others = chunk.split("\n")
        incomplete.append(first)
        if others:
            lines = ["".join(incomplete), *others[:-1]]
            incomplete = others[-1:]
            yield [_make_line(source.name, number + index, line, "\n") for index, line in enumerate(lines)]
            number += len(lines)
    if last := "".join(incomplete):
        yield [_make_line(source.name, number, last, "")]


def _make_line(name: str, number: int, line: str, end: str) -> InputText:
    text = line.removesuffix("\r")
    return InputText(name, number, text, line[len(text) :] + end)


def _iter_document(source: Source) -> Iterator[list[InputText]]:
    yield [InputText(source.name, None, "".join(source.chunks))]


def _iter_standard_input() -> Iterator[str]:
    """The text of standard input, each part as soon as it is available, without a byte-order mark."""
    if sys.stdin is None:
        raise NoInputError("standard input is closed")
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    bytes_read, line = 0, 1
    while True:
        with translate_read_errors("standard input"):
            chunk = os.read(sys.stdin.fileno(), CHUNK_BYTES)
        bytes_read += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode()
            yield text
            offset = bytes_read - len(error.object) + error.start  # error.object starts with bytes of earlier chunks
            raise DataError(
                f"standard input: not UTF-8 in line {line + text.count(chr(10))}, at byte {offset} "
                f"(0x{error.object[error.start]:02x}); convert it, for example with iconv -f latin1 -t utf-8"
            ) from None
        if text:
            line += text.count("\n")
            yield text
        if not chunk:
            return
