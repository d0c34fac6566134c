"""Damaged and hostile checkpoints are refused with the name of the file, at little cost."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from file_readers import BUNDLE, CONFIG, RECORD, STATE, STEP, build_run, overwrite, write_matching_manifest
from quickfox.checkpoints.checkpoint import load_model, load_training_state, verify_model
from quickfox.checkpoints.manifest import MODEL_FILES, TRAINING_FILES, format_manifest, read_manifest
from quickfox.checkpoints.run_directory import list_checkpoint_directories, prune_checkpoints
from quickfox.checkpoints.tensors import format_tensors
from quickfox.errors import DataError, StorageError
from quickfox.files.atomic import remove_directory
from quickfox.files.json import format_json
from quickfox.tokenizers.serialization import MAX_TOKENIZER_BYTES, format_tokenizer
from quickfox.training.run.resume_point import load_resume_point

MAX_MEMORY = 2**20
FILES = (*MODEL_FILES, *TRAINING_FILES, "manifest.json")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The only checkpoint of the run `tmp_path`/run."""
    return build_run(tmp_path / "run")


def load_all(checkpoint: Path) -> None:
    load_model(checkpoint)
    load_training_state(checkpoint)


def replace_files(checkpoint: Path, **files: bytes) -> None:
    """Replaces files, named with _ for the dot, and writes a matching manifest."""
    for name, data in files.items():
        overwrite(checkpoint / ".".join(name.rsplit("_", 1)), data)
    write_matching_manifest(
        checkpoint, {name: (checkpoint / name).read_bytes() for name in (*MODEL_FILES, *TRAINING_FILES)}
    )


