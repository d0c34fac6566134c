"""Where text comes from: files, folders, globs, gzip, standard input; read as UTF-8 in bounded memory.

A corpus is the texts of its files one after another, nothing added or changed but for byte-order marks, which are
dropped. It can be read again and again. What is no text is refused, by name where we can tell what it is. Knows no
vocabulary, no tokens.
"""

import codecs
import glob
import gzip
import hashlib
import itertools
import os
import shutil
import stat
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from quickfox.errors import DataError, NoInputError, QuickfoxError, StorageError, UsageError
from quickfox.system.allocator import give_back_free_memory, reused_memory

STANDARD_INPUT = "-"

CHUNK_BYTES = 2**18
"""Read at a time: what stays in a core's cache from reading to encoding; larger chunks were slower."""

_TRIM_BYTES = 2**25
"""After so many bytes, free memory is given back."""

_HEAD_BYTES = 8192
"""Enough to tell what a file is; Git looks at as many for its guess."""

_SIGNATURES = {
    codecs.BOM_UTF32_LE: "UTF-32 text",  # before UTF-16, whose mark begins it
    codecs.BOM_UTF32_BE: "UTF-32 text",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
    b"\x1f\x8b": "gzip data (its name must end in .gz)",
    b"PK\x03\x04": "a zip archive or office document",
    b"%PDF-": "a PDF document",
}


OnRead = Callable[[int], None]
"""Told each time how many more bytes of a file were read."""


def _ignore_progress(_size: int) -> None:
    """Nobody wants to know."""


class _Source(Protocol):
    """Bytes with a name, readable from the start any number of times."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int:
        """Bytes as they are stored."""

    def iter_blocks(self, block_bytes: int, on_read: "OnRead" = ...) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Corpus:
    """A text in one or more sources; made by `open_corpus`."""

    _sources: tuple[_Source, ...]
    _on_read: OnRead = _ignore_progress

    def with_progress(self, on_read: OnRead) -> "Corpus":
        """The same, but who reads its text tells `on_read` how many bytes; of compressed files, as they are stored."""
        return Corpus(self._sources, on_read)

    @property
    def size(self) -> int:
        """Bytes of all its files, as they are stored.

        Raises:
            NoInputError, StorageError: a file has gone, or cannot be looked at.
        """
        return sum(source.size for source in self._sources)

    @property
    def names(self) -> tuple[str, ...]:
        """The files, in reading order; standard input is "-"."""
        return tuple(source.name for source in self._sources)

    def iter_text(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
        """The text from its start, in chunks that are not empty; line ends are as in the files.

        Args:
            chunk_bytes: most bytes of a file to have in memory at a time, >= 1.

        Raises:
            DataError: not UTF-8, or damaged gzip data.
            NoInputError: a file has gone.
            StorageError: reading failed.
        """
        for _, chunks in self.iter_files(chunk_bytes):
            yield from chunks

    def iter_files(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[str, Iterator[str]]]:
        """The name of each file and its text, to be read before the next is asked for; raises what `iter_text` does."""
        with reused_memory():
            for source in self._sources:
                yield source.name, _iter_decoded(source, chunk_bytes, self._on_read)

    def digest(self) -> str:
        """The sha256 of the text's UTF-8 bytes, in hexadecimal; raises what `iter_text` does.

        Nobody is told of this reading: who watches follows the work that is done with the text.
        """
        sha256 = hashlib.sha256()
        for text in self.with_progress(_ignore_progress).iter_text():
            sha256.update(text.encode())
        return sha256.hexdigest()


def open_corpus(sources: Sequence[str], notice: Callable[[str], None], stdin: BinaryIO | None = None) -> Corpus:
    """The corpus of the sources, in their order.

    Args:
        sources: each a file, a folder (all *.txt in it, at any depth, in sorted order; hidden ones skipped), a glob
            (its files, sorted), or "-" for standard input. What is named *.gz is decompressed.
        notice: called with a line for the user when a byte-order mark is dropped, once a file.
        stdin: what "-" reads, to its end, into an unnamed temporary file; by default the program's standard input.

    Raises:
        NoInputError: a source is not there or matches nothing, or there is no text in all of them.
        DataError: a source is binary, or text of another encoding, by its first bytes.
        StorageError: reading failed.
        UsageError: no source is given, or standard input twice.
    """
    if not sources:
        raise UsageError("no corpus given")
    if sources.count(STANDARD_INPUT) > 1:
        raise UsageError("standard input ('-') can be read only once")
    opened = tuple(found for source in sources for found in _find(source, stdin))
    has_text = False
    for source in dict.fromkeys(opened):  # perhaps a hundred thousand: nothing of one is kept
        head = next(source.iter_blocks(_HEAD_BYTES), b"")
        _refuse_what_is_no_text(head, source.name)
        if head.startswith(codecs.BOM_UTF8):
            notice(f"{_shown(source.name)}: dropped the byte-order mark at its start")
        has_text = has_text or bool(head.removeprefix(codecs.BOM_UTF8))
    if not has_text:
        where = f"{_shown(opened[0].name)}: empty" if len(opened) == 1 else f"all {len(opened)} files are empty"
        raise NoInputError(f"{where}: there is no text to read")
    return Corpus(opened)


# Sources: from names to bytes.


@dataclass(frozen=True, slots=True)
class _File:
    """A regular file, plain or gzip-compressed."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise _reading_failed(self.name, error) from error

    def iter_blocks(self, block_bytes: int, on_read: OnRead = _ignore_progress) -> Iterator[bytes]:
        position = 0
        try:
            with self.path.open("rb") as stored:
                file = gzip.GzipFile(fileobj=stored) if self.path.suffix == ".gz" else stored
                while block := file.read(block_bytes):
                    before, position = position, stored.tell()
                    on_read(position - before)
                    yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: damaged gzip data: {error}") from error
        except OSError as error:
            raise _reading_failed(self.name, error) from error


