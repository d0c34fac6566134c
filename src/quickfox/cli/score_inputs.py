"""Reads the texts for `llm score`, lines or whole documents, in batches."""

import codecs
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from quickfox.cli.signals import interrupt_blocking_read
from quickfox.cli.streams import escape_unprintable, notify
from quickfox.config.corpus import CorpusOptions
from quickfox.errors import DataError, NoInputError
from quickfox.files.errors import translate_read_errors
from quickfox.text.corpus import open_corpus
from quickfox.text.documents import Document
from quickfox.text.formats import DEFAULT_ENCODING, READERS, recognize_content
from quickfox.text.sources import CHUNK_BYTES, STANDARD_INPUT

BATCH_CHARACTERS = 2**18
"""Minimum size of a batch: enough texts for efficient batches of similar length, in little memory."""

_STREAMED = (CorpusOptions(), CorpusOptions(format="text"))
"""The options with which standard input may be read line by line."""


@dataclass(frozen=True)
class Documents:
    """The documents of a file of JSON lines, a table and the like; can be read once."""

    documents: Iterator[Document]


Source = tuple[str, Iterator[str] | Documents]
"""The name of a file, "-" for standard input, and its text in chunks, which can be read once, or its documents."""


@dataclass(frozen=True)
class InputText:
    """A line or a document.

    Attributes:
        file: printable name of the file; "-" for standard input.
        line: number of the line, or of the document in its file, from 1; None for a whole file.
        text: the text; a line without its line end.
        end: the line end: "\\n", "\\r\\n", or empty at the end of a file.
        is_document: whether it is a document of several in a file.
        document: with a signal, whose completion is the text; None: another text.
    """

    file: str
    line: int | None
    text: str
    end: str = ""
    is_document: bool = False
    document: Document | None = None

    @property
    def first_line(self) -> int:
        """The number of the first line of the text: in its file, or in the document."""
        return 1 if self.is_document or self.line is None else self.line


def open_sources(names: Sequence[str], options: CorpusOptions | None = None) -> list[Source]:
    """Opens files, the files in folders and those that match globs, in this order; an empty file has no chunks.

    Raises:
        NoInputError: a file does not exist, or a folder contains no text.
        DataError: the beginning of a file is not UTF-8.
        StorageError: reading failed.
    """
    sources: list[Source] = []
    for name in names:
        is_file = os.path.isfile(name)  # noqa: PTH113 - false, not an error, for a name that is too long
        if name == STANDARD_INPUT and (options is None or options in _STREAMED):
            sources += _open_standard_input(options or CorpusOptions())
        elif is_file and _is_empty(name):  # not an error, so that `llm score *.log` works
            sources.append((name, iter(())))
        else:
            sources += _open_files(name, options)
    return sources


def _is_empty(name: str) -> bool:
    with translate_read_errors(name):
        return Path(name).stat().st_size == 0


def _open_standard_input(options: CorpusOptions) -> list[Source]:
    """Standard input as lines that are read when they come; as documents, after its end, if it starts as such."""
    chunks = _read_standard_input()
    head = next(chunks, b"")
    if options == CorpusOptions() and (found := recognize_content(head, DEFAULT_ENCODING, options)) != "text":
        notify(f"standard input: starts as {READERS[found].description}; --format text scores each line when it comes")
        return _open_files(STANDARD_INPUT, options, cast("BinaryIO", _ChunkReader(chain([head], chunks))))
    return [(STANDARD_INPUT, _decode(chain([head], chunks)))]


def _open_files(name: str, options: CorpusOptions | None, stdin: BinaryIO | None = None) -> list[Source]:
    """The files of an argument, or the documents in them."""
    corpus = open_corpus([name], notify, stdin, options)
    if not corpus.has_documents:
        return list(corpus.iter_files())
    return [(name, Documents(corpus.iter_documents()))]


def iter_batches(sources: Iterable[Source], by: str) -> Iterator[list[InputText]]:
    """The lines (`by` "line") or whole files (`by` "document") of the sources, or their documents, in batches.

    Raises:
        DataError: not UTF-8, or damaged gzip data. Complete lines of standard input before the error are given first.
        StorageError: reading failed.
    """
    batch: list[InputText] = []
    size = 0
    for name, text in sources:
        for texts in _iter_texts(escape_unprintable(name), text, by):
            batch += texts
            size += sum(len(text.text) for text in texts)
            if size >= BATCH_CHARACTERS or (batch and name == STANDARD_INPUT):  # its writer may wait for the result
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _iter_texts(file: str, source: Iterator[str] | Documents, by: str) -> Iterable[list[InputText]]:
    if isinstance(source, Documents):
        return ([_make_document(file, *each)] for each in enumerate(source.documents, start=1))
    return _iter_lines(file, source) if by == "line" else [[InputText(file, None, "".join(source))]]


def _make_document(file: str, number: int, document: Document) -> InputText:
    if document.signal is None:
        return InputText(file, number, document.text, "\n", is_document=True)
    return InputText(file, number, document.completion, "\n", is_document=True, document=document)


def _iter_lines(file: str, chunks: Iterable[str]) -> Iterator[list[InputText]]:
    """The lines that each chunk completes."""
    number = 1
    unfinished: list[str] = []  # the parts of the last line
    for chunk in chunks:
        *lines, rest = chunk.split("\n")
        if lines:
            lines[0] = "".join([*unfinished, lines[0]])
            unfinished.clear()
        unfinished.append(rest)
        yield [_make_line(file, number + index, line, "\n") for index, line in enumerate(lines)]
        number += len(lines)
    if line := "".join(unfinished):
        yield [_make_line(file, number, line, "")]


def _make_line(file: str, number: int, line: str, end: str) -> InputText:
    text = line.removesuffix("\r")
    return InputText(file, number, text, line[len(text) :] + end)


def _read_standard_input() -> Iterator[bytes]:
    """The bytes of standard input, each part as soon as it is available."""
    if sys.stdin is None:
        raise NoInputError("standard input is closed")
    while True:
        with translate_read_errors("standard input"), interrupt_blocking_read():
            chunk = os.read(sys.stdin.fileno(), CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


class _ChunkReader(io.RawIOBase):
    """A stream whose reads return chunks of any size."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, _size: int = -1, /) -> bytes:
        return next(self._chunks, b"")


def _decode(chunks: Iterable[bytes]) -> Iterator[str]:
    """The text of standard input in its chunks, without a byte-order mark."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    bytes_read, line = 0, 1
    for chunk in chain(chunks, [b""]):
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
        line += text.count("\n")
        yield text
