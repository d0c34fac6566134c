"""When a checkpoint is due, besides the one after each validation."""

import dataclasses
import json
import math
import platform
import reprlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from quickfox.checkpoints.run_directory import RUN_FILE
from quickfox.config.model import ModelConfig, TokenizerKind
from quickfox.config.schema import MAX_INTEGER, check_settings, from_dict, setting
from quickfox.config.training import TrainingConfig
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.files.atomic import append_line, write_file
from quickfox.files.json import MAX_JSON_BYTES, format_json, input_errors, parse_json, read_bounded, read_json
from quickfox.system.units import parse_duration
from quickfox.training.distributed.cluster_spec import MAX_WORKERS
from quickfox.training.engine.events import Replanned, Validated
from quickfox.version import __version__

DEFAULT_CHECKPOINT_SECONDS = 180.0
MAX_STEPS = 2**40
MIN_SECONDS, MAX_SECONDS = 1e-3, 1e12


@dataclass(frozen=True)
class CheckpointInterval:
    """Optimizer steps or seconds from one checkpoint to the next; one of the two is None."""

    steps: int | None
    seconds: float | None

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """A number of steps (`500`) or a time (`90s`, `5m`); None: the default of three minutes.

        Raises:
            UsageError: it is neither, or nothing at all, or beyond all bounds.
        """
        if text is None:
            return cls(None, DEFAULT_CHECKPOINT_SECONDS)
        is_number = text.isascii() and text.isdigit()
        amount = float(text) if is_number else parse_duration(text)
        low, high = (1, MAX_STEPS) if is_number else (MIN_SECONDS, MAX_SECONDS)
        if not low <= amount <= high:
            kind, bound = ("steps" if is_number else "s"), (f"least {low}" if amount < low else f"most {high:g}")
            raise UsageError(f"checkpoint-every must be at {bound} {kind}, not {amount:g}: write 500 for steps, or 5m")
        return cls(int(amount), None) if is_number else cls(None, amount)

    def __str__(self) -> str:
        return str(self.steps) if self.steps else f"{self.seconds:f}s"

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint should be made after `step`, `seconds` after the last one."""
        if self.steps is not None:
            return step % self.steps == 0
        return self.seconds is not None and seconds >= self.seconds


HISTORY_FILE = "history.jsonl"
FORMAT_VERSION = 1

_MAX_HISTORY_BYTES = 2**26  # some 300,000 lines


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """The text of a run.

    Attributes:
        files: in reading order, absolute; "-" is standard input.
        characters, tokens: of the whole text, the held-out part included.
        sha256: of the text.
        has_documents: whether it is JSON lines, so that its tokens have a loss mask.
        tokens_sha256: of its tokens; None in runs of older versions.

    Raises:
        UsageError: a number is outside its range.
    """

    files: tuple[str, ...]
    characters: int = setting(bounds=(0, MAX_INTEGER))
    tokens: int = setting(bounds=(0, MAX_INTEGER))
    sha256: str
    tokens_sha256: str | None = None
    has_documents: bool = setting(default=False, added_later=True)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class PretrainedRecord:
    """The model that a run started from.

    Attributes:
        directory: the model directory, absolute.
        sha256: of its weights' file.
    """

    directory: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that fixes a run.

    Attributes:
        budget_seconds: wall time over all parts of the run; None: `training` says how many steps.
        tokenizer: its kind.
        vocabulary_sha256: of the tokenizer, in the format of tokenizer.json.
        init_from: the model whose weights it started with; None: fresh ones.
        checkpoint_every: optimizer steps between checkpoints, or with `s` after it, seconds.
        workers: processes that share each batch.
        versions: of the programs whose arithmetic the run depends on.

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


def current_versions() -> dict[str, str]:
    """The versions of what a run's arithmetic depends on, and the machine's kind."""
    return {
        "quickfox": __version__,
        "tensorflow": _tensorflow_version(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _tensorflow_version() -> str:
    """Of the package that is called so; other builds, such as tensorflow-cpu, have other names."""
    try:
        return version("tensorflow")
    except PackageNotFoundError:
        return "unknown"


def write_record(run: Path, record: RunRecord) -> None:
    """Writes `run.json`, atomically.

    Raises:
        UsageError: the corpus has more files than it can name.
        CannotCreateError, StorageError: it cannot be written.
    """
    data = format_json({"format_version": FORMAT_VERSION, **dataclasses.asdict(record)})
    if len(data) > MAX_JSON_BYTES:  # it could not be read again
        raise UsageError(f"the corpus has {len(record.corpus.files):,} files, too many to record: join some of them")
    write_file(run / RUN_FILE, data)


def read_record(path: Path) -> RunRecord:
    """The record in the file `path`, or in the run `path`.

    Raises:
        NoInputError: there is none.
        DataError: it is damaged, or of a newer version of the program.
        StorageError: reading failed.
    """
    with input_errors(path):
        if path.is_dir():
            path = path / RUN_FILE
        if not path.exists():
            raise NoInputError(f"{path}: no such file: nothing to repeat or to resume here")
    where = str(path)
    values = read_json(path)
    if not isinstance(values, dict) or "format_version" not in values:
        raise DataError(f"{where}: not a run's record")
    found = values.pop("format_version")
    if type(found) is not int or found != FORMAT_VERSION:
        newer = type(found) is int and found > FORMAT_VERSION
        raise DataError(f"{where}: format version {reprlib.repr(found)}; {'upgrade quickfox' if newer else 'damaged'}")
    parts = {"model": ModelConfig, "training": TrainingConfig, "corpus": CorpusRecord, "init_from": PretrainedRecord}
    for name, kind in parts.items():
        if values.get(name) is not None or (name in values and name != "init_from"):
            values[name] = from_dict(kind, values[name], f"{where}: {name}")
    return from_dict(RunRecord, values, where)


def record_event(run: Path, event: Validated | Replanned) -> None:
    """Adds a line to `history.jsonl`; nothing in it but `seconds` depends on how fast the machine is."""
    kind = "validation" if isinstance(event, Validated) else "replan"
    values = dataclasses.asdict(event)
    for name in ("sample", "tokens_per_second"):
        values.pop(name, None)
    append_line(run / HISTORY_FILE, json.dumps({"event": kind, **values}))


def truncate_history(run: Path, step: int) -> None:
    """Removes from `history.jsonl` what happened after `step`, and a line that was only half written.

    Raises:
        DataError: a whole line in it is none of ours.
        CannotCreateError, StorageError: it cannot be read or written.
    """
    path = run / HISTORY_FILE
    try:
        *lines, _ = read_bounded(path, _MAX_HISTORY_BYTES).split(b"\n")
    except NoInputError:
        return
    kept = []
    for number, line in enumerate(lines, start=1):
        event = parse_json(line, f"{path}, line {number}")
        if not isinstance(event, dict) or type(event.get("step")) is not int:
            raise DataError(f"{path}, line {number}: not a line of a history")
        if event["step"] <= step:
            kept.append(line + b"\n")
    write_file(path, b"".join(kept))