@dataclass(frozen=True, eq=False)
class _Spool:
    """What can be read only once (standard input, a pipe), kept in an unnamed temporary file."""

    name: str
    file: IO[bytes]

    @property
    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def iter_blocks(self, block_bytes: int, on_read: OnRead = _ignore_progress) -> Iterator[bytes]:
        position = 0  # our own: several readers share the file's
        try:
            while True:
                self.file.seek(position)
                block = self.file.read(block_bytes)
                if not block:
                    return
                position += len(block)
                on_read(len(block))
                yield block
        except OSError as error:
            raise _reading_failed(self.name, error) from error


def _find(source: str, stdin: BinaryIO | None) -> list[_Source]:
    """The files that a source names, in reading order, at least one."""
    if source == STANDARD_INPUT:
        return [_spool(source, _standard_input() if stdin is None else stdin)]
    if not source:  # Path would take it for the folder we are in; an unset variable of a shell is no such wish
        raise NoInputError("'': no such file or folder")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        return [_File(match) for match in _matches(source)]
    except OSError as error:
        raise _reading_failed(source, error) from error
    if stat.S_ISDIR(mode):
        return [_File(text) for text in _texts_in(path)]
    if stat.S_ISREG(mode):
        return [_File(path)]
    try:
        with path.open("rb") as stream:  # a pipe, such as the shell's <(zcat log.gz), or a device
            return [_spool(source, stream)]
    except OSError as error:
        raise _reading_failed(source, error) from error


def _matches(pattern: str) -> list[Path]:
    """The files that a glob matches, sorted; raises NoInputError when it is no glob or matches none."""
    if not glob.has_magic(pattern):
        raise NoInputError(f"{pattern}: no such file or folder")
    found = _sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207 - may be absolute
    files = [path for path in found if path.is_file()]
    if not files:
        raise NoInputError(f"{pattern}: matches no file")
    return files


def _texts_in(folder: Path) -> list[Path]:
    """The *.txt files in a folder, at any depth, sorted, none hidden; raises NoInputError when there is none."""

    def refuse(error: OSError) -> None:
        raise _reading_failed(str(error.filename), error) from error

    texts: list[Path] = []
    for path, subfolders, files in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        texts += [Path(path, name) for name in files if name.endswith(".txt") and not name.startswith(".")]
    if not texts:
        raise NoInputError(f"{folder}: no *.txt file in this folder")
    return _sorted(texts)


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.parts)  # the order of paths themselves, in a quarter of the time


def _standard_input() -> BinaryIO:
    if sys.stdin is None:  # closed by whoever started us
        raise NoInputError("standard input is closed")
    return sys.stdin.buffer


def _spool(name: str, stream: BinaryIO) -> _Spool:
    try:
        spool = _Spool(name, tempfile.TemporaryFile())  # noqa: SIM115 - the file lives as long as the source
        weakref.finalize(spool, spool.file.close)
        shutil.copyfileobj(stream, spool.file)
        spool.file.flush()
    except OSError as error:
        raise StorageError(f"cannot keep {_shown(name)} in a temporary file: {error.strerror or error}") from error
    return spool


# Text: from bytes to characters.


def _iter_decoded(source: _Source, chunk_bytes: int, on_read: OnRead) -> Iterator[str]:
    """The text of one source, less its byte-order mark, in chunks that are not empty."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    bytes_read = 0
    at_start = True
    for block in itertools.chain(source.iter_blocks(chunk_bytes, on_read), [b""]):
        if bytes_read // _TRIM_BYTES < (bytes_read + len(block)) // _TRIM_BYTES:
            give_back_free_memory()
        bytes_read += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            offset = bytes_read - len(error.object) + error.start  # the object begins with what was held back
            raise DataError(
                f"{_shown(source.name)}: not UTF-8 at byte {offset} (0x{error.object[error.start]:02x}); convert it, "
                f"for example with iconv -f latin1 -t utf-8"
            ) from None
        if text and at_start:
            text = text.removeprefix("\ufeff")
            at_start = False
        if text:
            yield text


def _refuse_what_is_no_text(head: bytes, name: str) -> None:
    """Raises DataError when the first bytes of a file are not those of UTF-8 text, saying what they are."""
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            raise DataError(f"{_shown(name)}: {kind}, not UTF-8 text; convert it first")
    if b"\0" not in head:
        return
    # Latin letters in UTF-16 are a letter and a zero in turn, the zeros all at odd places or all at even ones.
    even, odd = (2 * head[start::2].count(0) / len(head) for start in (0, 1))
    is_utf_16 = len(head) % 2 == 0 and max(even, odd) > 0.4 and min(even, odd) < 0.1
    kind = "UTF-16 text without a byte-order mark" if is_utf_16 else "binary data"
    raise DataError(f"{_shown(name)}: {kind}, not UTF-8 text")


def _reading_failed(name: str, error: OSError) -> QuickfoxError:
    """What an error of the operating system means for the user."""
    if isinstance(error, FileNotFoundError):
        return NoInputError(f"{name}: no such file")
    return StorageError(f"cannot read {_shown(name)}: {error.strerror or error}")


def _shown(name: str) -> str:
    return "standard input" if name == STANDARD_INPUT else name
