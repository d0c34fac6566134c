"""The manifest of a model directory: which files it consists of, and what each of them must be.

    {"format_version", "step", "validation_loss", "model": {file: {"size", "sha256"}}, "training": {...}, "sha256"}

Its last member is the sha256 of everything before it, and only the exact bytes that this program would write are
believed, so that no damage to the manifest itself goes unseen. It knows names and digests, not what is in the files.
"""

import hashlib
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickfox.config.schema import MAX_INTEGER, from_dict, to_dict
from quickfox.errors import DataError, NoInputError
from quickfox.files.json import format_json, parse_json, read_bounded

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors", "generation_config.json")
TRAINING_FILES = ("training.safetensors", "state.json")

_MAX_BYTES = 2**16
_MEMBERS = ["format_version", "step", "validation_loss", "model", "training"]


@dataclass(frozen=True)
class FileDigest:
    """What a file must be: its size in bytes and the sha256 of its content, in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a model directory says of itself.

    Attributes:
        step: optimizer steps the model was trained for.
        validation_loss: nats per token; None: not measured.
        model: file name -> digest, for each of MODEL_FILES.
        training: the same for each of TRAINING_FILES; empty if training cannot go on from this directory.
    """

    step: int
    validation_loss: float | None
    model: Mapping[str, FileDigest]
    training: Mapping[str, FileDigest]


def digest(data: bytes) -> FileDigest:
    """Size and sha256 of a file's content."""
    return FileDigest(len(data), hashlib.sha256(data).hexdigest())


def format_manifest(manifest: Manifest) -> bytes:
    """The content of the file that says what `manifest` says."""
    body = {
        "format_version": FORMAT_VERSION,
        "step": manifest.step,
        "validation_loss": manifest.validation_loss,
        "model": {name: to_dict(entry) for name, entry in manifest.model.items()},
        "training": {name: to_dict(entry) for name, entry in manifest.training.items()},
    }
    return _sealed(body)


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest that `data`, the content of the file `where`, holds; the inverse of `format_manifest`.

    Raises:
        DataError: damaged, newer than this program, or no manifest at all.
    """
    body = parse_json(data, where, _MAX_BYTES)
    if not isinstance(body, dict) or type(version := body.get("format_version")) is not int:
        raise DataError(f"{where}: not a model's manifest")
    if version > FORMAT_VERSION:
        raise DataError(
            f"{where}: format_version {reprlib.repr(version)} is newer than this program: upgrade it to use this model"
        )
    body.pop("sha256", None)
    if data != _sealed(body):
        raise DataError(f"{where}: damaged: its content does not have the sha256 that it ends with")
    if list(body) != _MEMBERS or version != FORMAT_VERSION:
        raise DataError(f"{where}: not a model's manifest")
    step, loss = body["step"], body["validation_loss"]
    loss_is_usable = loss is None or (type(loss) in (int, float) and 0 <= loss <= sys.float_info.max)
    if type(step) is not int or not 0 <= step <= MAX_INTEGER or not loss_is_usable:
        raise DataError(f"{where}: no usable step or validation_loss")
    model = _parse_digests(body["model"], MODEL_FILES, where)
    training = _parse_digests(body["training"], TRAINING_FILES if body["training"] else (), where)
    return Manifest(step, loss, model, training)


def read_manifest(directory: Path) -> Manifest:
    """What the model directory `directory` says of itself; the files it names are not looked at.

    Raises:
        NoInputError: there is nothing at `directory`.
        DataError: not a model directory, or its manifest is damaged or newer than this program.
        StorageError: reading failed.
    """
    path = directory / MANIFEST_NAME
    try:
        data = read_bounded(path, _MAX_BYTES)
    except NoInputError:
        if directory.is_dir():
            raise DataError(f"{directory} is not a model: it has no {MANIFEST_NAME}") from None
        if directory.exists():
            raise DataError(f"{directory} is not a model: a model is a folder, as `llm train` makes it") from None
        raise NoInputError(f"no model at {directory}: there is nothing by that name") from None
    return parse_manifest(data, str(path))


def read_verified(directory: Path, name: str, files: Mapping[str, FileDigest], max_bytes: int) -> bytes:
    """The content of the file `name` in `directory`, which is what `files` says it must be.

    Raises:
        DataError: missing, of another size or sha256, or larger than `max_bytes` (then it is not read).
        StorageError: reading failed.
    """
    path, expected = directory / name, files[name]
    try:
        data = read_bounded(path, max_bytes)
    except NoInputError:
        raise DataError(f"{path}: missing, although the manifest names it") from None
    if len(data) != expected.size:
        raise DataError(f"{path}: damaged: it has {len(data)} bytes, the manifest says {expected.size}")
    if digest(data) != expected:
        raise DataError(f"{path}: damaged: its sha256 is not the one in the manifest")
    return data


def _sealed(body: Mapping[str, Any]) -> bytes:
    return format_json({**body, "sha256": digest(format_json(body)).sha256})


def _parse_digests(section: Any, names: tuple[str, ...], where: str) -> dict[str, FileDigest]:
    """Exactly the files that a section must name: no other name in it is ever used as a path."""
    if not isinstance(section, dict) or section.keys() != set(names):
        raise DataError(f"{where}: does not list exactly {', '.join(names) or 'nothing'}")
    return {name: from_dict(FileDigest, section[name], where) for name in names}
