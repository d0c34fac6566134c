"""Named tensors as bytes, in the safetensors format, read as if the bytes were damaged or hostile.

The library's own reader is not used: it takes NaN, unknown tensors and whatever shape a file claims. Here the
header is bounded, its claims are checked against each other and against what the caller expects, and only then
are arrays made: views of the bytes, not copies. Pure functions over bytes; files are the checkpoint's business.

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

MAX_HEADER_BYTES = 2**20
"""Room for some ten thousand tensors; the largest model of this program has a few hundred."""

_MAX_DIMENSIONS = 8
_MAX_SHAPE_SIZE = 2**48
"""NumPy multiplies the other dimensions of an empty tensor, too, and fails where they pass its integers."""

_SHOWN_CHARACTERS = 60

_LENGTH_BYTES = 8
MAX_OVERHEAD_BYTES = _LENGTH_BYTES + MAX_HEADER_BYTES
"""The most that a file is larger than its tensors."""

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


class _TensorSpec(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int  # bytes into the data
    stop: int


def format_tensors(tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """The tensors as the content of a safetensors file: the same bytes for the same tensors and metadata."""
    from safetensors.numpy import save  # here: only those who write pay for its import

    # The library writes the memory as it lies, so that a transposed array would be scrambled (safetensors#825).
    return save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, metadata)


def parse_tensors(
    data: bytes, where: str, expected: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, np.ndarray]:
    """The tensors that `data`, a safetensors file's content, holds: read-only views of it, by name.

    Args:
        data: the whole file.
        where: the file's name, for the message.
        expected: name -> shape of exactly the tensors it must hold, all float32; None: any.

    Returns:
        The tensors, in the order of `expected`, else in that of the header.

    Raises:
        DataError: the header is too large, not strict JSON, or contradicts itself or the data's size; there are
            overlaps, holes or trailing bytes; a tensor is missing, unknown or of another shape or dtype than
            expected; a value is NaN or infinite.
    """
    header, data_start = _parse_header(data, where)
    specs = {name: _parse_spec(name, entry, where) for name, entry in header.items()}
    _check_layout(specs, len(data) - data_start, where)
    if expected is not None:
        _check_expected(specs, expected, where)
    tensors: dict[str, np.ndarray] = {}
    for name in expected or specs:
        dtype, shape, start, _ = specs[name]
        tensor = np.frombuffer(data, dtype, math.prod(shape), data_start + start).reshape(shape)
        if dtype.kind == "f" and not np.isfinite(tensor).all():
            raise DataError(f"{where}: tensor {name[:_SHOWN_CHARACTERS]!r} holds NaN or infinity")
        tensors[name] = tensor
    return tensors


def _parse_header(data: bytes, where: str) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and where the data starts."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    data_start = _LENGTH_BYTES + length
    if len(data) < data_start or len(data) < _LENGTH_BYTES:
        raise DataError(f"{where}: cut short: {len(data)} bytes cannot hold its header")
    if length > MAX_HEADER_BYTES:
        raise DataError(f"{where}: a header of {length} bytes is larger than any of ours")
    header = parse_json(data[_LENGTH_BYTES:data_start], f"{where} (header)", MAX_HEADER_BYTES)
    if not isinstance(header, dict):
        raise DataError(f"{where}: its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DataError(f"{where}: its metadata are not strings by name")
    return header, data_start


def _parse_spec(name: str, entry: Any, where: str) -> _TensorSpec:
    name = name[:_SHOWN_CHARACTERS]
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise DataError(f"{where}: tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise DataError(f"{where}: tensor {name!r} has the dtype {reprlib.repr(dtype)}, which is none of ours")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS or not _are_sizes(offsets) or len(offsets) != 2:
        raise DataError(f"{where}: tensor {name!r} has no usable shape or data_offsets")
    size = offsets[1] - offsets[0]
    is_filled = size == math.prod(shape) * _DTYPES[dtype].itemsize
    if not is_filled or math.prod(length or 1 for length in shape) > _MAX_SHAPE_SIZE:
        raise DataError(f"{where}: tensor {name!r} has a shape that its {reprlib.repr(size)} bytes do not fill")
    return _TensorSpec(_DTYPES[dtype], tuple(shape), *offsets)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_layout(specs: Mapping[str, _TensorSpec], data_size: int, where: str) -> None:
    """Demand that the tensors lie one after the other and fill the data."""
    spans = sorted((spec.start, spec.stop) for spec in specs.values())
    edges = [(0, 0), *spans, (data_size, data_size)]
    if any(before[1] != after[0] for before, after in pairwise(edges)):
        raise DataError(f"{where}: its tensors overlap, leave holes, or do not fill its {data_size} bytes of data")


def _check_expected(specs: Mapping[str, _TensorSpec], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    if missing := sorted(expected.keys() - specs.keys()):
        raise DataError(f"{where}: tensor {missing[0]!r} is missing")
    if unknown := sorted(specs.keys() - expected.keys()):
        raise DataError(f"{where}: tensor {unknown[0][:_SHOWN_CHARACTERS]!r} is none that this model has")
    for name, shape in expected.items():
        if specs[name].shape != shape or specs[name].dtype != np.float32:
            raise DataError(
                f"{where}: tensor {name!r} is {specs[name].dtype} {specs[name].shape}, the configuration says "
                f"float32 {shape}"
            )
