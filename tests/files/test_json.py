"""JSON that is damaged, ambiguous or hostile is refused, and by name."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.errors import DataError, NoInputError
from quickfox.files.json import MAX_DEPTH, format_json, parse_json, read_json

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_what_is_written_is_read(value: dict[str, object]) -> None:
    data = format_json(value)
    assert parse_json(data, "file") == value
    assert format_json(parse_json(data, "file")) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'"\n"', "not valid JSON"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is given twice"),
        (b"[NaN]", "NaN is not"),
        (b"[Infinity]", "Infinity is not"),
        (b"[-Infinity]", "-Infinity is not"),
        (b"[1e400]", "1e400 is too large"),
        (b"[" + b"9" * 5000 + b"]", "too many digits"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        parse_json(data, "some/file.json")
    assert str(caught.value).startswith("some/file.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_greatest_depth() -> None:
    value = parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "file")
    assert json.dumps(value).count("[") == MAX_DEPTH


@given(st.binary(max_size=60) | st.text(alphabet='[]{}:,"\\u0d8e+-1naNtrue ', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        value = parse_json(data, "file")
    except DataError:
        return
    assert value == json.loads(data)


def test_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte of nothing
    with pytest.raises(DataError, match="more than"):
        read_json(path)
    with pytest.raises(DataError, match="larger than"):
        parse_json(b"[1, 2]", "file", max_bytes=5)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for a writer
    for name in ("pipe", "."):
        with pytest.raises(DataError, match="not a regular file"):
            read_json(tmp_path / name)


@pytest.mark.parametrize("name", ["missing", "file/below"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    with pytest.raises(NoInputError, match="no such file"):
        read_json(tmp_path / name)
    assert read_json(tmp_path / "file") == {}
