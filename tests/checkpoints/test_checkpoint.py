"""Model directories: round trips, and damaged or inconsistent files."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from file_readers import overwrite
from mutations import flip_bit
from quickfox.checkpoints.checkpoint import (
    ModelBundle,
    TrainingState,
    load_model,
    load_training_state,
    save_checkpoint,
    verify_model,
)
from quickfox.checkpoints.manifest import MODEL_FILES, TRAINING_FILES, Manifest, digest, format_manifest
from quickfox.checkpoints.tensors import format_tensors
from quickfox.config.model import ModelConfig
from quickfox.config.schema import to_dict
from quickfox.errors import CannotCreateError, DataError, DivergedError, NoInputError, StorageError
from quickfox.models.parameters import parameter_shapes
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer

CONFIG = ModelConfig(vocabulary_size=4, embedding_dim=2, hidden_dim=3, num_layers=2)
STATE = TrainingState(
    tensors={"optimizer.step": np.array(5, np.int64), "carried.h": np.ones((2, 3), np.float32)},
    state={"step": 5, "best": None, "replanned": [[3, 40]]},
)


def build_bundle(**changes: Any) -> ModelBundle:
    random = np.random.default_rng(0)
    bundle = ModelBundle(
        config=CONFIG,
        tokenizer=CharacterTokenizer(Vocabulary(("\n", "a", "b", "ß"))),
        parameters={name: random.random(shape, np.float32) for name, shape in parameter_shapes(CONFIG).items()},
        step=5,
        validation_loss=1.25,
        sampling={"temperature": 0.8},
    )
    return dataclasses.replace(bundle, **changes)


def rewrite(directory: Path, **files: bytes) -> None:
    """Replaces model files, named with _ for the dot, and writes a matching manifest."""
    for name, data in files.items():
        (directory / name.replace("_json", ".json").replace("_safetensors", ".safetensors")).write_bytes(data)
    digests = {name: digest((directory / name).read_bytes()) for name in MODEL_FILES}
    (directory / "manifest.json").write_bytes(format_manifest(Manifest(5, 1.25, digests, {})))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A checkpoint."""
    save_checkpoint(tmp_path / "model", build_bundle(), STATE)
    return tmp_path / "model"


def test_round_trip_of_a_model(directory: Path) -> None:
    saved, loaded = build_bundle(), load_model(directory)
    assert dataclasses.replace(loaded, parameters={}) == dataclasses.replace(saved, parameters={})
    assert list(loaded.parameters) == list(parameter_shapes(CONFIG))
    for name, tensor in saved.parameters.items():
        np.testing.assert_array_equal(loaded.parameters[name], tensor, strict=True)


def test_round_trip_of_a_training_state(directory: Path) -> None:
    loaded = load_training_state(directory)
    assert loaded.state == STATE.state
    assert loaded.tensors.keys() == STATE.tensors.keys()
    for name, tensor in STATE.tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], tensor, strict=True)


def test_files_of_a_checkpoint(directory: Path) -> None:
    assert {path.name for path in directory.iterdir()} == {*MODEL_FILES, *TRAINING_FILES, "manifest.json"}
    assert json.loads((directory / "config.json").read_bytes()) == to_dict(CONFIG) | {
        "ngrams": [],
        "exponents": [0.5, 0.5],
        "exponents_adapt": True,
    }
    assert json.loads((directory / "generation_config.json").read_bytes()) == {"temperature": 0.8}


def test_the_same_model_gives_the_same_bytes(directory: Path) -> None:
    again = directory.with_name("again")
    save_checkpoint(again, build_bundle(), STATE)
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in directory.iterdir())


def test_a_model_without_its_training_state(tmp_path: Path, directory: Path) -> None:
    save_checkpoint(tmp_path / "bare", build_bundle(validation_loss=None), None)
    assert load_model(tmp_path / "bare").validation_loss is None
    with pytest.raises(DataError, match="without its training state"):
        load_training_state(tmp_path / "bare")
    for name in TRAINING_FILES:  # or after the user removed it to save space
        (directory / name).unlink()
    assert load_model(directory).step == 5
    with pytest.raises(DataError, match=r"state\.json: missing"):
        load_training_state(directory)


