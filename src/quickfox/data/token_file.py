"""Token ids in files, read in place: memory does not depend on the size of the corpus.

A file is raw: the ids of one dtype, little-endian, without a header. A large corpus has several files, shards, all of
the same size but the last. They are read with `pread`, not memory-mapped: mapped memory counts as memory of the
process, and a training run would soon map the whole corpus.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError, StorageError
from quickfox.files.atomic import clean_up_after, temporary_sibling
from quickfox.files.errors import translate_read_errors

SHARD_BYTES = 2**32
"""Maximum bytes of a shard, which the usual file systems support."""


class TokenSource(Protocol):
    """An array of token ids or of a loss mask, or a file of them; batches are read from it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> npt.NDArray[Any]:
        """The elements of a slice without a step."""


def gather(source: TokenSource, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The elements at positions of any shape, which are read in runs of consecutive ones."""
    if isinstance(source, np.ndarray):
        return source[positions]
    flat = positions.reshape(-1)
    ends = np.append(np.flatnonzero(np.diff(flat) != 1) + 1, len(flat))
    starts = flat[np.append(0, ends[:-1])]
    lengths = np.diff(ends, prepend=0)
    runs = zip(starts.tolist(), lengths.tolist(), strict=True)
    if isinstance(source, TokenFile):
        return source.read_runs(runs).reshape(positions.shape)
    return np.concatenate([source[start : start + length] for start, length in runs]).reshape(positions.shape)


class TokenFile:
    """The elements of an array of `dtype` in one or more files, of which `path` is the first; or a part of them.

    Raises:
        NoInputError: there is no such file.
        DataError: the size of a shard is not a multiple of the element size, or not the size of the first.
        StorageError: a file cannot be opened.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self._dtype = little_endian(dtype)
        self._shards = [_Shard(shard, self._dtype) for shard in shard_paths(path)]
        lengths = [shard.length for shard in self._shards]
        if any(length != lengths[0] for length in lengths[:-1]) or lengths[-1] > lengths[0]:
            raise DataError(f"{path}: a shard is damaged: resume the run to encode its text again")
        self._shard_length = lengths[0]
        self._start, self._stop = 0, sum(lengths)

    def __len__(self) -> int:
        return self._stop - self._start

    def part(self, start: int, stop: int) -> "TokenFile":
        """The elements from `start` up to `stop`, not read yet."""
        part = object.__new__(TokenFile)
        part.__dict__.update(self.__dict__, _start=self._start + start, _stop=self._start + stop)
        return part

    def __getitem__(self, index: slice) -> npt.NDArray[Any]:
        """Reads the elements of a slice without a step: (length of the slice,).

        Raises:
            StorageError: reading failed, or a file was truncated.
        """
        start, stop, _ = index.indices(len(self))
        start, stop = self._start + start, self._start + max(start, stop)
        parts = []
        while start < stop:
            number, first = divmod(start, self._shard_length)
            last = min(first + stop - start, self._shard_length)
            parts.append(self._shards[number].read(first, last))
            start += last - first
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self._dtype), *parts])

    def read_runs(self, runs: Iterable[tuple[int, int]]) -> npt.NDArray[Any]:
        """The elements of several runs, (first element, number of elements), of this part one after the other.

        Raises:
            StorageError: reading failed, or a file was truncated.
        """
        if len(self._shards) > 1:
            return np.concatenate([self[start : start + length] for start, length in runs])
        return self._shards[0].read_runs((self._start + start, length) for start, length in runs)


class _Shard:
    """One open file."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path = path
        self._dtype = dtype
        with translate_read_errors(path):
            self._file = path.open("rb")
            size = os.fstat(self._file.fileno()).st_size
        if size % dtype.itemsize:
            raise DataError(f"{path}: {size} bytes are not a whole number of {dtype.itemsize}-byte token ids")
        self.length = size // dtype.itemsize

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        size = (stop - start) * self._dtype.itemsize
        with translate_read_errors(self._path):
            data = os.pread(self._file.fileno(), size, start * self._dtype.itemsize)
        return self._to_array(data, size)

    def read_runs(self, runs: Iterable[tuple[int, int]]) -> npt.NDArray[Any]:
        descriptor, item_bytes = self._file.fileno(), self._dtype.itemsize
        parts, size = [], 0
        with translate_read_errors(self._path):
            for start, length in runs:
                parts.append(os.pread(descriptor, length * item_bytes, start * item_bytes))
                size += length * item_bytes
        return self._to_array(b"".join(parts), size)

    def _to_array(self, data: bytes, size: int) -> npt.NDArray[Any]:
        if len(data) != size:
            raise StorageError(f"cannot read {self._path}: it was truncated")
        return np.frombuffer(data, self._dtype)


class ShardWriter:
    """Context manager that writes bytes to shards; at its end all of them exist, or none after an exception.

    Until then they have temporary names. They are not flushed to the disk. The first shard, `path`, is created by the
    first write.

    Attributes:
        sha256: of all bytes written.
    """

    def __init__(self, path: Path, shard_bytes: int) -> None:
        self._path = path
        self._shard_bytes = shard_bytes
        self._files: list[BinaryIO] = []  # with temporary names; all but the last are closed
        self._free = 0  # bytes of the last
        self._stack = ExitStack()
        self.sha256 = hashlib.sha256()

    def __enter__(self) -> Self:
        self._stack.enter_context(clean_up_after(self._remove_temporaries))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            if self._files:
                self._files[-1].close()
            if error is None:
                for number in reversed(range(len(self._files))):  # the first shard last: it exists only if all do
                    Path(self._files[number].name).replace(shard_path(self._path, number))

    def _remove_temporaries(self) -> None:
        for file in self._files:
            Path(file.name).unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Appends `data`; raises OSError."""
        self.sha256.update(data)
        rest = memoryview(data)
        while rest or not self._files:
            if self._free == 0:
                self._files.append(temporary_sibling(self._path).open("wb"))
                self._free = self._shard_bytes
            size = self._files[-1].write(rest[: self._free])
            rest = rest[size:]
            self._free -= size
            if self._free == 0:
                self._files[-1].close()


def shard_path(path: Path, number: int) -> Path:
    """The file of a shard; `path` itself is shard 0."""
    return path.with_name(f"{path.name}.{number}") if number else path


def shard_paths(path: Path) -> list[Path]:
    """The first shard, and the others that exist."""
    paths = [path]
    while (shard := shard_path(path, len(paths))).exists():
        paths.append(shard)
    return paths


def little_endian(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype in files."""
    return np.dtype(dtype).newbyteorder("<")
