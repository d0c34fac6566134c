"""safetensors files: exchange with the reference library, and inconsistent files."""

import json
import math
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.checkpoints.tensors import MAX_HEADER_BYTES, format_tensors, parse_tensors
from quickfox.errors import DataError
from quickfox.models.parameters import TensorSpec

TENSORS = {
    "kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "steps": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float32),
}
SPECS = {
    "kernel": TensorSpec((2, 3), np.dtype(np.float32)),
    "bias": TensorSpec((3,), np.dtype(np.float32)),
    "tokens": TensorSpec((4,), np.dtype(np.uint16)),
}
EXPECTED = {
    "kernel": np.ones((2, 3), np.float32),
    "bias": np.zeros(3, np.float32),
    "tokens": np.arange(4, dtype=np.uint16),
}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor, strict=True)


def build_file(header: Any, data: bytes = b"") -> bytes:
    """A file with any header, valid or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start: int, stop: int, shape: list[Any] | None = None, dtype: Any = "F32") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(stop - start) // 4] if shape is None else shape,
        "data_offsets": [start, stop],
    }


def test_round_trip() -> None:
    assert_equal(parse_tensors(format_tensors(TENSORS), "file"), TENSORS)


def test_the_reference_library_reads_our_files() -> None:
    assert_equal(safetensors.numpy.load(format_tensors(TENSORS)), TENSORS)


def test_files_of_the_reference_library_with_metadata_are_read() -> None:
    assert_equal(parse_tensors(safetensors.numpy.save(TENSORS, metadata={"a": "b", "c": "d"}), "file"), TENSORS)


def test_the_bytes_do_not_depend_on_the_order_of_the_tensors() -> None:
    assert format_tensors(TENSORS) == format_tensors(dict(reversed(TENSORS.items())))


@pytest.mark.parametrize("view", [np.transpose, lambda a: a[::-1], lambda a: a[:, ::2]])
def test_arrays_that_are_not_contiguous(view: Any) -> None:
    tensors = {"kernel": view(TENSORS["kernel"])}
    assert_equal(parse_tensors(format_tensors(tensors), "file"), tensors)


def test_tensors_are_in_the_expected_order_and_read_only() -> None:
    tensors = parse_tensors(format_tensors(dict(reversed(EXPECTED.items()))), "file", SPECS)
    assert_equal(tensors, EXPECTED)
    assert list(tensors) == list(SPECS)
    assert not any(tensor.flags.writeable for tensor in tensors.values())


@pytest.mark.parametrize("padding", range(8))
def test_arrays_are_aligned_whatever_the_length_of_the_header(padding: int) -> None:
    header = json.dumps({"a": entry(0, 8, dtype="U32", shape=[2])}).encode() + b" " * padding
    tensor = parse_tensors(build_file(header, np.array([7, 9], np.uint32).tobytes()), "file")["a"]
    assert memoryview(tensor).tolist() == [7, 9]  # not implemented for arrays that are not aligned
    assert not tensor.flags.writeable


def test_no_tensor_is_expected() -> None:
    assert parse_tensors(build_file({}), "file", {}) == {}
    with pytest.raises(DataError, match="'bias' is not one"):
        parse_tensors(format_tensors({"bias": EXPECTED["bias"]}), "file", {})


TENSOR_TYPES = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9).filter(lambda name: name != "__metadata__"),
        st.tuples(TENSOR_TYPES, st.lists(st.integers(0, 3), max_size=3)),
        max_size=5,
    )
)
def test_round_trip_of_any_shapes_and_dtypes(specs: dict[str, tuple[Any, list[int]]]) -> None:
    tensors = {
        name: np.arange(1, 1 + math.prod(shape)).reshape(shape).astype(dtype) for name, (dtype, shape) in specs.items()
    }
    expected = {name: TensorSpec(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    parsed = parse_tensors(format_tensors(tensors), "file", expected)
    assert list(parsed) == list(tensors)
    assert_equal(parsed, tensors)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bias": None}, "'bias' is missing"),
        ({"kernel": np.zeros((2, 3))}, r"'kernel' is float64 \(2, 3\), the configuration says float32 \(2, 3\)"),
        ({"kernel": np.zeros((3, 2), np.float32)}, r"\(3, 2\).*\(2, 3\)"),
        ({"tokens": np.zeros(4, np.uint8)}, r"'tokens' is uint8 \(4,\), the configuration says uint16 \(4,\)"),
        ({"tokens": np.zeros(4, np.float32)}, r"'tokens' is float32"),
        ({"tokens": np.zeros(5, np.uint16)}, r"\(5,\).*\(4,\)"),
        ({"x": np.zeros(1)}, "'x' is not one"),
        ({"bias": np.array([0, np.nan, 0], np.float32)}, "'bias' contains NaN"),
        ({"kernel": np.full((2, 3), np.inf, np.float32)}, "'kernel' contains NaN"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unexpected_tensors(changes: dict[str, Any], reason: str) -> None:
    tensors = {name: tensor for name, tensor in {**EXPECTED, **changes}.items() if tensor is not None}
    with pytest.raises(DataError, match=reason):
        parse_tensors(format_tensors(tensors), "file", SPECS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x00" * 7, "truncated"),
        (b"\x00" * 8, "not valid JSON"),
        ((2**63).to_bytes(8, "little") + b"{}", "truncated"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "truncated"),
        (build_file(b" " * (MAX_HEADER_BYTES + 1)), "exceeds the limit"),
        (build_file([]), "not a JSON object"),
        (build_file(b'{"a": 1, "a": 2}'), "given twice"),
        (build_file({"__metadata__": {"a": 1}}), "metadata"),
        (build_file({"__metadata__": []}), "metadata"),
        (build_file({"a": 1}), "not described"),
        (build_file({"a": {"dtype": "F32", "shape": []}}), "not described"),
        (build_file({"a": entry(0, 4) | {"more": 1}}, b"1234"), "not described"),
        (build_file({"a": entry(0, 4, dtype="BF16")}, b"1234"), "'BF16'"),
        (build_file({"a": entry(0, 4, dtype=["F32"])}, b"1234"), "not supported"),
        (build_file({"a": entry(0, 4, [-1, -1])}, b"1234"), "invalid shape"),
        (build_file({"a": entry(0, 4, [True])}, b"1234"), "invalid shape"),
        (build_file({"a": entry(0, 4, [1.0])}, b"1234"), "invalid shape"),
        (build_file({"a": entry(0, 4) | {"data_offsets": [0, 4, 8]}}, b"1234"), "invalid shape"),
        (build_file({"a": entry(0, 4, [2])}, b"1234"), "does not match"),
        (build_file({"a": entry(4, 0, [1])}, b"1234"), "does not match"),
        (build_file({"a": entry(0, 4, [2**62, 4])}, b"1234"), "does not match"),
        (build_file({"a": entry(0, 8)}, b"1234"), "without gaps and overlaps"),
        (build_file({"a": entry(0, 4)}, b"12345678"), "without gaps and overlaps"),
        (build_file({"a": entry(4, 8)}, b"12345678"), "without gaps and overlaps"),
        (build_file({"a": entry(0, 8), "b": entry(4, 12)}, b"123456789012"), "without gaps and overlaps"),
        (build_file({"a": entry(0, 4), "b": entry(8, 12)}, b"123456789012"), "without gaps and overlaps"),
        (build_file({"a": entry(0, 4), "b": entry(0, 4)}, b"1234"), "without gaps and overlaps"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_inconsistent_files(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        parse_tensors(data, "some/file")
    assert str(caught.value).startswith("some/file")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mutated_file_is_parsed_or_refused(data: st.DataObject) -> None:
    content = bytearray(format_tensors({"kernel": TENSORS["kernel"], "steps": TENSORS["steps"]}))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(start + 4, len(content))))
        content[start:stop] = data.draw(st.binary(max_size=4) | st.sampled_from([b"9", b"[", b"}", b'"', b",", b"0"]))
    try:
        tensors = parse_tensors(bytes(content), "file")
    except DataError:
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) < len(content)
