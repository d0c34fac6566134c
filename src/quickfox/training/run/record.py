"""The record of a run, `run.json`: everything that determines it.

It is read back strictly, and ends with the sha256 of its content. Format version 1 has no digest; it is read, but not
written. The interval between checkpoints, which the record holds as text, is parsed here too.
"""

import math
import platform
import reprlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from quickfox.checkpoints.run_directory import RUN_FILE
from quickfox.config.corpus import CorpusOptions
from quickfox.config.model import ModelConfig, TokenizerKind
from quickfox.config.schema import MAX_INTEGER, check_settings, from_dict, setting, to_dict
from quickfox.config.training import MAX_SECONDS, MAX_STEPS, TrainingConfig
from quickfox.data.encoding import Split, training_share
from quickfox.errors import DataError, NewerFormatError, NoInputError, UsageError
from quickfox.files.atomic import write_file
from quickfox.files.errors import translate_read_errors
from quickfox.files.json import (
    DIGEST,
    MAX_JSON_BYTES,
    check_digest,
    format_json_with_digest,
    parse_json,
    read_bounded,
)
from quickfox.system.units import parse_duration
from quickfox.training.distributed.cluster_spec import MAX_WORKERS
from quickfox.version import __version__

FORMAT_VERSION = 2
DEFAULT_CHECKPOINT_SECONDS = 180.0

_MIN_CHECKPOINT_SECONDS = 1e-3


@dataclass(frozen=True)
class CheckpointInterval:
    """Optimizer steps or seconds from one checkpoint to the next; exactly one of the two is None."""

    steps: int | None
    seconds: float | None

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Parses a number of steps (`500`) or a duration (`90s`, `5m`); None: three minutes.

        Raises:
            UsageError: the text is neither, or out of range.
        """
        if text is None:
            return cls(None, DEFAULT_CHECKPOINT_SECONDS)
        is_steps = text.isascii() and text.isdigit()
        try:
            amount = float(text) if is_steps else parse_duration(text)
        except UsageError:
            message = f"checkpoint_every must be a number of steps (500) or a duration (5m), not {reprlib.repr(text)}"
            raise UsageError(message, "checkpoint_every") from None
        low, high = (1, MAX_STEPS) if is_steps else (_MIN_CHECKPOINT_SECONDS, MAX_SECONDS)
        if not low <= amount <= high:
            bound = f"at least {low}" if amount < low else f"at most {high:g}"
            unit = "steps" if is_steps else "s"
            message = f"checkpoint_every must be {bound} {unit}, not {amount:g}: write 500 for steps, or 5m"
            raise UsageError(message, "checkpoint_every")
        return cls(int(amount), None) if is_steps else cls(None, amount)

    def __str__(self) -> str:
        return str(self.steps) if self.steps else f"{self.seconds:f}s"

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due after step `step`, `seconds` after the previous one."""
        if self.steps is not None:
            return step % self.steps == 0
        return self.seconds is not None and seconds >= self.seconds


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """The text of a run.

    Attributes:
        files: absolute paths in reading order; "-" is standard input.
        characters, tokens: lengths of the whole text, validation text included.
        training_tokens: number of tokens before the validation text; None in runs of earlier versions, which split the
            tokens instead of the characters or documents.
        validation_targets: number of predicted tokens of the validation text; None in runs of earlier versions.
        validation_bytes: number of bytes of these tokens; None in runs of earlier versions.
        sha256: of the text.
        has_documents: whether it consists of documents, so that its tokens have a loss mask.
        is_chat: whether these are conversations.
        options: how the files are read; None in runs of earlier versions, see `reading`.
        documents: their number; None for a plain text, and in runs of earlier versions, which had another order.
        validation_files: as `files`, of the text that is held out instead of a part of the corpus.
        files_stamp: of all files, see `recorded_text.stamp_files`; None: whether they changed is seen by reading them.
        tokens_sha256: of the token files; None in runs of earlier versions.

    Raises:
        UsageError: a number is outside its range.
    """

    files: tuple[str, ...]
    characters: int = setting(bounds=(0, MAX_INTEGER))
    tokens: int = setting(bounds=(0, MAX_INTEGER))
    training_tokens: int | None = setting(default=None, bounds=(1, MAX_INTEGER), added_later=True)
    sha256: str
    tokens_sha256: str | None = None
    has_documents: bool = setting(default=False, added_later=True)
    is_chat: bool = setting(default=False, added_later=True)
    options: CorpusOptions | None = setting(default=None, added_later=True)
    documents: int | None = setting(default=None, bounds=(1, MAX_INTEGER), added_later=True)
    validation_targets: int | None = setting(default=None, bounds=(0, MAX_INTEGER), added_later=True)
    validation_bytes: int | None = setting(default=None, bounds=(0, MAX_INTEGER), added_later=True)
    validation_files: tuple[str, ...] = setting(default=(), added_later=True)
    files_stamp: str | None = setting(default=None, added_later=True)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.training_tokens is not None and self.training_tokens > self.tokens:
            raise UsageError(f"training_tokens {self.training_tokens} is above tokens {self.tokens}", "training_tokens")

    @property
    def reading(self) -> CorpusOptions:
        """The options with which the files are read again; earlier versions knew two formats, and no separator."""
        if self.options is not None:
            return self.options
        return CorpusOptions(format="jsonl") if self.has_documents else CorpusOptions(format="text", separator="")

    def bits_per_byte(self, loss: float | None) -> float | None:
        """A loss on the validation text, in nats per token, as bits per byte; None: it is not known."""
        if loss is None or not self.validation_targets or not self.validation_bytes:
            return None
        return loss * self.validation_targets / (math.log(2) * self.validation_bytes)

    def count_training_tokens(self, validation_split: float) -> int:
        """Number of training tokens of a run with this `validation_split`, which has no effect if it is recorded."""
        return training_share(self.tokens, validation_split) if self.training_tokens is None else self.training_tokens


