"""Sources of bytes: files, members of zip archives, and streams; decompressed as they are read.

Each source can be read any number of times; streams are copied to a temporary file first. Compression is recognized by
content, whatever the name. Independent of encodings and formats.
"""

import bz2
import gzip
import io
import lzma
import os
import posixpath
import tempfile
import weakref
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from quickfox.errors import DataError
from quickfox.files.errors import translate_read_errors, translate_write_errors

STANDARD_INPUT = "-"

CHUNK_BYTES = 2**18  # per read. A chunk stays in a core's cache from reading to encoding; larger ones were slower


class _Compression(NamedTuple):
    name: str
    suffix: str
    signature: bytes
    open: Callable[[IO[bytes]], IO[bytes] | gzip.GzipFile]


COMPRESSIONS = (
    _Compression("gzip", ".gz", b"\x1f\x8b", lambda stored: gzip.GzipFile(fileobj=stored)),
    _Compression("bzip2", ".bz2", b"BZh", bz2.BZ2File),
    _Compression("xz", ".xz", b"\xfd7zXZ\0", lzma.LZMAFile),
)

_ARCHIVE = "zip archive or office document"
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")

# RuntimeError is that of encrypted members, and of unknown versions and compressions.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeError, RuntimeError)

_MAX_EXPANSION, _MIN_EXPANDED_BYTES = 1000, 2**20
"""An archive that unpacks to more than these bytes and to so many times its size is refused: no text does."""

OnRead = Callable[[int], None]  # the number of bytes read since the last call


def ignore_progress(_size: int) -> None:
    """No-op progress callback."""


class Source(ABC):
    """Bytes that can be read any number of times."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its path, which finds it again; "-" for standard input."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes as stored; of a member of an archive, as unpacked from it."""

    @abstractmethod
    def open(self) -> IO[bytes]:
        """The stored bytes, seekable; raises OSError, NoInputError or DataError."""

    @contextmanager
    def open_checked(self) -> Iterator[IO[bytes]]:
        """`open`, closed in the end; failures within are translated.

        Raises:
            DataError: a damaged archive.
            NoInputError: the file was removed.
            StorageError: reading failed.
        """
        shown = display_name(self.name)
        with translate_read_errors(shown):
            try:
                with self.open() as file:
                    yield file
            except zipfile.BadZipFile as error:
                raise DataError(f"{shown}: damaged {_ARCHIVE}: {error!s:.200}") from None

    def iter_bytes(self, chunk_bytes: int, on_read: OnRead = ignore_progress) -> Iterator[bytes]:
        """The decompressed bytes in chunks of at most `chunk_bytes`.

        Raises:
            DataError: damaged compressed data or a damaged archive.
            NoInputError: the file was removed.
            StorageError: reading failed.
        """
        position = expanded = 0
        with self.open_checked() as stored:
            compression = _compression(stored, self.name)
            file = compression.open(stored) if compression else stored
            with translate_damage(display_name(self.name), f"{compression.name if compression else 'zip'} data"):
                while chunk := file.read(chunk_bytes):
                    last, position = position, stored.tell()
                    on_read(position - last)
                    expanded += len(chunk)
                    if compression:
                        _check_expansion(expanded, position, self.name)
                    yield chunk


