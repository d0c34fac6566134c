"""Save and load model directories: written atomically, verified when read.

    config.json  tokenizer.json  model.safetensors  generation_config.json    the model
    training.safetensors  state.json                                          the training state
    manifest.json                                                             size and sha256 of each of them

A directory without the training files is a valid model, but training cannot be resumed from it. Verification detects
damage, not malice: an attacker can change the manifest too. No file can contain code: there is no pickle or Keras file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quickfox.checkpoints.manifest import (
    MANIFEST_NAME,
    FileDigest,
    Manifest,
    digest,
    format_manifest,
    read_manifest,
    read_verified,
    verified_meanwhile,
    verify_file,
)
from quickfox.checkpoints.tensors import MAX_OVERHEAD_BYTES, format_tensors, parse_tensors
from quickfox.config.model import ModelConfig
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import from_dict, to_dict
from quickfox.errors import DataError, DivergedError
from quickfox.files.atomic import commit_directory
from quickfox.files.json import MAX_JSON_BYTES, format_json, parse_json
from quickfox.models.ngram.tables import check_tables
from quickfox.models.parameters import TensorSpec, parameter_count, tensor_specs
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.serialization import (
    MAX_TOKENIZER_BYTES,
    describe_tokenizer,
    format_tokenizer,
    parse_tokenizer,
)

_MAX_CONFIG_BYTES = 2**16


@dataclass(frozen=True)
class ModelBundle:
    """A model and everything needed to use it.

    Attributes:
        config: determines the names, shapes and dtypes of the parameters.
        tokenizer: its tokenizer.
        parameters: name -> array: the network's, then the n-gram tables, as listed by `models/parameters.py`.
        step: number of optimizer steps the model was trained for.
        validation_loss: nats per token of the validation text; None: not measured.
        sampling: recommended settings of SamplingConfig, by name; the others have their defaults.
        network_loss: as `validation_loss`, of the network alone; None: not measured, or there are no n-gram tables.
        is_chat: whether it was trained on conversations, as text/chat.py writes them, now or before.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    parameters: Mapping[str, np.ndarray]
    step: int
    validation_loss: float | None
    sampling: Mapping[str, Any]
    network_loss: float | None = None
    is_chat: bool = False


@dataclass(frozen=True)
class TrainingState:
    """What resuming needs besides the model.

    Attributes:
        tensors: optimizer slots, carried recurrent state, weights before averaging.
        state: everything else, as JSON values.
    """

    tensors: Mapping[str, np.ndarray]
    state: Mapping[str, Any]


def save_checkpoint(directory: Path, bundle: ModelBundle, training: TrainingState | None) -> None:
    """Writes a model directory atomically; without `training` it cannot be resumed from.

    Raises:
        DivergedError: a tensor contains NaN or infinity.
        CannotCreateError: `directory` is not empty, or cannot be created.
        StorageError: the disk is full or failed.
    """
    specs = {name: TensorSpec(tensor.shape, tensor.dtype) for name, tensor in bundle.parameters.items()}
    assert specs == tensor_specs(bundle.config) != {}, f"not the tensors of the model: {specs}"
    _check_finite(bundle.parameters, bundle.step)
    model_files = {
        "config.json": format_json(to_dict(bundle.config)),
        "tokenizer.json": format_tokenizer(bundle.tokenizer),
        "model.safetensors": format_tensors(bundle.parameters),
        "generation_config.json": format_json(bundle.sampling),
    }
    training_files = {}
    if training is not None:
        _check_finite(training.tensors, bundle.step)
        training_files = {
            "training.safetensors": format_tensors(training.tensors),
            "state.json": format_json(training.state),
        }
    manifest = Manifest(
        step=bundle.step,
        validation_loss=bundle.validation_loss,
        network_loss=bundle.network_loss,
        is_chat=bundle.is_chat,
        model={name: digest(data) for name, data in model_files.items()},
        training={name: digest(data) for name, data in training_files.items()},
    )
    commit_directory(directory, model_files | training_files | {MANIFEST_NAME: format_manifest(manifest)})


def load_model(directory: Path) -> ModelBundle:
    """Loads and verifies the model in `directory`; the training files are not read and may be missing.

    Raises:
        NoInputError: `directory` does not exist.
        DataError: not a model directory, or a file in it is damaged or inconsistent with the others.
        StorageError: reading failed.
    """
    manifest = read_manifest(directory)
    files = manifest.model
    config = _load_config(directory, files)
    sampling = _read_object(directory, "generation_config.json", files, _MAX_CONFIG_BYTES)
    from_dict(SamplingConfig, to_dict(SamplingConfig()) | sampling, str(directory / "generation_config.json"))
    data = read_verified(directory, "tokenizer.json", files, MAX_TOKENIZER_BYTES)
    tokenizer = parse_tokenizer(data, str(directory / "tokenizer.json"))
    if tokenizer.vocabulary_size != config.vocabulary_size:
        raise DataError(
            f"{directory}: tokenizer.json has {tokenizer.vocabulary_size} tokens, but config.json says "
            f"{config.vocabulary_size}"
        )
    parameters = _load_parameters(directory, files, config)
    return ModelBundle(
        config,
        tokenizer,
        parameters,
        manifest.step,
        manifest.validation_loss,
        sampling,
        network_loss=manifest.network_loss,
        is_chat=manifest.is_chat,
    )


