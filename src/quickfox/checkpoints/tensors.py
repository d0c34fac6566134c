"""Format and parse named tensors in the safetensors format; damaged or hostile bytes are refused.

The library's own reader is not used: it accepts NaN, unknown tensors and any shape. Here the header's size is limited,
its entries are checked for consistency and against the expected tensors, and only then are arrays created, as views of
the bytes. Pure functions over bytes, independent of files.

Format: https://huggingface.co/docs/safetensors: 8 bytes little-endian length, a JSON header, the data.
"""

import math
import reprlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from quickfox.errors import DataError
from quickfox.files.json import parse_json
from quickfox.models.parameters import TensorSpec

MAX_HEADER_BYTES = 2**20
"""Enough for about ten thousand tensors; the largest model of this program has a few hundred."""

_MAX_DIMENSIONS = 8
_MAX_SHAPE_SIZE = 2**48
"""Product of the nonzero dimensions: NumPy computes it for empty tensors too, and fails if it overflows."""

_SHOWN_CHARACTERS = 60

_LENGTH_BYTES = 8
MAX_OVERHEAD_BYTES = _LENGTH_BYTES + MAX_HEADER_BYTES
"""Maximum size of a file beyond that of its tensors."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
}


class _Entry(NamedTuple):
    """A tensor as the header describes it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int  # byte offsets in the data
    stop: int


def format_tensors(tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """The content of a safetensors file: the same bytes for the same tensors and metadata."""
    from safetensors.numpy import save  # slow to import, and needed for writing only

    # The library writes the memory in its order, which would scramble a transposed array (safetensors#825).
    return save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, metadata)


def parse_tensors(data: bytes, where: str, expected: Mapping[str, TensorSpec] | None = None) -> dict[str, np.ndarray]:
    """Parses the content of a safetensors file into read-only arrays by name: views of it, or copies if not aligned.

    Args:
        data: the whole file.
        where: name of the file, which begins error messages.
        expected: name -> shape and dtype of exactly the tensors it must contain; None: any.

    Returns:
        The tensors, in the order of `expected`, else of the header.

    Raises:
        DataError: the header is too large, not JSON, or inconsistent with itself or the size of the data; tensors
            overlap or leave gaps; a tensor is missing, unknown or of another shape or dtype than expected; a value is
            NaN or infinite.
    """
    header, data_start = _parse_header(data, where)
    entries = {name: _parse_entry(name, entry, where) for name, entry in header.items()}
    _check_layout(entries, len(data) - data_start, where)
    if expected is not None:
        _check_expected(entries, expected, where)
    tensors: dict[str, np.ndarray] = {}
    for name in entries if expected is None else expected:
        dtype, shape, start, _ = entries[name]
        tensor = np.frombuffer(data, dtype, math.prod(shape), data_start + start).reshape(shape)
        if not tensor.flags.aligned:  # a valid file need not be, but a memoryview of such an array cannot be read
            tensor = tensor.copy()
            tensor.flags.writeable = False
        if dtype.kind == "f" and not np.isfinite(tensor).all():
            raise DataError(f"{where}: tensor {name[:_SHOWN_CHARACTERS]!r} contains NaN or infinity")
        tensors[name] = tensor
    return tensors


def _parse_header(data: bytes, where: str) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and the offset of the data."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    data_start = _LENGTH_BYTES + length
    if len(data) < data_start or len(data) < _LENGTH_BYTES:
        raise DataError(f"{where}: truncated: {len(data)} bytes cannot contain its header")
    if length > MAX_HEADER_BYTES:
        raise DataError(f"{where}: a header of {length} bytes exceeds the limit of {MAX_HEADER_BYTES}")
    header = parse_json(data[_LENGTH_BYTES:data_start], f"{where} (header)", MAX_HEADER_BYTES)
    if not isinstance(header, dict):
        raise DataError(f"{where}: its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DataError(f"{where}: its metadata are not an object of strings")
    return header, data_start


def _parse_entry(name: str, entry: Any, where: str) -> _Entry:
    name = name[:_SHOWN_CHARACTERS]
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise DataError(f"{where}: tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise DataError(f"{where}: tensor {name!r} has the dtype {reprlib.repr(dtype)}, which is not supported")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS or not _are_sizes(offsets) or len(offsets) != 2:
        raise DataError(f"{where}: tensor {name!r} has an invalid shape or data_offsets")
    size = offsets[1] - offsets[0]
    is_consistent = size == math.prod(shape) * _DTYPES[dtype].itemsize
    if not is_consistent or math.prod(length or 1 for length in shape) > _MAX_SHAPE_SIZE:
        raise DataError(f"{where}: tensor {name!r} has a shape that does not match its {reprlib.repr(size)} bytes")
    return _Entry(_DTYPES[dtype], tuple(shape), *offsets)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_layout(entries: Mapping[str, _Entry], data_size: int, where: str) -> None:
    """Raises DataError unless the tensors cover the data without gaps and overlaps."""
    spans = sorted((entry.start, entry.stop) for entry in entries.values())
    edges = [(0, 0), *spans, (data_size, data_size)]
    if any(before[1] != after[0] for before, after in pairwise(edges)):
        raise DataError(f"{where}: its tensors do not cover its {data_size} bytes of data without gaps and overlaps")


def _check_expected(entries: Mapping[str, _Entry], expected: Mapping[str, TensorSpec], where: str) -> None:
    if missing := sorted(expected.keys() - entries.keys()):
        raise DataError(f"{where}: tensor {missing[0]!r} is missing")
    if unknown := sorted(entries.keys() - expected.keys()):
        raise DataError(f"{where}: tensor {unknown[0][:_SHOWN_CHARACTERS]!r} is not one of this model's")
    for name, (shape, dtype) in expected.items():
        found = entries[name]
        if found.shape != shape or found.dtype != dtype:
            raise DataError(
                f"{where}: tensor {name!r} is {found.dtype} {found.shape}, the configuration says {dtype} {shape}"
            )
