"""Manifests: only the exact bytes that the program writes are accepted; files are checked against them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutations import flip_bit
from quickfox.checkpoints.manifest import (
    MODEL_FILES,
    TRAINING_FILES,
    Manifest,
    digest,
    format_manifest,
    parse_manifest,
    read_verified,
    verified_meanwhile,
)
from quickfox.errors import DataError
from quickfox.files.json import format_json

MANIFEST = Manifest(
    step=1200,
    validation_loss=1.4795,
    network_loss=1.5123,
    is_chat=True,
    model={name: digest(name.encode()) for name in MODEL_FILES},
    training={name: digest(name.encode()) for name in TRAINING_FILES},
)
DATA = format_manifest(MANIFEST)


def build_file(*without: str, **changes: Any) -> bytes:
    """A manifest with changed members, without some of them, and with the matching sha256."""
    body = {name: value for name, value in {**json.loads(DATA), **changes}.items() if name not in ("sha256", *without)}
    return format_json({**body, "sha256": digest(format_json(body)).sha256})


FORMER = {
    1: build_file("network_loss", "is_chat", format_version=1),
    2: build_file("is_chat", format_version=2),
}


def test_digest_of_a_known_text() -> None:
    """The sha256 of "abc", from FIPS 180-4."""
    assert digest(b"abc").size == 3
    assert digest(b"abc").sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


LOSSES = st.none() | st.integers(0, 9) | st.floats(0, 1e300)


@given(
    step=st.integers(0, 2**40),
    validation_loss=LOSSES,
    network_loss=LOSSES,
    is_chat=st.booleans(),
    training=st.sampled_from([MANIFEST.training, {}]),
    model=st.binary().map(lambda content: {name: digest(content) for name in MODEL_FILES}),
)
def test_round_trip(**values: Any) -> None:
    manifest = dataclasses.replace(MANIFEST, **values)
    assert parse_manifest(format_manifest(manifest), "file") == manifest


def test_members_of_the_file() -> None:
    names = ["format_version", "step", "validation_loss", "network_loss", "is_chat", "model", "training", "sha256"]
    assert list(json.loads(DATA)) == names
    assert {"format_version": 3, "validation_loss": 1.4795, "network_loss": 1.5123}.items() <= json.loads(DATA).items()
    assert json.loads(DATA)["model"]["config.json"] == dataclasses.asdict(digest(b"config.json"))


def test_former_formats_are_read() -> None:
    """The first has no loss of the network alone; the fixtures in tests/fixtures/version_0_1_0 have it."""
    assert list(json.loads(FORMER[1])) == ["format_version", "step", "validation_loss", "model", "training", "sha256"]
    assert parse_manifest(FORMER[1], "file") == dataclasses.replace(MANIFEST, network_loss=None, is_chat=False)
    assert parse_manifest(FORMER[2], "file") == dataclasses.replace(MANIFEST, is_chat=False)


@settings(deadline=None)
@given(st.sampled_from([DATA, *FORMER.values()]), st.data())
def test_every_flipped_bit_is_detected(content: bytes, data: st.DataObject) -> None:
    with pytest.raises(DataError, match=r"^file: "):
        parse_manifest(flip_bit(content, data.draw(st.integers(0, 8 * len(content) - 1))), "file")


@pytest.mark.parametrize("content", [DATA, *FORMER.values()])
@pytest.mark.parametrize("change", [(b"}", b"} "), (b"}\n", b"}"), (b"  ", b" "), (b"1200", b"1201")])
def test_other_bytes_are_refused(content: bytes, change: tuple[bytes, bytes]) -> None:
    data = content.replace(*change)
    assert data != content
    with pytest.raises(DataError, match="damaged"):
        parse_manifest(data, "file")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[]", "not a model's manifest"),
        (b"{}", "not a model's manifest"),
        (b'{"format_version": true}', "not a model's manifest"),
        (b'{"format_version": 4, "anything": "else"}', "format_version 4 is newer than this program: upgrade"),
        (build_file(format_version=4), "upgrade"),
        (b'{"format_version": 3}', "damaged, or not"),
        (b'{"format_version": 1}', "damaged, or not"),
        (build_file(format_version=0), "not a model's manifest"),
        (build_file(format_version=-1), "not a model's manifest"),
        (build_file(more=1), "not a model's manifest"),
        (build_file(format_version=1), "damaged, or not"),
        (build_file("network_loss"), "damaged, or not"),
        (build_file(step=-1), "step, validation_loss or network_loss is invalid"),
        (build_file(step=True), "step, validation_loss or network_loss is invalid"),
        (build_file(step=1.0), "step, validation_loss or network_loss is invalid"),
        (build_file(validation_loss="1"), "step, validation_loss or network_loss is invalid"),
        (build_file(network_loss="1"), "step, validation_loss or network_loss is invalid"),
        (build_file(network_loss=True), "step, validation_loss or network_loss is invalid"),
        (build_file(network_loss=-1.0), "step, validation_loss or network_loss is invalid"),
        (build_file(network_loss=10**400), "step, validation_loss or network_loss is invalid"),
        (build_file(is_chat=1), "is_chat is invalid"),
        (build_file(is_chat=None), "is_chat is invalid"),
        (build_file(model={}), "does not list exactly config.json"),
        (build_file(model=[]), "does not list exactly"),
        (build_file(training=1), "does not list exactly"),
        (build_file(training={"../../secret": {"size": 1, "sha256": ""}}), "does not list exactly"),
        (
            build_file(training={name: {"size": "1", "sha256": ""} for name in TRAINING_FILES}),
            "'size' cannot be",
        ),
        (build_file(training={name: {"size": 1} for name in TRAINING_FILES}), "'sha256' is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_manifests(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse_manifest(data, "file")


# Files ----------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files of FILES: one is as listed there, the others are not."""
    (tmp_path / "intact").write_bytes(CONTENT)
    (tmp_path / "damaged").write_bytes(flip_bit(CONTENT, len(CONTENT) // 2))
    (tmp_path / "short").write_bytes(CONTENT[:-1])
    return tmp_path


FILES = dict.fromkeys(("intact", "damaged", "short", "missing"), digest(CONTENT))


def test_an_intact_file_is_read(directory: Path) -> None:
    assert read_verified(directory, "intact", FILES, len(CONTENT)) == CONTENT
    with verified_meanwhile(directory, "intact", FILES, len(CONTENT)) as data:
        assert data == CONTENT


@pytest.mark.parametrize(
    ("name", "message"), [("short", "1048575 bytes, but the manifest says 1048576"), ("missing", "missing")]
)
def test_a_file_of_another_size_is_not_parsed(directory: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_verified(directory, name, FILES, len(CONTENT))
    with pytest.raises(DataError, match=message), verified_meanwhile(directory, name, FILES, len(CONTENT)):
        pytest.fail("parsed")


def test_a_damaged_file_is_an_error_once_it_is_parsed(directory: Path) -> None:
    with pytest.raises(DataError, match="its sha256 does not match"):
        read_verified(directory, "damaged", FILES, len(CONTENT))
    was_parsed = False
    with (
        pytest.raises(DataError, match="its sha256 does not match"),
        verified_meanwhile(directory, "damaged", FILES, len(CONTENT)) as data,
    ):
        was_parsed = len(data) == len(CONTENT)
    assert was_parsed


@pytest.mark.parametrize(("name", "message"), [("intact", "an error of the parser"), ("damaged", "its sha256")])
def test_damage_is_reported_in_place_of_an_error_of_the_parser(directory: Path, name: str, message: str) -> None:
    """Which is reported as it is if the content is that of the manifest."""
    with pytest.raises(DataError, match=message), verified_meanwhile(directory, name, FILES, len(CONTENT)):
        raise DataError("an error of the parser")
