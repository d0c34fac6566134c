"""A corpus: the files of one or more sources, joined, as plain text or as documents, in bounded memory.

It can be read any number of times. Independent of vocabularies and tokens.
"""

import codecs
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import BinaryIO

from quickfox.config.corpus import CorpusOptions, Format
from quickfox.config.media import MediaKind
from quickfox.errors import DataError, NoInputError, StorageError, UsageError
from quickfox.text.batches import DocumentBatch, batch_documents
from quickfox.text.discovery import Found, Notes, drop_duplicates, find_sources
from quickfox.text.documents import Document
from quickfox.text.encodings import check_is_text
from quickfox.text.formats import READERS, File, Reader, default_include, is_epub, recognize
from quickfox.text.sources import CHUNK_BYTES, STANDARD_INPUT, OnRead, display_name, ignore_progress

_HEAD_BYTES = 8192
"""Enough to recognize binary data; Git inspects as many."""


@dataclass(frozen=True)
class Corpus:
    """A plain text, or documents, in one or more files; created by `open_corpus`."""

    _files: tuple[File, ...]
    options: CorpusOptions
    _on_read: OnRead = ignore_progress

    def with_progress(self, on_read: OnRead) -> "Corpus":
        """The same corpus with a progress callback; of compressed files it counts the compressed bytes."""
        return replace(self, _on_read=on_read)

    @property
    def size(self) -> int:
        """Bytes of all files, as stored.

        Raises:
            NoInputError, StorageError: a file was removed, or cannot be inspected.
        """
        return sum(file.source.size for file in self._files)

    @property
    def names(self) -> tuple[str, ...]:
        """The files, in reading order; standard input is "-"."""
        return tuple(file.source.name for file in self._files)

    @property
    def formats(self) -> tuple[Format, ...]:
        """The format of each file."""
        return tuple(file.format for file in self._files)

    @property
    def has_documents(self) -> bool:
        """Whether it consists of documents; else it is one plain text."""
        return READERS[self._files[0].format].read_documents is not None

    @cached_property
    def media_kind(self) -> MediaKind | None:
        """The kind of the signals of its documents, which its first document tells; None: they have none."""
        first = next(self.iter_documents(), None) if set(self.formats) == {"jsonl"} else None
        return first.signal.kind if first and first.signal else None

    @property
    def is_chat(self) -> bool:
        """Whether its documents are conversations, as text/chat.py writes them."""
        return set(self.formats) == {"chat"}

    def iter_text(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
        """Yields the text from its start in non-empty chunks; line ends are unchanged.

        Between two files is the separator of the options, by default a line feed if the first does not end with a line
        end. Each document is followed by a line feed.

        Args:
            chunk_bytes: bytes per read, >= 1.

        Raises:
            DataError: not text of the encoding, or a file is damaged.
            NoInputError: a file was removed.
            StorageError: reading failed.
        """
        if self.has_documents:
            yield from (f"{document.text}\n" for document in self.iter_documents())
            return
        last = ""
        for _, chunks in self.iter_files(chunk_bytes):
            is_first = True
            for chunk in chunks:
                if is_first and last and (separator := self._separator_after(last)):
                    yield separator
                is_first = False
                last = chunk
                yield chunk

    def _separator_after(self, text: str) -> str:
        if self.options.separator is not None:
            return self.options.separator
        return "" if text.endswith(("\n", "\r")) else "\n"

    def iter_files(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[str, Iterator[str]]]:
        """Yields the name and the text chunks of each file of a plain text, to be read in this order."""
        for file, reader, characters in self._open_files(chunk_bytes):
            assert reader.read_text is not None, "a plain text"
            yield file.source.name, filter(None, reader.read_text(file, characters))

    def iter_documents(self) -> Iterator[Document]:
        """Yields the documents in order.

        Raises:
            DataError: a file is malformed; the message has its name and line.
            NoInputError, StorageError: a file was removed, or reading failed.
        """
        for file, reader, characters in self._open_files(CHUNK_BYTES):
            assert reader.read_documents is not None, "documents"
            yield from reader.read_documents(file, characters)

    def iter_batches(self) -> Iterator[DocumentBatch]:
        """`iter_documents` in batches, without their signals."""
        for file, reader, characters in self._open_files(CHUNK_BYTES):
            assert reader.read_documents is not None, "documents"
            if reader.read_batches is None:
                yield from batch_documents(reader.read_documents(file, characters))
            else:
                yield from reader.read_batches(file, characters)

    def _open_files(self, chunk_bytes: int) -> Iterator[tuple[File, Reader, Iterator[str]]]:
        """Yields each file, its reader and its characters, to be read in this order."""
        for file in self._files:
            reader = READERS[file.format]
            yield file, reader, iter(()) if reader.is_binary else file.decode(chunk_bytes, self._on_read)
            if reader.is_binary:
                self._on_read(file.source.size)

    def count_units(self) -> int:
        """Number of units, none of which is divided by a split: documents, or the characters of a plain text."""
        return sum(map(len, self.iter_batches() if self.has_documents else self.iter_text()))

    def iter_spans(self) -> Iterator[Iterable[str]]:
        """Yields the texts that a tokenizer is built from, each in chunks; no token extends over two of them.

        They are the whole plain text, or the parts of the documents.
        """
        if self.has_documents:
            yield from ([text] for batch in self.iter_batches() for text in batch.texts if text)
        else:
            yield self.iter_text()

    def digest(self) -> str:
        """Hexadecimal sha256 of the plain text in UTF-8, or of the files of documents; does not count as progress."""
        sha256 = hashlib.sha256()
        if not self.has_documents:
            for text in self.with_progress(ignore_progress).iter_text():
                sha256.update(text.encode())
            return sha256.hexdigest()
        for file in self._files:
            if READERS[file.format].is_binary:
                with file.source.open_checked() as opened:
                    while data := opened.read(CHUNK_BYTES):
                        sha256.update(data)
            else:
                for text in file.decode():
                    sha256.update(text.encode())
        return sha256.hexdigest()


def open_corpus(
    sources: Sequence[str],
    notice: Callable[[str], None],
    stdin: BinaryIO | None = None,
    options: CorpusOptions | None = None,
    *,
    is_recorded: bool = False,
) -> Corpus:
    """The corpus of the sources, in their order.

    Files that are given twice, by any name, are read once. Empty files are left out, and of folders also those that
    cannot be read.

    Args:
        sources: each a file, a directory (its files that `options.include` names, at any depth, sorted; hidden ones are
            skipped), a glob (its files, sorted), a zip archive, one of its members, or "-" for standard input.
            Compressed files are decompressed.
        notice: called with a line for the user for each kind of file that is not read as it is.
        stdin: the stream of "-", copied to an unnamed temporary file; by default the program's standard input.
        options: how the files are read; None: all is recognized.
        is_recorded: whether the sources are the files of an earlier corpus, of which none is left out or told.

    Raises:
        NoInputError: a source does not exist or matches no file, or none of them contains text.
        DataError: a file is binary data, of another encoding or malformed, or plain text and documents are mixed.
        StorageError: reading failed.
        UsageError: no source is given, or standard input twice.
    """
    options = options or CorpusOptions()
    if not sources:
        raise UsageError("no corpus given")
    if sources.count(STANDARD_INPUT) > 1:
        raise UsageError("standard input ('-') can be read only once")
    notes = Notes()
    include = options.include or default_include(options)
    found = [item for source in sources for item in find_sources(source, stdin, include, is_epub, notes)]
    if not is_recorded:
        found = drop_duplicates(found, notes)
    tell = ignore_notice if is_recorded else notice
    files = [file for item in found if (file := _open_file(item, options, notes, tell)) is not None]
    if not files:
        where = (
            f"{display_name(found[0].source.name)}: empty" if len(found) == 1 else f"all {len(found)} files are empty"
        )
        raise NoInputError(f"{where}: there is no text to read")
    _check_kinds(files)
    for line in chain(_describe_formats(files), notes.describe()):
        tell(line)
    return Corpus(tuple(files), options)


def ignore_notice(_line: str) -> None:
    """No-op notice callback."""


def _open_file(found: Found, options: CorpusOptions, notes: Notes, notice: Callable[[str], None]) -> File | None:
    """The file of a source; None: it is empty, or in a folder and cannot be read."""
    source = found.source
    name = display_name(source.name)
    try:
        head = next(source.iter_bytes(_HEAD_BYTES), b"")
    except StorageError:
        if found.is_named:
            raise
        notes.add("unreadable", name)
        return None
    text = head.removeprefix(codecs.BOM_UTF8)
    if not text:
        notes.add("empty", name)
        return None
    file = recognize(source, head, options)
    if not READERS[file.format].is_binary:
        check_is_text(head, name, has_encoding=options.encoding is not None)
        if text is not head:
            notice(f"{name}: removed the byte-order mark at its start")
    return file


def _check_kinds(files: Sequence[File]) -> None:
    """Raises DataError if some files are plain text and others documents."""
    kinds = {READERS[file.format].read_documents is not None: file for file in reversed(files)}
    if len(kinds) > 1:
        documents, text = (f"{kinds[kind].name} is {READERS[kinds[kind].format].description}" for kind in (True, False))
        raise DataError(
            f"{documents}, and {text}: a corpus is plain text or documents; choose files, or one format", "format"
        )


def _describe_formats(files: Sequence[File]) -> Iterator[str]:
    """A line for each format that was recognized, except plain text and JSON lines of that name."""
    told = [file for file in files if file.options.requested_format is None and file.format != "text"]
    told = [file for file in told if file.format != "jsonl" or file.suffix != ".jsonl"]
    for name, count in Counter(file.format for file in told).items():
        first = next(file.name for file in told if file.format == name)
        others = f" and {count - 1:,} more" if count > 1 else ""
        yield f"{first}{others}: read as {READERS[name].description} (--format {name})"
