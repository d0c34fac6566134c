"""Transfer learning: the settings of an earlier run and the weights of a pretrained model as the start of a new run.

Tokens in both vocabularies keep their pretrained weights; new tokens have random ones. All other tensors of the network
are copied, and the optimizer starts from zero. The n-gram tables are estimated from the new text.
"""

import dataclasses
import secrets
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle, load_model
from quickfox.checkpoints.manifest import read_manifest
from quickfox.checkpoints.run_directory import TOKENIZER_FILE, find_model
from quickfox.config.corpus import CorpusOptions
from quickfox.config.model import ModelConfig
from quickfox.config.schema import exclusive_error
from quickfox.config.training import TrainingRequest
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.models.parameters import EMBEDDING
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import load_tokenizer, tokenizer_digest
from quickfox.training.engine.events import RunRequest
from quickfox.training.planning.auto_config import (
    DEFAULT_VALIDATION_SPLIT,
    RANDOM_SEED_BITS,
    fill_from_run,
    fill_tokenizer_from_run,
)
from quickfox.training.planning.ngrams import max_counted_tokens
from quickfox.training.run.record import CorpusRecord, PretrainedRecord, RunRecord, read_record

_ADOPTED = ("architecture", "embedding_dim", "hidden_dim", "num_layers", "num_heads")

