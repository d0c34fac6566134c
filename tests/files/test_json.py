"""JSON that is damaged, ambiguous or hostile is refused in one line that names the file."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.errors import DataError, NoInputError
from quickfox.files.json import format_json, parse_json, read_json

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_round_trip(value: dict[str, object]) -> None:
    data = format_json(value)
    assert parse_json(data, "file") == value
    assert format_json(parse_json(data, "file")) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid JSON: Expecting value"),
        (b"{", "not valid JSON: Expecting property name"),
        (b"{} {}", "not valid JSON: Extra data"),
        (b"{'a': 1}", "not valid JSON: Expecting property name"),
        (b'"\n"', "not valid JSON: Invalid control character"),
        (b'"\xff"', "not valid JSON: .* can't decode byte 0xff in position 1"),
        (b"\xef\xbb\xbf{}", "not valid JSON: .*BOM"),
        (b'{"a": 1, "b": {"c": 1, "d": 1, "c": 2}}', "'c' is given twice"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[Infinity]", "Infinity is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"[1e400]", "1e400 is too large"),
        (b"[" + b"9" * 5000 + b"]", "an integer has too many digits$"),
        (b'["\\ud800"]', "not valid JSON: .* surrogates not allowed"),
        (b'{"\\udfff": 1}', "not valid JSON: .* surrogates not allowed"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b'{"a":' * 100_000, "not valid JSON: nested too deeply"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_invalid_json_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^some/file\.json: {reason}") as caught:
        parse_json(data, "some/file.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.binary(max_size=60) | st.text(alphabet='[]{}:,"\\u0d8e+-1naNtrue ', max_size=60).map(str.encode))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        value = parse_json(data, "file")
    except DataError:
        return
    assert value == json.loads(data)


def test_too_large_a_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte, sparse
    with pytest.raises(DataError, match="more than"):
        read_json(path)
    with pytest.raises(DataError, match="larger than"):
        parse_json(b"[1, 2]", "file", max_bytes=5)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would block
    for name in ("pipe", "."):
        with pytest.raises(DataError, match="not a regular file"):
            read_json(tmp_path / name)


@pytest.mark.parametrize("name", ["missing", "file/below"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    with pytest.raises(NoInputError, match="no such file"):
        read_json(tmp_path / name)
    assert read_json(tmp_path / "file") == {}