@dataclass(frozen=True, kw_only=True)
class PretrainedRecord:
    """The model that provided the initial weights of a run.

    Attributes:
        directory: the model directory, absolute.
        sha256: of its model.safetensors.
        is_chat: whether it was trained on conversations.
    """

    directory: str
    sha256: str
    is_chat: bool = setting(default=False, added_later=True)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that determines a run.

    Attributes:
        budget_seconds: wall time, including the time before the run was interrupted; None: `training` holds the length.
        tokenizer: kind of the tokenizer.
        vocabulary_sha256: of tokenizer.json.
        init_from: the model that provided the initial weights; None: random weights.
        checkpoint_every: optimizer steps between checkpoints, or seconds if `s` follows.
        workers: number of processes, each of which trains on a part of every batch.
        versions: of the programs that determine the arithmetic, and the machine type.

    Raises:
        UsageError: a number is outside its range.
    """

    model: ModelConfig
    training: TrainingConfig
    budget_seconds: float | None = setting(bounds=(0.0, math.inf))
    validation_split: float = setting(bounds=(0.0, 0.9))
    corpus: CorpusRecord
    tokenizer: TokenizerKind = setting(default="char", added_later=True)
    vocabulary_sha256: str
    init_from: PretrainedRecord | None = setting(default=None, added_later=True)
    checkpoint_every: str
    workers: int = setting(default=1, bounds=(1, MAX_WORKERS), added_later=True)
    versions: dict[str, str]

    def __post_init__(self) -> None:
        check_settings(self)
        CheckpointInterval.parse(self.checkpoint_every)

    @property
    def training_tokens(self) -> int:
        """Number of training tokens, which come first; the other tokens of the corpus are for validation."""
        return self.corpus.count_training_tokens(self.validation_split)

    @property
    def is_chat(self) -> bool:
        """Whether its model was trained on conversations, in this run or before."""
        return self.corpus.is_chat or (self.init_from is not None and self.init_from.is_chat)

    @property
    def split(self) -> Split | None:
        """The split with which `encode_corpus` writes the tokens again; None: without one, as in early versions."""
        corpus = self.corpus
        if self.validation_split == 0.0 or corpus.training_tokens is None:
            return None
        units = corpus.characters if corpus.documents is None else corpus.documents
        training_units = training_share(units, self.validation_split)
        return Split(training_units, corpus.documents, self.training.random_seed)


def current_versions() -> dict[str, str]:
    """Versions of the programs that determine the arithmetic of a run, and the machine type."""
    try:
        tensorflow = version("tensorflow")
    except PackageNotFoundError:  # another build, such as tensorflow-cpu
        tensorflow = "unknown"
    return {
        "quickfox": __version__,
        "tensorflow": tensorflow,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def format_record(record: RunRecord) -> bytes:
    """The content of `run.json`; raises UsageError if the corpus has too many files to record."""
    data = format_json_with_digest({"format_version": FORMAT_VERSION, **to_dict(record)})
    if len(data) > MAX_JSON_BYTES:  # `read_record` would refuse it
        raise UsageError(f"the corpus has {len(record.corpus.files):,} files, too many to record: concatenate some")
    return data


def write_record(run: Path, record: RunRecord) -> None:
    """Writes `run.json`, atomically; raises UsageError, CannotCreateError or StorageError."""
    write_file(run / RUN_FILE, format_record(record))


def read_record(path: Path) -> RunRecord:
    """Reads `run.json` at `path`, which is that file or the run directory.

    Raises:
        NoInputError: the file is missing.
        NewerFormatError: it was written by a newer version of the program.
        DataError: it is damaged, or was changed by hand.
        StorageError: reading failed.
    """
    with translate_read_errors(path):
        if path.is_dir():
            path = path / RUN_FILE
        if not path.exists():
            raise NoInputError(f"{path}: no such file; name a run or its {RUN_FILE}")
    where = str(path)
    values = _parse_record(read_bounded(path, MAX_JSON_BYTES), where)
    corpus = values.get("corpus")
    if isinstance(corpus, dict) and corpus.get("options") is not None:
        corpus["options"] = from_dict(CorpusOptions, corpus["options"], f"{where}: corpus options")
    parts = {"model": ModelConfig, "training": TrainingConfig, "corpus": CorpusRecord, "init_from": PretrainedRecord}
    for name, kind in parts.items():
        if values.get(name) is not None or (name in values and name != "init_from"):
            values[name] = from_dict(kind, values[name], f"{where}: {name}")
    return from_dict(RunRecord, values, where)


def _parse_record(data: bytes, where: str) -> dict[str, Any]:
    """The members of `run.json` but its format version and digest, which are checked."""
    values = parse_json(data, where, allow_surrogates=True)  # in the names of files
    if not isinstance(values, dict) or "format_version" not in values:
        raise DataError(f"{where}: not the record of a run")
    found = values.pop("format_version")
    if type(found) is int and found > FORMAT_VERSION:
        raise NewerFormatError(f"{where}: format version {reprlib.repr(found)}: upgrade quickfox")
    if type(found) is not int or found < 1:
        raise DataError(f"{where}: damaged: format version {reprlib.repr(found)}")
    if found > 1:
        check_digest({"format_version": found, **values}, data, where)
        del values[DIGEST]
    return values
