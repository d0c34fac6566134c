"""Manifests: only the exact bytes that the program writes are accepted."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.checkpoints.manifest import MODEL_FILES, TRAINING_FILES, Manifest, digest, format_manifest, parse_manifest
from quickfox.errors import DataError
from quickfox.files.json import format_json

MANIFEST = Manifest(
    step=1200,
    validation_loss=1.4795,
    model={name: digest(name.encode()) for name in MODEL_FILES},
    training={name: digest(name.encode()) for name in TRAINING_FILES},
)
DATA = format_manifest(MANIFEST)


def build_file(**changes: Any) -> bytes:
    """A manifest with changed members and the matching sha256."""
    body = {**json.loads(DATA), **changes}
    body.pop("sha256")
    return format_json({**body, "sha256": digest(format_json(body)).sha256})


def test_digest_of_a_known_text() -> None:
    """The sha256 of "abc", from FIPS 180-4."""
    assert digest(b"abc").size == 3
    assert digest(b"abc").sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("loss", [None, 0.0, 1.1, 2, 1e-300])
@pytest.mark.parametrize("training", [MANIFEST.training, {}])
def test_round_trip(loss: float | None, training: Any) -> None:
    manifest = dataclasses.replace(MANIFEST, validation_loss=loss, training=training)
    assert parse_manifest(format_manifest(manifest), "file") == manifest


def test_members_of_the_file() -> None:
    assert list(json.loads(DATA)) == ["format_version", "step", "validation_loss", "model", "training", "sha256"]
    assert json.loads(DATA)["model"]["config.json"] == dataclasses.asdict(digest(b"config.json"))


@settings(deadline=None)
@given(st.integers(0, 8 * len(DATA) - 1))
def test_every_flipped_bit_is_detected(bit: int) -> None:
    damaged = bytearray(DATA)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DataError, match=r"^file: "):
        parse_manifest(bytes(damaged), "file")


@pytest.mark.parametrize("data", [DATA + b" ", DATA[:-1], DATA.replace(b"  ", b" "), DATA.replace(b"1200", b"1201")])
def test_other_bytes_of_the_same_value_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="damaged"):
        parse_manifest(data, "file")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[]", "not a model's manifest"),
        (b"{}", "not a model's manifest"),
        (b'{"format_version": true}', "not a model's manifest"),
        (b'{"format_version": 2, "anything": "else"}', "upgrade"),
        (b'{"format_version": 1}', "damaged, or not"),
        (build_file(format_version=0), "not a model's manifest"),
        (build_file(format_version=-1), "not a model's manifest"),
        (build_file(more=1), "not a model's manifest"),
        (build_file(step=-1), "step or validation_loss is invalid"),
        (build_file(step=True), "step or validation_loss is invalid"),
        (build_file(step=1.0), "step or validation_loss is invalid"),
        (build_file(validation_loss="1"), "step or validation_loss is invalid"),
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
