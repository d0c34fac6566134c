"""The manifest of a model directory: its files with their sizes and sha256.

    {"format_version", "step", "validation_loss", "network_loss", "is_chat", "model": {file: {"size", "sha256"}},
     "training": {...}, "sha256"}

Format version 2 has no `is_chat`, and version 1 no `network_loss` either; both are read, but not written. The last
member is the sha256 of everything before it, and only the exact bytes that this program writes are accepted, so that
any damage to the manifest itself is detected. Independent of the content of the files.
"""

import hashlib
import reprlib
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quickfox.config.schema import MAX_INTEGER, from_dict, to_dict
from quickfox.errors import DataError, NewerFormatError, NoInputError
from quickfox.files.json import check_digest, format_json_with_digest, parse_json, read_bounded

FORMAT_VERSION = 3
MANIFEST_NAME = "manifest.json"
MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors", "generation_config.json")
TRAINING_FILES = ("training.safetensors", "state.json")

_MAX_BYTES = 2**16
_PART_BYTES = 2**18
_MEMBERS = {
    1: ["format_version", "step", "validation_loss", "model", "training", "sha256"],
    2: ["format_version", "step", "validation_loss", "network_loss", "model", "training", "sha256"],
    3: ["format_version", "step", "validation_loss", "network_loss", "is_chat", "model", "training", "sha256"],
}
"""The members of each format version, in order."""


@dataclass(frozen=True)
class FileDigest:
    """Size of a file in bytes, and the hexadecimal sha256 of its content."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Content of a manifest.

    Attributes:
        step: number of optimizer steps the model was trained for.
        validation_loss: nats per token; None: not measured.
        network_loss: nats per token of the network alone; None: not measured, or the model has no n-gram tables.
        is_chat: whether the model was trained on conversations, as text/chat.py writes them.
        model: file name -> digest, for each of MODEL_FILES.
        training: the same for each of TRAINING_FILES; empty if training cannot be resumed from this directory.
    """

    step: int
    validation_loss: float | None
    network_loss: float | None = field(default=None, kw_only=True)
    is_chat: bool = field(default=False, kw_only=True)
    model: Mapping[str, FileDigest]
    training: Mapping[str, FileDigest]


def digest(data: bytes) -> FileDigest:
    """Size and sha256 of a file's content."""
    return FileDigest(len(data), hashlib.sha256(data).hexdigest())


def format_manifest(manifest: Manifest) -> bytes:
    """The content of the manifest file."""
    values = {"format_version": FORMAT_VERSION, **to_dict(manifest)}
    return format_json_with_digest({name: values[name] for name in _MEMBERS[FORMAT_VERSION][:-1]})


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parses the content of the manifest file `where`; the inverse of `format_manifest`.

    Raises:
        NewerFormatError: newer than this program.
        DataError: damaged, or not a manifest.
    """
    body = parse_json(data, where, _MAX_BYTES)
    if not isinstance(body, dict) or type(version := body.get("format_version")) is not int:
        raise DataError(f"{where}: not a model's manifest")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{where}: format_version {reprlib.repr(version)} is newer than this program: upgrade it to use this model"
        )
    if list(body) != _MEMBERS.get(version):
        raise DataError(f"{where}: damaged, or not a model's manifest")
    step, losses = body["step"], (body["validation_loss"], body.get("network_loss"))
    is_chat = body.get("is_chat", False)
    if type(step) is not int or not 0 <= step <= MAX_INTEGER or not all(map(_is_loss, losses)):
        raise DataError(f"{where}: its step, validation_loss or network_loss is invalid")
    if type(is_chat) is not bool:
        raise DataError(f"{where}: its is_chat is invalid")
    model = _parse_digests(body["model"], MODEL_FILES, where)
    training = _parse_digests(body["training"], TRAINING_FILES if body["training"] else (), where)
    manifest = Manifest(step, losses[0], model, training, network_loss=losses[1], is_chat=is_chat)
    check_digest(body, data, where)
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """Reads the manifest of a model directory, but none of the files that it lists.

    Raises:
        NoInputError: `directory` does not exist.
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
            raise DataError(f"{directory} is not a model: a model is a directory, written by `llm train`") from None
        raise NoInputError(f"no model at {directory}: no such directory") from None
    return parse_manifest(data, str(path))


def read_verified(directory: Path, name: str, files: Mapping[str, FileDigest], max_bytes: int) -> bytes:
    """Reads the file `name` in `directory` and checks it against its digest in `files`.

    Raises:
        DataError: missing, of another size or sha256, or larger than `max_bytes` (then it is not read).
        StorageError: reading failed.
    """
    data = _read_sized(directory, name, files, max_bytes)
    _check_digest(directory, name, files, digest(data))
    return data


def verify_file(directory: Path, name: str, files: Mapping[str, FileDigest]) -> None:
    """The checks of `read_verified`, part by part: memory for a whole file takes longer to get than to hash.

    Raises:
        DataError, StorageError: as `read_verified`.
    """
    hasher, size = hashlib.sha256(), 0
    for position in range(0, files[name].size + 1, _PART_BYTES):
        part = _read(directory, name, files[name].size, position, _PART_BYTES)
        hasher.update(part)
        size += len(part)
    _check_size(directory, name, files, size)
    _check_digest(directory, name, files, FileDigest(size, hasher.hexdigest()))


@contextmanager
def verified_meanwhile(directory: Path, name: str, files: Mapping[str, FileDigest], max_bytes: int) -> Iterator[bytes]:
    """`read_verified` for a large file, whose content is checked on a thread while the body of `with` parses it.

    That of damaged content is not an error of the body's, so it is raised in place of one that the body raises. What
    the body makes of the content must not be used before its end.
    """
    data = _read_sized(directory, name, files, max_bytes)
    failures: list[DataError] = []

    def check() -> None:
        try:
            _check_digest(directory, name, files, digest(data))
        except DataError as error:
            failures.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield data
    finally:
        thread.join()
        if failures:
            raise failures[0] from None


def _read_sized(directory: Path, name: str, files: Mapping[str, FileDigest], max_bytes: int) -> bytes:
    data = _read(directory, name, max_bytes)
    _check_size(directory, name, files, len(data))
    return data


def _read(directory: Path, name: str, max_bytes: int, position: int = 0, length: int | None = None) -> bytes:
    try:
        return read_bounded(directory / name, max_bytes, position, length)
    except NoInputError:
        raise DataError(f"{directory / name}: missing, although the manifest lists it") from None


def _check_size(directory: Path, name: str, files: Mapping[str, FileDigest], size: int) -> None:
    expected = files[name].size
    if size != expected:
        raise DataError(f"{directory / name}: damaged: it has {size} bytes, but the manifest says {expected}")


def _check_digest(directory: Path, name: str, files: Mapping[str, FileDigest], found: FileDigest) -> None:
    if found != files[name]:
        raise DataError(f"{directory / name}: damaged: its sha256 does not match the manifest")


def _is_loss(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= sys.float_info.max)


def _parse_digests(section: Any, names: tuple[str, ...], where: str) -> dict[str, FileDigest]:
    """The digests of exactly these files; a name from the manifest is never used as a path."""
    if not isinstance(section, dict) or section.keys() != set(names):
        raise DataError(f"{where}: does not list exactly {', '.join(names) or 'no files'}")
    return {name: from_dict(FileDigest, section[name], where) for name in names}
