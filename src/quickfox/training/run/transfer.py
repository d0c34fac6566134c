"""Starting from a trained model instead of fresh weights: pre-training goes on with another text.

What the two vocabularies have in common keeps its weights, token by token; what is new keeps its fresh ones. All other
tensors are taken over as they are, and the optimizer starts anew.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle, load_model
from quickfox.checkpoints.manifest import read_manifest
from quickfox.checkpoints.run_directory import find_model
from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingRequest
from quickfox.errors import DataError, UsageError
from quickfox.models.parameters import EMBEDDING
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.training.planning.auto_config import DEFAULT_VALIDATION_SPLIT, fill_from_run, fill_tokenizer_from_run
from quickfox.training.run.record import PretrainedRecord, RunRecord, read_record

_ADOPTED = ("architecture", "embedding_dim", "hidden_dim", "num_layers", "num_heads")

_VOCABULARY_AXIS = {EMBEDDING: 0, "output.kernel": 1, "output.bias": 0}
"""The tensors that have an entry for each token, and along which axis."""


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A model to start from, and how a run writes down which that is."""

    bundle: ModelBundle
    record: PretrainedRecord


def open_pretrained(path: Path) -> PretrainedModel:
    """The model in `path`: a run (its best checkpoint), a checkpoint or a bare model directory.

    Raises:
        NoInputError: there is nothing there.
        DataError: what is there is no model, or damaged.
        StorageError: reading failed.
    """
    directory, _ = find_model(str(path), {}, Path())
    sha256 = read_manifest(directory).model["model.safetensors"].sha256
    return PretrainedModel(load_model(directory), PretrainedRecord(directory=str(directory.absolute()), sha256=sha256))


def reopen_pretrained(record: PretrainedRecord) -> PretrainedModel:
    """The model that a run was begun with; raises DataError if it is another by now, else what `open_pretrained` does."""
    start = open_pretrained(Path(record.directory))
    if start.record.sha256 != record.sha256:
        raise DataError(f"{record.directory} is no longer the model that this run was begun with")
    return start


def adopt_sizes(request: TrainingRequest, model: ModelConfig) -> TrainingRequest:
    """The request for a model of the same architecture and sizes.

    Raises:
        UsageError: it asks for others.
    """
    if request.size is not None:
        raise UsageError("--size and --init-from exclude each other: the sizes are those of the model to start from")
    for name in _ADOPTED:
        asked, given = getattr(request, name), getattr(model, name)
        if asked not in (None, given):
            raise UsageError(f"--{name.replace('_', '-')} is {given} in the model to start from, not {asked}")
    return dataclasses.replace(request, **{name: getattr(model, name) for name in _ADOPTED})


def extend_vocabulary(tokenizer: Tokenizer, characters: set[str]) -> Tokenizer:
    """The tokenizer, of characters with those that it lacks; all others know every character already."""
    if not isinstance(tokenizer, CharacterTokenizer):
        return tokenizer
    vocabulary = tokenizer.vocabulary
    union = tuple(sorted(characters.union(vocabulary.characters)))
    return dataclasses.replace(tokenizer, vocabulary=Vocabulary(union, vocabulary.min_count))


def transfer_weights(
    fresh: Mapping[str, np.ndarray], tokenizer: Tokenizer, start: ModelBundle
) -> dict[str, np.ndarray]:
    """The weights to start with, by name.

    Args:
        fresh: those of a new model, of the same architecture and sizes but perhaps another vocabulary.
        tokenizer: of the new model.
        start: the trained model.
    """
    old_ids = {start.tokenizer.token_bytes(token_id): token_id for token_id in range(start.tokenizer.vocabulary_size)}
    pairs = [
        (new, old_ids[text])
        for new in range(tokenizer.vocabulary_size)
        if (text := tokenizer.token_bytes(new)) in old_ids
    ]
    new_ids, known_ids = np.array(pairs, np.int64).reshape(-1, 2).T
    weights = {}
    for name, array in fresh.items():
        trained = start.parameters[name]
        axis = _VOCABULARY_AXIS.get(name)
        if axis is None:
            weights[name] = trained
            continue
        rows = np.moveaxis(array.copy(), axis, 0)  # a view: what is put into it is in the copy
        rows[new_ids] = np.moveaxis(trained, axis, 0)[known_ids]
        weights[name] = np.moveaxis(rows, 0, axis)
    return weights


def resolve_request(
    request: TrainingRequest, config_from: Path | None, init_from: Path | None, vocabulary_path: Path | None
) -> tuple[TrainingRequest, float, RunRecord | None, PretrainedModel | None]:
    """The request with what it leaves open taken from the others.

    Args:
        request: what the person asked for.
        repeats: a run or its `run.json`, whose settings are used where `request` leaves them open.
        init_from: a model whose weights to start with; None: that of the run to repeat, if it had one.
        vocabulary_path: the vocabulary's file, if one is given.

    Returns:
        The request, the share of the text to hold out, the run to repeat and the model to start from.

    Raises:
        UsageError: embeddings are to be frozen that were never learnt.
        QuickfoxError: any of its other children: the run or the model cannot be read.
    """
    repeated = None if config_from is None else read_record(config_from)
    split = request.validation_split
    if repeated is not None:
        request = fill_from_run(request, repeated.model, repeated.training)
        if vocabulary_path is None and init_from is None and repeated.init_from is None:
            request = fill_tokenizer_from_run(request, repeated.tokenizer, repeated.model.vocabulary_size)
        split = repeated.validation_split if split is None else split
    start = None
    if init_from is not None:
        start = open_pretrained(init_from)
    elif repeated is not None and repeated.init_from is not None:
        start = reopen_pretrained(repeated.init_from)
    if start is not None:
        request = adopt_sizes(request, start.bundle.config)
    elif request.freeze_embeddings:
        raise UsageError("--freeze-embeddings is for --init-from: fresh embeddings must be learnt")
    return request, DEFAULT_VALIDATION_SPLIT if split is None else split, repeated, start
