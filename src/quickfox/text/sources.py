"""Sources of bytes: the files, directories, globs, gzip files and streams that make up a corpus.

Each source can be read any number of times; streams are copied to a temporary file first. Independent of encodings.
"""

import glob
import gzip
import os
import stat
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from quickfox.errors import DataError, NoInputError
from quickfox.files.errors import translate_read_errors, translate_write_errors

STANDARD_INPUT = "-"

CHUNK_BYTES = 2**18
"""Bytes per read. A chunk stays in a core's cache from reading to encoding; larger ones were slower."""

OnRead = Callable[[int], None]
"""Progress callback; its argument is the number of bytes read since the last call."""


def ignore_progress(_size: int) -> None:
    """No-op progress callback."""


@dataclass(frozen=True, slots=True)
class _File:
    """A regular file, plain or gzip-compressed; its size is in bytes as stored."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        with translate_read_errors(self.path):
            return self.path.stat().st_size

    def iter_bytes(self, chunk_bytes: int, on_read: OnRead = ignore_progress) -> Iterator[bytes]:
        position = 0
        with translate_read_errors(self.path), self.path.open("rb") as stored:
            file = gzip.GzipFile(fileobj=stored) if self.path.suffix == ".gz" else stored
            try:
                while chunk := file.read(chunk_bytes):
                    last, position = position, stored.tell()
                    on_read(position - last)
                    yield chunk
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DataError(f"{self.path}: damaged gzip data: {error}") from error


@dataclass(frozen=True, eq=False)
class _Spool:
    """A stream that can be read only once (standard input, a pipe), copied to an unnamed temporary file."""

    name: str
    file: IO[bytes]

    @property
    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def iter_bytes(self, chunk_bytes: int, on_read: OnRead = ignore_progress) -> Iterator[bytes]:
        position = 0  # not the file's, which several readers use
        with translate_read_errors(display_name(self.name)):
            while chunk := os.pread(self.file.fileno(), chunk_bytes, position):
                position += len(chunk)
                on_read(len(chunk))
                yield chunk


Source = _File | _Spool


def find_sources(source: str, stdin: BinaryIO | None) -> list[Source]:
    """The files of one argument of `open_corpus`, in reading order, at least one.

    Raises:
        NoInputError: it does not exist or matches no file.
        StorageError: it cannot be read.
    """
    if source == STANDARD_INPUT:
        if stdin is None and sys.stdin is None:  # the program was started with it closed
            raise NoInputError("standard input is closed")
        return [_spool(source, stdin or sys.stdin.buffer)]
    if not source:  # an unset shell variable; Path("") is the current directory
        raise NoInputError("'': no such file or directory")
    path = Path(source)
    with translate_read_errors(source):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: not a possible file name
            mode = None
        if mode is None:
            paths = _matches(source)
        elif stat.S_ISDIR(mode):
            paths = _texts_in(path)
        elif stat.S_ISREG(mode):
            paths = [path]
        else:
            with path.open("rb") as stream:  # a device or a pipe, such as the shell's <(zcat log.gz)
                return [_spool(source, stream)]
    return [_File(path) for path in sorted(paths, key=lambda path: path.parts)]  # as paths, four times as fast


def display_name(name: str) -> str:
    """The name of a source in messages."""
    return "standard input" if name == STANDARD_INPUT else name


def _matches(pattern: str) -> list[Path]:
    """The files that a glob matches; raises NoInputError if it is not a glob or matches none."""
    if not glob.has_magic(pattern):
        raise NoInputError(f"{pattern}: no such file or directory")
    found = [Path(match) for match in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - may be absolute
    files = [path for path in found if path.is_file()]
    if not files:
        raise NoInputError(f"{pattern}: matches no file")
    return files


def _texts_in(directory: Path) -> list[Path]:
    """The visible *.txt files in a directory, at any depth; raises NoInputError if there is none."""

    def fail(error: OSError) -> None:
        with translate_read_errors(str(error.filename)):
            raise error

    texts: list[Path] = []
    for path, subdirectories, files in os.walk(directory, onerror=fail):
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        texts += [Path(path, name) for name in files if name.endswith(".txt") and not name.startswith(".")]
    if not texts:
        raise NoInputError(f"{directory}: no *.txt file in this directory")
    return texts


def _spool(name: str, stream: BinaryIO) -> _Spool:
    with translate_write_errors(None, f"copy {display_name(name)} to"):
        spool = _Spool(name, tempfile.TemporaryFile())  # noqa: SIM115 - the file lives as long as the source
        weakref.finalize(spool, spool.file.close)
        while chunk := _read(stream, name):
            spool.file.write(chunk)
        spool.file.flush()
    return spool


def _read(stream: BinaryIO, name: str) -> bytes:
    with translate_read_errors(display_name(name)):
        return stream.read(CHUNK_BYTES)
