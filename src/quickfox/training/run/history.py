"""`history.jsonl`: a line for each validation of a run, for each change of its plan, and for some of its steps.

Lines are appended and flushed; each ends with a checksum of its content.
"""

import dataclasses
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickfox.config.schema import Config, from_dict, setting
from quickfox.errors import DataError, NoInputError
from quickfox.files.atomic import append_line, write_file
from quickfox.files.json import parse_json, read_bounded
from quickfox.training.engine.events import CompletedStep, Replanned, Sample, Validated

HISTORY_FILE = "history.jsonl"

_MAX_HISTORY_BYTES = 2**26  # about 300,000 lines
_PER_DOUBLING = 16
_CHECKSUM = "crc32"

MAX_DESCRIBED = 400
"""Of more steps or validations, `describe_history` has only some."""

MAX_SAMPLED = 60
"""Of more validations with samples, `describe_history` has only some in any case."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """An optimizer step of a run, as its history has it; for the fields see `CompletedStep`."""

    step: int
    train_loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A validation of a run, as its history has it; for the fields see `Validated`."""

    step: int
    total_steps: int
    epoch: float
    tokens: int
    train_loss: float | None
    validation_loss: float | None
    network_loss: float | None = setting(default=None, added_later=True)
    learning_rate: float
    seconds: float
    samples: tuple[Sample, ...] = setting(default=(), added_later=True)


@dataclass(frozen=True)
class History:
    """The history of a run, earliest first."""

    steps: list[Step]
    validations: list[Validation]


_FORMER_MEMBERS = {"event", *(field.name for kind in (Validated, Replanned) for field in dataclasses.fields(kind))}
"""The members of lines of earlier versions, which have no checksum."""


def record_event(run: Path, event: Validated | Replanned) -> None:
    """Appends a line to `history.jsonl`; of its fields only `seconds` depends on the speed of the machine."""
    kind = "validation" if isinstance(event, Validated) else "replan"
    values = dataclasses.asdict(event)
    values.pop("tokens_per_second", None)
    append_line(run / HISTORY_FILE, _format_event({"event": kind, **values}))


def record_steps(run: Path, steps: Iterable[CompletedStep], seconds: float) -> None:
    """Appends a line for each of these steps that `is_recorded`; `seconds` are those of the run after the last."""
    lines = [
        _format_event({"event": "step", **dataclasses.asdict(step), "seconds": seconds})
        for step in steps
        if is_recorded(step.step)
    ]
    if lines:
        append_line(run / HISTORY_FILE, "\n".join(lines))


def is_recorded(number: int) -> bool:
    """Whether the n-th step, or the samples of the n-th validation, are recorded: the first 31, then 16 per doubling.

    Thus a run of any length has a few hundred of them at most, at nearly equal distances on a logarithmic scale.
    """
    stride = 1 << max(0, number.bit_length() - _PER_DOUBLING.bit_length())
    return number % stride == 0


def truncate_history(run: Path, step: int) -> None:
    """Removes the events after `step` from `history.jsonl`, and an incomplete last line.

    Raises:
        DataError: a complete line is not an event.
        CannotCreateError, StorageError: reading or writing failed.
    """
    path = run / HISTORY_FILE
    if not path.exists():
        return
    kept = [line + b"\n" for line, event in _read_events(path) if event["step"] <= step]
    write_file(path, b"".join(kept))


def read_history(run: Path) -> History:
    """The steps and validations of a run; an incomplete last line is left out.

    Raises:
        DataError: a complete line is not an event.
        StorageError: reading failed.
    """
    records = HistoryFollower(run).read_new()
    steps = [record for record in records if isinstance(record, Step)]
    return History(steps, [record for record in records if isinstance(record, Validation)])


class HistoryFollower:
    """Reads the history of a run while it grows."""

    def __init__(self, run: Path) -> None:
        self._path = run / HISTORY_FILE
        self._position = self._lines = 0

    def read_new(self) -> list[Step | Validation]:
        """The steps and validations in the lines that were completed since the last call; raises as `read_history`."""
        records: list[Step | Validation] = []
        for line, event in _read_events(self._path, self._position, self._lines):
            self._position += len(line) + 1
            self._lines += 1
            where = f"{self._path}, line {self._lines}"
            if event.get("event") == "step":
                records.append(_parse(Step, event, where))
            elif event.get("event") == "validation":
                if isinstance(samples := event.get("samples"), list):
                    event["samples"] = tuple(from_dict(Sample, sample, where) for sample in samples)
                records.append(_parse(Validation, event, where))
        return records


def describe_history(history: History) -> dict[str, Any]:
    """The losses and samples of a run, ready for JSON; of many, some at equal distances."""
    steps = [history.steps[index] for index in sparse(history.steps, MAX_DESCRIBED)]
    sampled = [index for index, validation in enumerate(history.validations) if validation.samples]
    kept = {*sparse(history.validations, MAX_DESCRIBED), *(sampled[index] for index in sparse(sampled, MAX_SAMPLED))}
    return {
        "steps": [dataclasses.asdict(step) for step in steps],
        "validations": [dataclasses.asdict(history.validations[index]) for index in sorted(kept)],
    }


def sparse(items: Sequence[object], limit: int) -> list[int]:
    """Indices of at most `limit` items at equal distances, the first and the last among them."""
    if len(items) <= limit:
        return list(range(len(items)))
    return sorted({round(index * (len(items) - 1) / (limit - 1)) for index in range(limit)})


def _parse(kind: type[Config], event: dict[str, Any], where: str) -> Config:
    """The fields of `kind` in an event, which may have others."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return from_dict(kind, {name: value for name, value in event.items() if name in names}, where)


def _read_events(path: Path, position: int = 0, lines: int = 0) -> list[tuple[bytes, dict[str, Any]]]:
    """The complete lines of a history after a position, as bytes and decoded; none if the file does not exist."""
    try:
        *new, _ = read_bounded(path, _MAX_HISTORY_BYTES, position).split(b"\n")
    except NoInputError:
        return []
    return [(line, _parse_event(line, f"{path}, line {number}")) for number, line in enumerate(new, start=lines + 1)]


def _format_event(event: dict[str, Any]) -> str:
    """The line of an event, without its end: a JSON object whose last member is the CRC-32 of the others."""
    return json.dumps({**event, _CHECKSUM: f"{zlib.crc32(json.dumps(event).encode()):08x}"})


def _parse_event(line: bytes, where: str) -> dict[str, Any]:
    """The event in a line, without its checksum; raises DataError if the line is damaged."""
    event = parse_json(line, where)
    if not isinstance(event, dict) or type(event.get("step")) is not int:
        raise DataError(f"{where}: not an event of a run")
    has_checksum = event.pop(_CHECKSUM, None) is not None
    if line != _format_event(event).encode() if has_checksum else not event.keys() <= _FORMER_MEMBERS:
        raise DataError(f"{where}: damaged: its checksum does not match its content; delete the line to go on")
    return event