def assert_refused(action: Callable[[], object], reason: str, max_memory: int = MAX_MEMORY) -> None:
    """The action raises a DataError with the reason, in one line and with little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=reason) as caught:
            action()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < max_memory
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def tensor_file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: d[:-1], lambda d: d[: len(d) // 2], lambda d: bytes(len(d))]
)
def test_empty_truncated_and_zero_filled_files(checkpoint: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = checkpoint / name
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(lambda: load_all(checkpoint), name.replace(".", r"\."))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_too_large(checkpoint: Path, name: str) -> None:
    """A sparse terabyte is not read."""
    with (checkpoint / name).open("r+b") as file:
        file.truncate(2**40)
    assert_refused(lambda: load_all(checkpoint), name.replace(".", r"\."))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"output.bias": None}, r"'output\.bias' is missing"),
        ({"extra": np.zeros(1, np.float32)}, "'extra' is not one of this model"),
        ({"output.bias": np.zeros(5, np.float32)}, r"\(5,\), the configuration says"),
        ({"output.bias": np.zeros((4, 1), np.float32)}, r"\(4, 1\), the configuration says"),
        ({"output.bias": np.zeros(4, np.float64)}, "is float64"),
        ({"output.bias": np.zeros(4, np.int32)}, "is int32"),
        ({"output.bias": np.array([0, np.nan, 0, 0], np.float32)}, "NaN or infinity"),
        ({"output.bias": np.array([0, 0, 0, -np.inf], np.float32)}, "NaN or infinity"),
    ],
)
def test_tensors_of_another_model(checkpoint: Path, changes: dict[str, Any], reason: str) -> None:
    tensors = {name: tensor for name, tensor in {**BUNDLE.parameters, **changes}.items() if tensor is not None}
    replace_files(checkpoint, model_safetensors=format_tensors(tensors))
    assert_refused(lambda: load_model(checkpoint), reason)


def test_a_tensor_given_twice(checkpoint: Path) -> None:
    data = format_tensors(BUNDLE.parameters)
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip()
    again = header[:-1] + b',"output.bias":' + json.dumps(json.loads(header)["output.bias"]).encode() + b"}"
    replace_files(checkpoint, model_safetensors=tensor_file(again, data[8 + length :]))
    assert_refused(lambda: load_model(checkpoint), r"'output\.bias' is given twice")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_training_tensors_that_are_not_finite(checkpoint: Path, value: float) -> None:
    tensors = dict(STATE.tensors) | {"carried.h": np.full((2, 3), value, np.float32)}
    replace_files(checkpoint, training_safetensors=format_tensors(tensors))
    assert_refused(lambda: load_training_state(checkpoint), r"'carried\.h' contains NaN or infinity")


HEADERS = [  # test_tensors.py has smaller ones
    (tensor_file({f"t{i}": entry([1], 4 * i, 4 * i + 4) for i in range(100_000)}, bytes(400_000)), "a header of"),
    (tensor_file(b'{"a":' + b"[" * 1_000_000 + b"]" * 40_000), "nested too deeply"),
    (tensor_file({"a": entry([99] * 50_000, 0, 4)}, bytes(4)), "invalid shape"),
    (tensor_file({"a": entry([1] * 9, 0, 4)}, bytes(4)), "invalid shape"),
    (tensor_file({"a": entry([2**63], 0, 2**65)}, bytes(4)), "does not match"),
    (tensor_file({"a": entry([0, 2**62, 2**62], 0, 0)}), "does not match"),
    (tensor_file({"a": entry([0, 10**4000], 0, 0)}), "does not match"),
    (tensor_file({"a": entry([2**40], 0, 2**42)}, bytes(4)), "without gaps and overlaps"),
    (tensor_file({"a" * 10_000: entry([1], 0, 8)}, bytes(8)), "does not match"),
    (tensor_file({"a": entry([1], 0, 4, dtype="F" * 10_000)}, bytes(4)), "not supported"),
]


@pytest.mark.parametrize(("data", "reason"), HEADERS, ids=lambda value: value if isinstance(value, str) else "")
def test_inconsistent_headers(checkpoint: Path, data: bytes, reason: str) -> None:
    """In the training state, in which any set of tensors is accepted."""
    replace_files(checkpoint, training_safetensors=data)
    assert_refused(lambda: load_training_state(checkpoint), reason, len(data) + 16 * 2**20)


def test_a_header_of_20_megabytes(checkpoint: Path) -> None:
    size = 20 * 2**20
    path = checkpoint / "model.safetensors"
    for content in (size.to_bytes(8, "little") + b"{", path.read_bytes()):
        path.write_bytes(content)
        with path.open("r+b") as file:
            file.truncate(8 + size)
        assert_refused(lambda: load_model(checkpoint), "bytes are more than")
    replace_files(checkpoint, training_safetensors=size.to_bytes(8, "little") + b" " * size)
    assert_refused(lambda: load_training_state(checkpoint), "a header of 20971520 bytes", size + MAX_MEMORY)


CONFIGURATIONS = [
    ({"hidden_dim": 10**9}, "hidden_dim must be at most"),
    ({"hidden_dim": 10**400}, "'hidden_dim' cannot be 1000"),
    ({"vocabulary_size": -1}, "vocabulary_size must be at least 1"),
    ({"num_layers": 0}, "num_layers must be at least 1"),
    ({"num_layers": True}, "'num_layers' cannot be True"),
    ({"embedding_dim": 2.0}, r"'embedding_dim' cannot be 2\.0"),
    ({"embedding_dim": None}, "'embedding_dim' cannot be None"),
    ({"architecture": ["lstm"]}, "'architecture' cannot be"),
    ({"architecture": "x" * 10_000}, "'architecture' cannot be"),
    ({"x" * 10_000: 1}, "unknown setting"),
    ({"format_version": 2}, "unknown setting 'format_version'"),
]


@pytest.mark.parametrize(("changes", "reason"), CONFIGURATIONS)
def test_invalid_configurations(checkpoint: Path, changes: dict[str, Any], reason: str) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes()) | changes
    replace_files(checkpoint, config_json=format_json(config))
    assert_refused(lambda: load_model(checkpoint), reason)


def test_the_largest_possible_model_is_not_allocated(checkpoint: Path) -> None:
    config = {**json.loads((checkpoint / "config.json").read_bytes()), "hidden_dim": 2**16, "num_layers": 64}
    replace_files(checkpoint, config_json=format_json(config))
    assert_refused(lambda: load_model(checkpoint), r"'lstm|model\.safetensors: tensor")


@pytest.mark.parametrize("name", ["config_json", "generation_config_json", "state_json", "tokenizer_json"])
def test_deeply_nested_json(checkpoint: Path, name: str) -> None:
    depth = 30_000  # more than any version of Python parses
    replace_files(checkpoint, **{name: b"[" * depth + b"]" * depth})
    assert_refused(lambda: load_all(checkpoint), "nested too deeply")


@pytest.mark.parametrize(
    ("sampling", "reason"),
    [
        ({"temperature": 10**400}, "'temperature' cannot be 1000"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"length": True}, "'length' cannot be True"),
        ({"temperature": None}, "'temperature' cannot be None"),
    ],
)
def test_invalid_sampling_settings(checkpoint: Path, sampling: dict[str, Any], reason: str) -> None:
    replace_files(checkpoint, generation_config_json=format_json(sampling))
    assert_refused(lambda: load_model(checkpoint), reason)


def test_a_tokenizer_of_another_size_or_version(checkpoint: Path) -> None:
    tokenizer = json.loads(format_tokenizer(BUNDLE.tokenizer))
    for changes, reason in (
        ({"characters": ["\n", "a", "b"]}, r"has 3 tokens, but config\.json says 4"),
        ({"characters": []}, "at least one character"),
        ({"characters": ["b", "a"]}, "sorted"),
        ({"characters": ["a", "a"]}, "twice"),
        ({"format_version": 3}, "upgrade"),
        ({"format_version": 10**400}, "upgrade"),
        ({"min_count": -(10**400)}, "min_count must be at least 1"),
        ({"type": ["char"] * 1000}, "unknown type"),
    ):
        replace_files(checkpoint, tokenizer_json=format_json(tokenizer | changes))
        assert_refused(lambda: load_model(checkpoint), reason)
    replace_files(checkpoint, tokenizer_json=format_tokenizer(BUNDLE.tokenizer))
    load_model(checkpoint)


def test_a_tokenizer_of_all_characters_is_within_the_size_limit() -> None:
    characters = [chr(code) for code in range(0x110000) if code not in range(0xD800, 0xE000)]
    escaped = json.dumps(characters, separators=(",\n  ", ": "))  # the longest representation
    assert len(escaped) + 1000 < MAX_TOKENIZER_BYTES


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "model/../../secret", "config.json/", ""])
def test_a_manifest_with_other_file_names(checkpoint: Path, name: str) -> None:
    manifest = read_manifest(checkpoint)
    for section in ("model", "training"):
        files = dict(getattr(manifest, section))
        files[name] = files.popitem()[1]
        broken = type(manifest)(**{**vars(manifest), section: files})
        (checkpoint / "manifest.json").write_bytes(format_manifest(broken))
        assert_refused(lambda: load_all(checkpoint), r"manifest\.json: does not list exactly")


def test_a_manifest_with_invalid_numbers(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    changes: list[dict[str, Any]] = [{"step": 10**400}]
    changes += [{name: loss} for name in ("validation_loss", "network_loss") for loss in (10**400, -1.0)]
    for change in changes:
        broken = type(manifest)(**{**vars(manifest), **change})
        (checkpoint / "manifest.json").write_bytes(format_manifest(broken))
        assert_refused(lambda: load_all(checkpoint), "step, validation_loss or network_loss is invalid")


@pytest.mark.parametrize("name", FILES)
def test_the_target_of_a_link_is_not_disclosed(checkpoint: Path, tmp_path: Path, name: str) -> None:
    """A link to a valid file is accepted; an error message about another file does not show its content."""
    (tmp_path / "secret").write_bytes(b"a secret")
    path = checkpoint / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    load_all(checkpoint)
    for target in (tmp_path / "secret", tmp_path, Path("/dev/zero"), path, tmp_path / "missing"):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises((DataError, StorageError), match=r"\.json|\.safetensors") as caught:
            load_all(checkpoint)
        assert "a secret" not in str(caught.value)


def test_removing_a_linked_checkpoint_keeps_its_target(checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.rename(tmp_path / "moved")
    checkpoint.symlink_to(tmp_path / "moved")
    remove_directory(checkpoint)
    assert list(checkpoint.parent.iterdir()) == []
    load_all(tmp_path / "moved")


def test_a_link_to_itself_is_not_a_checkpoint(checkpoint: Path) -> None:
    run = checkpoint.parent.parent
    (run / "checkpoints" / "step-00000009").symlink_to("step-00000009")
    assert list_checkpoint_directories(run) == [checkpoint]
    prune_checkpoints(run)
    load_all(checkpoint)


def test_the_newest_undamaged_checkpoint_is_resumed(checkpoint: Path) -> None:
    run = checkpoint.parent.parent
    notices: list[str] = []
    newer = checkpoint.with_name("step-00000009")
    newer.mkdir()
    for path in checkpoint.iterdir():
        (newer / path.name).write_bytes(path.read_bytes()[:-1])
    point = load_resume_point(run, RECORD, notices.append)
    assert point is not None
    assert point.progress.step == STEP
    assert point.bundle.config == CONFIG
    assert [notice.split(":")[0] for notice in notices] == ["warning"]
    (checkpoint / "training.safetensors").unlink()
    verify_model(checkpoint)
    with pytest.raises(DataError, match="no checkpoint is undamaged"):
        load_resume_point(run, RECORD, notices.append)
