"""Model directories with n-gram tables: round trips, and tables of another model."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from file_readers import MIXTURE, NGRAM_MODEL, STATE, overwrite, write_matching_manifest
from quickfox.checkpoints.checkpoint import ModelBundle, load_model, load_training_state, save_checkpoint
from quickfox.checkpoints.manifest import MODEL_FILES, TRAINING_FILES
from quickfox.checkpoints.tensors import format_tensors, parse_tensors
from quickfox.errors import DataError
from quickfox.files.json import format_json
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.tables import check_tables
from quickfox.models.parameters import ngram_specs, tensor_specs
from toy_models import NGRAM_TABLES

with_and_without_network = pytest.mark.parametrize("bundle", [MIXTURE, NGRAM_MODEL], ids=["mixture", "ngram"])


def replace_file(directory: Path, name: str, data: bytes) -> None:
    """Replaces a file, and writes a matching manifest."""
    overwrite(directory / name, data)
    names = (*MODEL_FILES, *TRAINING_FILES)
    write_matching_manifest(directory, {name: (directory / name).read_bytes() for name in names})


@with_and_without_network
def test_round_trip(tmp_path: Path, bundle: ModelBundle) -> None:
    bundle = dataclasses.replace(bundle, network_loss=1.5)
    save_checkpoint(tmp_path / "model", bundle, STATE)
    loaded = load_model(tmp_path / "model")
    assert dataclasses.replace(loaded, parameters={}) == dataclasses.replace(bundle, parameters={})
    assert list(loaded.parameters) == list(tensor_specs(bundle.config))
    for name, tensor in bundle.parameters.items():
        np.testing.assert_array_equal(loaded.parameters[name], tensor, strict=True)
    assert load_training_state(tmp_path / "model").state == STATE.state


@given(
    ids=st.lists(st.integers(0, 299), min_size=1, max_size=200) | st.lists(st.integers(0, 2), min_size=1, max_size=200),
    order=st.integers(1, 6),
    max_ngrams=st.sampled_from([1, 5, 100]),
)
def test_the_tables_of_any_text_are_read_back(ids: list[int], order: int, max_ngrams: int) -> None:
    estimate = estimate_ngrams(np.array(ids, np.uint16), 300, order, max_ngrams)
    config = dataclasses.replace(MIXTURE.config, vocabulary_size=300, ngrams=estimate.ngrams)
    tables = parse_tensors(format_tensors(estimate.tensors), "file", ngram_specs(config))
    check_tables(config, tables, "file")
    assert list(tables) == list(estimate.tensors)
    for name, tensor in estimate.tensors.items():
        np.testing.assert_array_equal(tables[name], tensor, strict=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"ngram.2.tokens": NGRAM_TABLES["ngram.2.tokens"].astype(np.uint16)},
        {"ngram.2.probs": NGRAM_TABLES["ngram.2.probs"].astype(np.float64)},
        {"ngram.3.offsets": NGRAM_TABLES["ngram.3.offsets"][:-1]},
        {"output.bias": np.zeros(4)},
        {"extra": np.zeros(4, np.float32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_only_the_tensors_of_the_model_are_saved(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    broken = dataclasses.replace(MIXTURE, parameters={**MIXTURE.parameters, **changes})
    with pytest.raises(AssertionError, match="not the tensors of the model"):
        save_checkpoint(tmp_path / "model", broken, None)
    assert list(tmp_path.iterdir()) == []


def test_an_ngram_model_without_tables_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    config = dataclasses.replace(NGRAM_MODEL.config, ngrams=())
    with pytest.raises(AssertionError, match="not the tensors of the model"):
        save_checkpoint(tmp_path / "model", dataclasses.replace(NGRAM_MODEL, config=config, parameters={}), None)
    save_checkpoint(tmp_path / "model", NGRAM_MODEL, STATE)
    replace_file(tmp_path / "model", "config.json", format_json(dataclasses.asdict(config)))
    with pytest.raises(DataError, match=r"config\.json: ngrams is empty, but architecture ngram needs it"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ngram.2.offsets": None}, r"'ngram\.2\.offsets' is missing"),
        ({"ngram.4.probs": np.zeros(1, np.float32)}, r"'ngram\.4\.probs' is not one of this model"),
        ({"ngram.1.probs": np.full(4, 0.25)}, r"is float64 \(4,\), the configuration says float32 \(4,\)"),
        ({"ngram.2.tokens": np.zeros(3, np.uint16)}, r"is uint16 \(3,\), the configuration says uint8 \(3,\)"),
        ({"ngram.2.tokens": np.zeros(4, np.uint8)}, r"is uint8 \(4,\), the configuration says uint8 \(3,\)"),
        ({"ngram.3.offsets": np.zeros(4, np.int32)}, r"is int32 \(4,\), the configuration says uint32 \(4,\)"),
        ({"ngram.3.probs": np.array([0.5, np.nan], np.float32)}, r"'ngram\.3\.probs' contains NaN or infinity"),
        ({"ngram.1.probs": np.array([0.5, 0.5, 0.5, 0.5], np.float32)}, r"ngram\.1\.probs are not the probabilities"),
        ({"ngram.1.probs": np.array([0.0, 0.2, 0.3, 0.5], np.float32)}, r"ngram\.1\.probs are not the probabilities"),
        ({"ngram.2.offsets": np.array([0, 2, 3, 3, 2**32 - 1], np.uint32)}, r"ngram\.2\.offsets do not divide"),
        ({"ngram.2.offsets": np.array([0, 2, 1, 3, 3], np.uint32)}, r"ngram\.2\.offsets do not divide"),
        ({"ngram.2.offsets": np.array([1, 2, 3, 3, 3], np.uint32)}, r"ngram\.2\.offsets do not divide"),
        ({"ngram.2.tokens": np.array([1, 4, 0], np.uint8)}, r"ngram\.2\.tokens are not in the vocabulary"),
        ({"ngram.2.tokens": np.array([3, 1, 0], np.uint8)}, r"ngram\.2\.tokens are not in the .* order"),
        ({"ngram.2.tokens": np.array([1, 1, 0], np.uint8)}, r"ngram\.2\.tokens are not in the .* order"),
        ({"ngram.2.probs": np.array([0.75, 0.5, 0.5], np.float32)}, r"ngram\.2\.probs are not the probabilities"),
        ({"ngram.3.probs": np.array([0.5, -0.5], np.float32)}, r"ngram\.3\.probs are not the probabilities"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
@with_and_without_network
def test_tables_of_another_model(tmp_path: Path, bundle: ModelBundle, changes: dict[str, Any], reason: str) -> None:
    save_checkpoint(tmp_path / "model", bundle, STATE)
    tensors = {name: tensor for name, tensor in {**bundle.parameters, **changes}.items() if tensor is not None}
    replace_file(tmp_path / "model", "model.safetensors", format_tensors(tensors))
    with pytest.raises(DataError, match=reason) as caught:
        load_model(tmp_path / "model")
    assert str(caught.value).startswith(f"{tmp_path / 'model' / 'model.safetensors'}: ")


@pytest.mark.parametrize(
    ("ngrams", "reason"),
    [
        ([4], r"'ngram\.2\.offsets' is not one of this model"),
        ([4, 3], r"'ngram\.3\.offsets' is not one of this model"),
        ([4, 3, 2, 0], r"'ngram\.4\.offsets' is missing"),
        ([4, 3, 2**31 - 1], r"'ngram\.3\.tokens' is uint8 \(2,\), the configuration says uint8 \(2147483647,\)"),
        ([4, 3, 2**31], "ngrams must be numbers from 0 to 2147483647, not 2147483648"),
        ([3, 3, 2], "ngrams must begin with vocabulary_size 4, not 3"),
        ([4] * 17, "ngrams must have at most 16 numbers"),
    ],
    ids=lambda value: str(value)[:20],
)
@with_and_without_network
def test_numbers_of_ngrams_of_another_model(
    tmp_path: Path, bundle: ModelBundle, ngrams: list[int], reason: str
) -> None:
    save_checkpoint(tmp_path / "model", bundle, STATE)
    config = json.loads((tmp_path / "model" / "config.json").read_bytes()) | {"ngrams": ngrams}
    replace_file(tmp_path / "model", "config.json", format_json(config))
    with pytest.raises(DataError, match=reason):
        load_model(tmp_path / "model")
