"""Token ids in files, read in place: a corpus of any size takes no more memory than what is looked at.

A file of ids is raw: one after another, little-endian, of one dtype, nothing else. Ids of a very large corpus are in
several files, shards, of which all but the last hold equally many. They are read, not memory-mapped: mapped pages count
as the memory of the process, and a training run would map its whole corpus before long.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError, NoInputError, StorageError
from quickfox.files.atomic import temporary_sibling

SHARD_BYTES = 2**32
"""Most bytes of a shard: what all usual file systems can hold, or nearly."""

_PIECE = 2**20


class TokenSource(Protocol):
    """What batches are cut from: an array of token ids, or of a loss mask, or a file of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> npt.NDArray[Any]:
        """The numbers from `places.start` on, up to `places.stop`."""


class TokenFile:
    """The numbers in one or more files, or a part of them.

    Args:
        path: of the first shard.
        dtype: of the numbers.
        shard_bytes: of all shards but the last.

    Raises:
        NoInputError: there is no such file.
        DataError: a shard's size is no whole number of ids.
        StorageError: a file cannot be opened.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, shard_bytes: int = SHARD_BYTES) -> None:
        self._dtype = little_endian(dtype)
        self._shards = [_Shard(each, self._dtype) for each in shard_paths(path)]
        self._shard_length = shard_bytes // self._dtype.itemsize
        self._start, self._stop = 0, sum(shard.length for shard in self._shards)

    def __len__(self) -> int:
        return self._stop - self._start

    def part(self, start: int, stop: int) -> "TokenFile":
        """The numbers from `start` up to `stop`, still unread."""
        part = object.__new__(TokenFile)
        part.__dict__.update(self.__dict__, _start=self._start + start, _stop=self._start + stop)
        return part

    def __getitem__(self, places: slice) -> npt.NDArray[Any]:
        """The numbers of a slice without a step, read: (length of the slice,).

        Raises:
            StorageError: reading failed, or a file has shrunk.
        """
        start, stop, _ = places.indices(len(self))
        start, stop = self._start + start, self._start + max(start, stop)
        first, last = start // self._shard_length, max(start, stop - 1) // self._shard_length
        if first == last:
            offset = first * self._shard_length
            return self._shards[first].read(start - offset, stop - offset) if stop > start else np.empty(0, self._dtype)
        seam = (first + 1) * self._shard_length - self._start
        return np.concatenate([self[start - self._start : seam], self[seam : stop - self._start]])


class _Shard:
    """One open file."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path = path
        self._dtype = dtype
        try:
            self._file = path.open("rb")
            size = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError:
            raise NoInputError(f"{path}: no such file") from None
        except OSError as error:
            raise _reading_failed(path, error.strerror or str(error)) from error
        if size % dtype.itemsize:
            raise DataError(f"{path}: {size} bytes are no whole number of {dtype.itemsize}-byte token ids")
        self.length = size // dtype.itemsize

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        size = (stop - start) * self._dtype.itemsize
        try:
            data = os.pread(self._file.fileno(), size, start * self._dtype.itemsize)
        except OSError as error:
            raise _reading_failed(self._path, error.strerror or str(error)) from error
        if len(data) != size:
            raise _reading_failed(self._path, "it has become shorter")
        return np.frombuffer(data, self._dtype)


class ShardWriter:
    """Writes bytes to one file after another; a context manager, at whose end all of them are there, or none is.

    Until then they have temporary names. They are not flushed to the disk.

    Args:
        path: of the first shard, made when something is written.
        shard_bytes: most bytes of a file.

    Attributes:
        sha256: of all that was written.
    """

    def __init__(self, path: Path, shard_bytes: int) -> None:
        self._path = path
        self._shard_bytes = shard_bytes
        self._temporaries: list[Path] = []
        self._file: BinaryIO | None = None
        self._room = shard_bytes
        self.sha256 = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
            if error is None:
                for number in reversed(range(len(self._temporaries))):  # the first one last: it says that all are there
                    self._temporaries[number].replace(shard_path(self._path, number))
        finally:
            for temporary in self._temporaries:
                temporary.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Adds `data`; raises OSError."""
        self.sha256.update(data)
        rest = memoryview(data)
        while self._file is None or len(rest) > self._room:
            if self._file is not None:
                self._file.write(rest[: self._room])
                self._file.close()
                rest = rest[self._room :]
            self._temporaries.append(temporary_sibling(self._path))
            self._file = self._temporaries[-1].open("wb")
            self._room = self._shard_bytes
        self._file.write(rest)
        self._room -= len(rest)


def iter_pieces(source: TokenSource) -> Iterator[npt.NDArray[Any]]:
    """All numbers, in pieces that are not too long."""
    for start in range(0, len(source), _PIECE):
        yield source[start : start + _PIECE]


def shard_path(path: Path, number: int) -> Path:
    """The file of a shard: `path` itself is the first, number 0."""
    return path.with_name(f"{path.name}.{number}") if number else path


def shard_paths(path: Path) -> list[Path]:
    """The first shard, and all others that are there."""
    paths = [path]
    while (following := shard_path(path, len(paths))).exists():
        paths.append(following)
    return paths


def remove_shards(path: Path) -> None:
    """Removes them, the last one first, if they are there."""
    for each in reversed(shard_paths(path)):
        each.unlink(missing_ok=True)


def little_endian(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The type as it is in files."""
    return np.dtype(dtype).newbyteorder("<")


def _reading_failed(path: Path, reason: str) -> StorageError:
    return StorageError(f"cannot read {path}: {reason}")