def load_training_state(directory: Path) -> TrainingState:
    """Loads and verifies the training state of a checkpoint.

    Any set of tensors is accepted; the caller compares it with the trainer's variables.

    Raises:
        NoInputError: `directory` does not exist.
        DataError: it was saved without a training state, or a file of it is missing or damaged.
        StorageError: reading failed.
    """
    files = read_manifest(directory).training
    if not files:
        raise DataError(f"{directory}: saved without its training state, so training cannot be resumed from it")
    state = _read_object(directory, "state.json", files, MAX_JSON_BYTES)
    data = read_verified(directory, "training.safetensors", files, files["training.safetensors"].size)
    return TrainingState(parse_tensors(data, str(directory / "training.safetensors")), state)


def load_config(directory: Path) -> ModelConfig:
    """Loads and verifies the configuration of the model in `directory`, without its parameters.

    Raises:
        NoInputError, DataError, StorageError: as `load_model`.
    """
    return _load_config(directory, read_manifest(directory).model)


def verify_model(directory: Path) -> None:
    """Checks size and sha256 of each file of the model in `directory` without parsing it.

    Raises:
        NoInputError, DataError, StorageError: as `load_model`.
    """
    _verify_files(directory, read_manifest(directory).model)


def verify_checkpoint(directory: Path) -> None:
    """Checks all files of the checkpoint in `directory`, as `verify_model` does those of the model."""
    manifest = read_manifest(directory)
    _verify_files(directory, manifest.model)
    _verify_files(directory, manifest.training)


def _verify_files(directory: Path, files: Mapping[str, FileDigest]) -> None:
    for name in files:
        verify_file(directory, name, files)


def _load_config(directory: Path, files: Mapping[str, FileDigest]) -> ModelConfig:
    values = _read_object(directory, "config.json", files, _MAX_CONFIG_BYTES)
    return from_dict(ModelConfig, values, str(directory / "config.json"))


def _load_parameters(directory: Path, files: Mapping[str, FileDigest], config: ModelConfig) -> dict[str, np.ndarray]:
    if not config.has_network and not config.ngrams:
        raise DataError(
            f"{directory / 'config.json'}: ngrams is empty, but architecture {config.architecture} needs it"
        )
    specs = tensor_specs(config)
    max_bytes = MAX_OVERHEAD_BYTES + sum(spec.nbytes for spec in specs.values())
    with verified_meanwhile(directory, "model.safetensors", files, max_bytes) as data:
        tensors = parse_tensors(data, str(directory / "model.safetensors"), specs)
        check_tables(config, tensors, str(directory / "model.safetensors"))
    return tensors


def _read_object(directory: Path, name: str, files: Mapping[str, FileDigest], max_bytes: int) -> dict[str, Any]:
    path = directory / name
    value = parse_json(read_verified(directory, name, files, max_bytes), str(path), max_bytes)
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _check_finite(tensors: Mapping[str, np.ndarray], step: int) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise DivergedError(f"training diverged: at step {step} {name} is no longer finite; not saved")


NGRAM_SETTINGS = ("architecture", "vocabulary_size", "threads", "ngram_order")
"""The settings of a model and of its training that an n-gram model alone has; the others are those of a network."""


SETTINGS_OF_TEXT = ("ngrams", "exponents", "exponents_adapt")
"""The settings of a model that its text decides; nobody chooses them."""


def describe_model(bundle: ModelBundle) -> dict[str, Any]:
    """What a model is, ready for JSON: its settings, size, losses, recommended sampling settings and tokenizer."""
    config = bundle.config
    settings = {name: value for name, value in to_dict(config).items() if config.has_network or name in NGRAM_SETTINGS}
    for name in SETTINGS_OF_TEXT:
        settings.pop(name, None)
    return {
        "settings": settings,
        "ngrams": list(config.ngrams),
        "parameters": parameter_count(config) if config.has_network else None,
        "steps": bundle.step if config.has_network else None,
        "validation_loss": bundle.validation_loss,
        "network_loss": bundle.network_loss if config.ngrams and config.has_network else None,
        "is_chat": bundle.is_chat,
        "sampling": dict(bundle.sampling),
        "tokenizer": describe_tokenizer(bundle.tokenizer),
    }