def test_an_existing_checkpoint_is_not_overwritten(directory: Path) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(CannotCreateError):
        save_checkpoint(directory, build_bundle(step=6), None)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tensors_that_are_not_finite_are_not_saved(tmp_path: Path, value: float) -> None:
    bundle = build_bundle()
    broken = dict(bundle.parameters) | {"output.bias": np.full(4, value, np.float32)}
    with pytest.raises(DivergedError, match=r"step 5.*output\.bias"):
        save_checkpoint(tmp_path / "model", dataclasses.replace(bundle, parameters=broken), None)
    with pytest.raises(DivergedError, match=r"step 5.*slot"):
        save_checkpoint(tmp_path / "model", bundle, TrainingState({"slot": np.array([value])}, {}))
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([*MODEL_FILES, *TRAINING_FILES, "manifest.json"]), data=st.data())
def test_flipped_bits_truncation_and_zero_fill_are_detected(directory: Path, name: str, data: st.DataObject) -> None:
    path = directory / name
    content = path.read_bytes()
    flipped = flip_bit(content, data.draw(st.integers(0, 8 * len(content) - 1)))
    truncated = content[: data.draw(st.integers(0, len(content) - 1))]
    load = load_training_state if name in TRAINING_FILES else load_model
    for broken in (flipped, truncated, bytes(len(content))):
        overwrite(path, broken)
        with pytest.raises(DataError, match=name):
            load(directory)
        if name not in TRAINING_FILES:
            with pytest.raises(DataError, match=name):
                verify_model(directory)
    overwrite(path, content)
    load(directory)


@pytest.mark.parametrize("name", [*MODEL_FILES, "manifest.json"])
def test_a_file_that_is_missing_or_a_directory(directory: Path, name: str) -> None:
    (directory / name).unlink()
    for _ in range(2):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            load_model(directory)
        (directory / name).mkdir(exist_ok=True)


def test_files_are_checked_beyond_their_sha256(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_bytes())
    parameters = dict(build_bundle().parameters)
    without_bias = {name: tensor for name, tensor in parameters.items() if name != "output.bias"}
    not_finite = parameters | {"output.bias": np.full(4, np.nan, np.float32)}
    refused: list[tuple[dict[str, bytes], str]] = [
        ({"config_json": b"null"}, r"config\.json: expected a JSON object"),
        ({"config_json": json.dumps(config | {"depth": 1}).encode()}, "unknown setting 'depth'"),
        ({"config_json": json.dumps(config | {"hidden_dim": 10**9}).encode()}, "hidden_dim must be at most"),
        ({"config_json": json.dumps(config | {"hidden_dim": True}).encode()}, "'hidden_dim' cannot be True"),
        ({"config_json": json.dumps(config | {"hidden_dim": -3}).encode()}, "hidden_dim must be at least"),
        ({"config_json": json.dumps(config | {"architecture": "oracle"}).encode()}, "'architecture' cannot be"),
        ({"config_json": json.dumps(config | {"vocabulary_size": 5}).encode()}, r"has 4 tokens.*says 5"),
        ({"config_json": json.dumps(config | {"hidden_dim": 4}).encode()}, r"\(2, 12\).*\(2, 16\)"),
        ({"config_json": b" " * 2**16 + b"{}"}, "more than"),
        ({"generation_config_json": b"[]"}, r"generation_config\.json: expected a JSON object"),
        ({"generation_config_json": b'{"temperature": -1}'}, "temperature must be at least"),
        ({"generation_config_json": b'{"heat": 1}'}, "unknown setting 'heat'"),
        ({"tokenizer_json": b"{}"}, r"tokenizer\.json: not a vocabulary"),
        ({"model_safetensors": format_tensors(without_bias)}, r"'output\.bias' is missing"),
        ({"model_safetensors": format_tensors(not_finite)}, r"'output\.bias' contains NaN"),
        ({"model_safetensors": b"\x80\x04pickle"}, "truncated"),
    ]
    for files, reason in refused:
        copy = directory.with_name("copy")
        shutil.copytree(directory, copy)
        rewrite(copy, **files)
        with pytest.raises(DataError, match=reason):
            load_model(copy)
        shutil.rmtree(copy)


def test_weights_larger_than_the_configuration_allows_are_not_read(directory: Path) -> None:
    with (directory / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)  # a terabyte, sparse
    with pytest.raises(DataError, match=r"model\.safetensors: 1099511627776 bytes are more than"):
        load_model(directory)


def test_paths_that_are_not_model_directories(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a model"):
        load_model(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="a model is a directory"):
        load_model(tmp_path / "model.keras")
    with pytest.raises(NoInputError, match="no such directory"):
        load_model(tmp_path / "missing")


def test_a_read_error_is_not_reported_as_damage(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a failing device would make users delete good checkpoints."""

    def fail(*args: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        load_model(directory)