@dataclass(frozen=True, slots=True)
class FileSource(Source):
    """A regular file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        with translate_read_errors(self.path):
            return self.path.stat().st_size

    def open(self) -> IO[bytes]:
        return self.path.open("rb")


@dataclass(frozen=True, eq=False)
class SpooledSource(Source):
    """A stream that can be read only once (standard input, a pipe), copied to an unnamed temporary file."""

    stream_name: str
    file: IO[bytes]

    @property
    def name(self) -> str:
        return self.stream_name

    @property
    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def open(self) -> IO[bytes]:
        return io.BufferedReader(_SpoolReader(self.file.fileno()), CHUNK_BYTES)


class _SpoolReader(io.RawIOBase):
    """A reader of a file with a position of its own, as several readers use the file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]  # any writable buffer
        count = os.preadv(self._descriptor, [buffer], self._position)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._position = starts[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position


@dataclass(frozen=True, eq=False)
class MemberSource(Source):
    """A member of a zip archive."""

    archive: Source
    member: str
    unpacked_size: int

    @property
    def name(self) -> str:
        return f"{self.archive.name}/{self.member}"

    @property
    def size(self) -> int:
        return self.unpacked_size

    def open(self) -> IO[bytes]:
        try:
            return _open_archive(self.archive).open(self.member)
        except KeyError:
            raise DataError(f"{display_name(self.name)}: the archive has no such member") from None
        except NotImplementedError as error:
            raise DataError(f"{display_name(self.name)}: cannot be unpacked: {error}") from None


def open_named(source: Source, name: str) -> Source:
    """The source of a file that the content of `source` names.

    The name is relative to the folder of a file, or in an archive to that of the member; of a stream, to the current
    folder.

    Raises:
        DataError: the name leaves the archive.
    """
    if not isinstance(source, MemberSource):
        return FileSource(source.path.parent / name if isinstance(source, FileSource) else Path(name))
    member = posixpath.normpath(posixpath.join(posixpath.dirname(source.member), name))
    if member.startswith(("/", "../")) or "\\" in name:
        raise DataError(f"{name!r} is outside the archive {display_name(source.archive.name)}")
    return MemberSource(source.archive, member, 0)


def list_members(archive: Source) -> list[MemberSource]:
    """The files in a zip archive, in the archive's order.

    Raises:
        DataError: it is damaged, encrypted, or unpacks to an enormous size.
    """
    shown = display_name(archive.name)
    _open_archive.cache_clear()  # the file may have been replaced
    with translate_read_errors(shown), translate_damage(shown):
        members = [each for each in _open_archive(archive).infolist() if each.filename and not each.is_dir()]
    _check_expansion(sum(member.file_size for member in members), archive.size, archive.name)
    if encrypted := [member.filename for member in members if member.flag_bits & 1]:
        raise DataError(f"{shown}: {encrypted[0]} is encrypted; unpack the archive first")
    return [MemberSource(archive, member.filename, member.file_size) for member in members]


@contextmanager
def translate_damage(name: str, kind: str = _ARCHIVE) -> Iterator[None]:
    """Translates what Python's archives and decompressors raise for damaged or encrypted data to DataError."""
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of a decompressor
            raise
        raise DataError(f"{name}: damaged {kind}: {error!s:.200}") from None


@lru_cache(maxsize=1)  # the members of an archive follow each other; more archives would be more open files
def _open_archive(archive: Source) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive.open())  # closed when it is no longer referenced


def spool(name: str, stream: BinaryIO) -> SpooledSource:
    """Copies a stream to a temporary file; raises StorageError."""
    with translate_write_errors(None, f"copy {display_name(name)} to"):
        spooled = SpooledSource(name, tempfile.TemporaryFile())  # noqa: SIM115 - the file lives as long as the source
        weakref.finalize(spooled, spooled.file.close)
        while chunk := _read(stream, name):
            spooled.file.write(chunk)
        spooled.file.flush()
    return spooled


def uncompressed_name(name: str) -> str:
    """The name without the suffix of a compression."""
    return next((name[: -len(suffix)] for _, suffix, *_ in COMPRESSIONS if name.lower().endswith(suffix)), name)


def display_name(name: str) -> str:
    """The name of a source in messages."""
    return "standard input" if name == STANDARD_INPUT else name


def _read(stream: BinaryIO, name: str) -> bytes:
    with translate_read_errors(display_name(name)):
        return stream.read(CHUNK_BYTES)


def _compression(stored: IO[bytes], name: str) -> _Compression | None:
    """The compression by the first bytes; DataError if the name has the suffix of one, and the bytes are not of it."""
    with translate_damage(display_name(name), "zip data"):  # of a member
        head = stored.peek(6)  # type: ignore[attr-defined]  # all sources are buffered
    found = next((compression for compression in COMPRESSIONS if head.startswith(compression.signature)), None)
    named = next((compression for compression in COMPRESSIONS if name.lower().endswith(compression.suffix)), None)
    if found is None and named is not None and head:
        raise DataError(f"{display_name(name)}: damaged {named.name} data: it does not start as such")
    return found


def _check_expansion(expanded: int, stored: int, name: str) -> None:
    """Raises DataError if so many bytes from so few cannot be text."""
    if expanded > max(_MIN_EXPANDED_BYTES, _MAX_EXPANSION * stored):
        raise DataError(
            f"{display_name(name)}: unpacks to more than {_MAX_EXPANSION:,} times its size; unpack it yourself if you "
            f"trust it"
        )
