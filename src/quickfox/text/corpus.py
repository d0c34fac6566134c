"""Read text from files, directories, globs, gzip and standard input as UTF-8, in bounded memory.

A corpus is the text of its files one after another, unchanged but for byte-order marks, which are removed. It can be
read any number of times. Binary data and other encodings are refused, by name where they are recognized. Independent
of vocabularies and tokens.
"""

import codecs
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.text.sources import (
    CHUNK_BYTES,
    STANDARD_INPUT,
    OnRead,
    Source,
    display_name,
    find_sources,
    ignore_progress,
)

_HEAD_BYTES = 8192
"""Enough to recognize binary data; Git inspects as many."""

_SIGNATURES = {
    codecs.BOM_UTF32_LE: "UTF-32 text",  # before UTF-16, whose mark is a prefix of it
    codecs.BOM_UTF32_BE: "UTF-32 text",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
    b"\x1f\x8b": "gzip data (its name must end in .gz)",
    b"PK\x03\x04": "a zip archive or office document",
    b"%PDF-": "a PDF document",
}


@dataclass(frozen=True)
class Corpus:
    """A text in one or more sources; created by `open_corpus`."""

    _sources: tuple[Source, ...]
    _on_read: OnRead = ignore_progress

    def with_progress(self, on_read: OnRead) -> "Corpus":
        """The same corpus with a progress callback; of compressed files it counts the compressed bytes."""
        return Corpus(self._sources, on_read)

    @property
    def size(self) -> int:
        """Bytes of all files, as stored.

        Raises:
            NoInputError, StorageError: a file was removed, or cannot be inspected.
        """
        return sum(source.size for source in self._sources)

    @property
    def names(self) -> tuple[str, ...]:
        """The files, in reading order; standard input is "-"."""
        return tuple(source.name for source in self._sources)

    def iter_text(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
        """Yields the text from its start in non-empty chunks; line ends are unchanged.

        Args:
            chunk_bytes: bytes per read, >= 1.

        Raises:
            DataError: not UTF-8, or damaged gzip data.
            NoInputError: a file was removed.
            StorageError: reading failed.
        """
        for _, chunks in self.iter_files(chunk_bytes):
            yield from chunks

    def iter_files(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[str, Iterator[str]]]:
        """Yields the name and the text chunks of each file, to be read in this order; raises as `iter_text`."""
        for source in self._sources:
            yield source.name, _iter_decoded(source, chunk_bytes, self._on_read)

    def digest(self) -> str:
        """Hexadecimal sha256 of the text in UTF-8; does not call the progress callback. Raises as `iter_text`."""
        sha256 = hashlib.sha256()
        for text in self.with_progress(ignore_progress).iter_text():
            sha256.update(text.encode())
        return sha256.hexdigest()


def open_corpus(sources: Sequence[str], notice: Callable[[str], None], stdin: BinaryIO | None = None) -> Corpus:
    """The corpus of the sources, in their order.

    Args:
        sources: each a file, a directory (every *.txt in it, at any depth, sorted; hidden ones are skipped), a glob
            (its files, sorted), or "-" for standard input. Files named *.gz are decompressed.
        notice: called with a line for the user for each file whose byte-order mark is removed.
        stdin: the stream of "-", copied to an unnamed temporary file; by default the program's standard input.

    Raises:
        NoInputError: a source does not exist or matches no file, or none of them contains text.
        DataError: a source starts like binary data or another encoding.
        StorageError: reading failed.
        UsageError: no source is given, or standard input twice.
    """
    if not sources:
        raise UsageError("no corpus given")
    if sources.count(STANDARD_INPUT) > 1:
        raise UsageError("standard input ('-') can be read only once")
    opened = tuple(found for source in sources for found in find_sources(source, stdin))
    has_text = False
    for source in dict.fromkeys(opened):  # possibly a hundred thousand: no head is kept
        head = next(source.iter_bytes(_HEAD_BYTES), b"")
        _check_is_text(head, source.name)
        if head.startswith(codecs.BOM_UTF8):
            notice(f"{display_name(source.name)}: removed the byte-order mark at its start")
        has_text = has_text or bool(head.removeprefix(codecs.BOM_UTF8))
    if not has_text:
        where = f"{display_name(opened[0].name)}: empty" if len(opened) == 1 else f"all {len(opened)} files are empty"
        raise NoInputError(f"{where}: there is no text to read")
    return Corpus(opened)


def _iter_decoded(source: Source, chunk_bytes: int, on_read: OnRead) -> Iterator[str]:
    """The text of one source without its byte-order mark, in non-empty chunks."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    bytes_read = 0
    at_start = True
    for chunk in itertools.chain(source.iter_bytes(chunk_bytes, on_read), [b""]):
        bytes_read += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            offset = bytes_read - len(error.object) + error.start  # the object starts with bytes kept from before
            raise DataError(
                f"{display_name(source.name)}: not UTF-8 at byte {offset} (0x{error.object[error.start]:02x}); "
                f"convert it, for example with iconv -f latin1 -t utf-8"
            ) from None
        if text and at_start:
            text = text.removeprefix("\ufeff")
            at_start = False
        if text:
            yield text


def _check_is_text(head: bytes, name: str) -> None:
    """Raises DataError if the first bytes of a file are not UTF-8 text, saying what they are."""
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            raise DataError(f"{display_name(name)}: {kind}, not UTF-8 text; convert it first")
    if b"\0" not in head:
        return
    # Latin letters in UTF-16 alternate with zero bytes, which are all at odd positions or all at even ones.
    even, odd = (2 * head[start::2].count(0) / len(head) for start in (0, 1))
    is_utf_16 = len(head) % 2 == 0 and max(even, odd) > 0.4 and min(even, odd) < 0.1
    kind = "UTF-16 text without a byte-order mark" if is_utf_16 else "binary data"
    raise DataError(f"{display_name(name)}: {kind}, not UTF-8 text")
