"""What a run writes down about itself beside its checkpoints, and how that is read again.

    run.json         everything that fixes the run: model, training, corpus, vocabulary, versions
    history.jsonl    one line an event

`run.json` is complete: with the same text it repeats the run exactly, and a run is resumed by it.
"""

import dataclasses
import json
import math
import platform
import reprlib
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from quickfox.config import ADDED_LATER, MAX_INTEGER, ModelConfig, TokenizerKind, TrainingConfig, check_range, from_dict
from quickfox.durable import append_line, write_file
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.runs import RUN_FILE
from quickfox.strict_json import MAX_JSON_BYTES, format_json, input_errors, parse_json, read_bounded, read_json
from quickfox.training.checkpointing import CheckpointInterval
from quickfox.training.cluster_spec import MAX_WORKERS
from quickfox.training.events import Replanned, Validated
from quickfox.version import __version__

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
    characters: int
    tokens: int
    sha256: str
    tokens_sha256: str | None = None
    has_documents: bool = field(default=False, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_range(self, "characters", 0, MAX_INTEGER)
        check_range(self, "tokens", 0, MAX_INTEGER)


@dataclass(frozen=True, kw_only=True)
class StartRecord:
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
    budget_seconds: float | None
    validation_split: float
    corpus: CorpusRecord
    tokenizer: TokenizerKind = field(default="char", metadata=ADDED_LATER)
    vocabulary_sha256: str
    init_from: StartRecord | None = field(default=None, metadata=ADDED_LATER)
    checkpoint_every: str
    workers: int = field(default=1, metadata=ADDED_LATER)
    versions: dict[str, str]

    def __post_init__(self) -> None:
        if self.budget_seconds is not None:
            check_range(self, "budget_seconds", 0.0, math.inf)
        check_range(self, "validation_split", 0.0, 0.9)
        check_range(self, "workers", 1, MAX_WORKERS)
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
    parts = {"model": ModelConfig, "training": TrainingConfig, "corpus": CorpusRecord, "init_from": StartRecord}
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


def cut_history(run: Path, step: int) -> None:
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