_VOCABULARY_AXIS = {EMBEDDING: 0, "output.kernel": 1, "output.bias": 0}
"""The tensors with an entry for each token, and the axis of the tokens."""


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A model that provides initial weights, and its entry in `run.json`."""

    bundle: ModelBundle
    record: PretrainedRecord


@dataclasses.dataclass(frozen=True)
class ResolvedRequest:
    """A request completed by an earlier run and a pretrained model.

    Attributes:
        training: the settings; those that are still None are chosen automatically.
        random_seed: that of the settings, which is drawn if it is not given.
        validation_split: fraction of the text to hold out; 0 if another text is.
        config_run: the run whose settings are used; None: none.
        recorded_tokenizer: that of `config_run`, if it is to be used and is beside its record; None: none.
        pretrained: the model that provides the initial weights; None: random weights.
    """

    training: TrainingRequest
    random_seed: int
    validation_split: float
    config_run: RunRecord | None
    pretrained: PretrainedModel | None
    recorded_tokenizer: Tokenizer | None = None

    def max_counted_tokens(self, training_tokens: int) -> int:
        """`TrainingConfig.ngram_tokens` for a training text of this length."""
        earlier = self.config_run.training if self.config_run else None
        return max_counted_tokens(self.training, earlier, training_tokens)


def resolve_request(request: RunRequest) -> ResolvedRequest:
    """Completes a request from `config_from` and `init_from`; its own settings have precedence.

    Without `init_from`, the pretrained model is that of the run `config_from`, if it had one.

    Raises:
        UsageError: random embeddings would be frozen, or a requested size is not that of the pretrained model, or that
            model has no network.
        QuickfoxError: any other subclass: the run or the model cannot be read.
    """
    training, split = request.training, request.training.validation_split
    config_run = None if request.config_from is None else read_record(request.config_from)
    recorded_tokenizer = None
    if config_run is not None:
        training = fill_from_run(training, config_run.model, config_run.training)
        recorded_tokenizer = _find_tokenizer(request, config_run)
        if request.vocabulary_path is None and request.init_from is None and config_run.init_from is None:
            built_size = config_run.model.vocabulary_size - config_run.corpus.has_documents  # without the end of text
            training = fill_tokenizer_from_run(training, config_run.tokenizer, built_size)
        split = config_run.validation_split if split is None else split
    pretrained = None
    if request.init_from is not None:
        pretrained = open_pretrained(request.init_from)
    elif config_run is not None and config_run.init_from is not None:
        pretrained = reopen_pretrained(config_run.init_from)
    if pretrained is not None:
        training = adopt_sizes(training, pretrained.bundle.config)
    elif training.freeze_embeddings:
        raise UsageError(
            "freeze_embeddings needs init_from: random embeddings must be trained", "freeze_embeddings", "init_from"
        )
    if request.validation:
        if request.training.validation_split:
            raise exclusive_error("validation_split", "validation")
        split = 0.0
    elif split == 0.0 and request.training.patience is not None:
        raise UsageError(
            "patience needs a loss on held-out text: leave it out, or give validation_split or validation",
            "patience",
            "validation_split",
            "validation",
        )
    random_seed = secrets.randbits(RANDOM_SEED_BITS) if training.random_seed is None else training.random_seed
    return ResolvedRequest(
        dataclasses.replace(training, random_seed=random_seed),
        random_seed,
        DEFAULT_VALIDATION_SPLIT if split is None else split,
        config_run,
        pretrained,
        recorded_tokenizer,
    )


def _find_tokenizer(request: RunRequest, config_run: RunRecord) -> Tokenizer | None:
    """The tokenizer of `config_run` beside its record; None if it is not there, or the request names another."""
    training = request.training
    if training.tokenizer or training.vocabulary_size or request.vocabulary_path or request.init_from:
        return None
    assert request.config_from is not None
    folder = request.config_from if request.config_from.is_dir() else request.config_from.parent
    try:
        tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    except NoInputError:
        return None
    return tokenizer if tokenizer_digest(tokenizer) == config_run.vocabulary_sha256 else None


def resolve_corpus_options(request: RunRequest) -> CorpusOptions:
    """How the corpus is read: as requested, and else as that of the run `config_from`; raises as `read_record`."""
    if request.config_from is None:
        return request.corpus
    recorded = read_record(request.config_from).corpus.options
    return request.corpus.fill_from(recorded or CorpusOptions(separator=""))  # earlier versions had no separator


def check_repeated(
    request: RunRequest,
    config_run: RunRecord,
    corpus: CorpusRecord,
    tokenizer: Tokenizer,
    notify: Callable[[str], None],
) -> None:
    """Raises DataError if the new run is to repeat `config_run` but has another text or tokenizer.

    It is not if a tokenizer or pretrained model is requested: then only the settings are those of that run.
    """
    name, training = request.config_from, request.training
    has_split = training.validation_split is not None or training.random_seed is not None
    has_text = config_run.corpus.sha256 == corpus.sha256
    has_tokenizer = config_run.vocabulary_sha256 == tokenizer_digest(tokenizer)
    if training.tokenizer or training.vocabulary_size or request.vocabulary_path or request.init_from:
        if not has_text:
            notify(f"the text is not that of {name}: with its settings the run will differ")
    elif not has_text:
        raise DataError(
            f"the text is not that of {name}: give that text to repeat the run, or use its settings for another text "
            f"by naming the tokenizer too ({config_run.tokenizer})",
            "config",
        )
    elif config_run.corpus.validation_files and not request.validation and training.validation_split is None:
        files = " ".join(map(shlex.quote, config_run.corpus.validation_files))
        raise DataError(f"{name} was validated on another text: repeat it with --validation {files}", "validation")
    elif config_run.model.media is not None and not (
        has_split or config_run.corpus.tokens_sha256 == corpus.tokens_sha256
    ):
        raise DataError(f"the sound or the pictures are not those of {name}: give them to repeat the run", "config")
    elif config_run.corpus.validation_targets is None:
        if config_run.training_tokens != corpus.training_tokens or not has_tokenizer:
            notify(
                f"{name} was written by an earlier version, which chose the tokenizer or the held-out text "
                f"differently: with its settings the run will differ"
            )
    elif not (has_tokenizer or request.validation or has_split):
        raise DataError(
            f"the tokenizer is not that of {name}, which was not built from this text: give its {TOKENIZER_FILE}",
            "vocab",
        )


def open_pretrained(path: Path) -> PretrainedModel:
    """Loads the model at `path`: a run (its best checkpoint), a checkpoint or a bare model directory.

    Raises:
        NoInputError: `path` does not exist.
        DataError: what is there is not a model, or is damaged.
        StorageError: reading failed.
        UsageError: the model has no network.
    """
    directory, *_ = find_model(str(path), {}, Path())
    bundle = load_model(directory)
    if not bundle.config.has_network:
        raise UsageError(
            f"{path} is an n-gram model, which has no weights to start from: leave init_from out, or name a model with "
            "a network",
            "init_from",
        )
    sha256 = read_manifest(directory).model["model.safetensors"].sha256
    record = PretrainedRecord(directory=str(directory.absolute()), sha256=sha256, is_chat=bundle.is_chat)
    return PretrainedModel(bundle, record)


def reopen_pretrained(record: PretrainedRecord) -> PretrainedModel:
    """Loads the model of a record; raises DataError if it has changed, and the errors of `open_pretrained`."""
    pretrained = open_pretrained(Path(record.directory))
    if pretrained.record.sha256 != record.sha256:
        raise DataError(f"{record.directory} has changed since the run started: restore it, or start a new run")
    return pretrained


def adopt_sizes(request: TrainingRequest, model: ModelConfig) -> TrainingRequest:
    """Returns the request with the architecture and sizes of `model`, and the order of its n-gram gate.

    Raises:
        UsageError: it requests others.
    """
    if request.size is not None:
        raise exclusive_error("size", "init_from", "the sizes are those of the pretrained model")
    for name in _ADOPTED:
        requested, own = getattr(request, name), getattr(model, name)
        if requested not in (None, own):
            raise UsageError(f"{name} is {own} in the pretrained model, not {requested}: leave it out", name)
    if model.ngram_gate and request.ngram == "auto":  # its gate has weights for each length of a context
        request = dataclasses.replace(request, ngram=model.ngram_gate)
    return dataclasses.replace(request, **{name: getattr(model, name) for name in _ADOPTED})


def extend_vocabulary(tokenizer: CharacterTokenizer, characters: set[str]) -> CharacterTokenizer:
    """The tokenizer with more characters."""
    vocabulary = tokenizer.vocabulary
    union = tuple(sorted(characters.union(vocabulary.characters)))
    return dataclasses.replace(tokenizer, vocabulary=Vocabulary(union, vocabulary.min_count))


def _distinct_tokens(tokenizer: Tokenizer) -> list[bytes | None]:
    """The bytes of each token; None for the unknown token, whose bytes are those of U+FFFD."""
    tokens: list[bytes | None] = list(tokenizer.tokens)
    if tokenizer.unknown_token is not None:
        tokens[tokenizer.unknown_token.token_id] = None
    return tokens


def transfer_weights(
    initial: Mapping[str, np.ndarray], tokenizer: Tokenizer, pretrained: ModelBundle
) -> dict[str, np.ndarray]:
    """Returns the weights of a new network, by name, with those of a pretrained model where the tokens are the same.

    Args:
        initial: random weights of the new model's network, which has the architecture and sizes of the pretrained one.
        tokenizer: of the new model.
        pretrained: the pretrained model.
    """
    old_ids = {token: token_id for token_id, token in enumerate(_distinct_tokens(pretrained.tokenizer))}
    tokens = enumerate(_distinct_tokens(tokenizer))
    pairs = [(new_id, old_ids[token]) for new_id, token in tokens if token in old_ids]
    new_rows, old_rows = np.array(pairs, np.int64).reshape(-1, 2).T
    weights = {}
    for name, array in initial.items():
        if name not in pretrained.parameters:  # the tensors for signals, of a model of text
            weights[name] = array
            continue
        axis = _VOCABULARY_AXIS.get(name)
        if axis is None:
            weights[name] = pretrained.parameters[name]
            continue
        weights[name] = array.copy()
        rows = np.moveaxis(weights[name], axis, 0)  # a view
        rows[new_rows] = np.moveaxis(pretrained.parameters[name], axis, 0)[old_rows]
    return weights
