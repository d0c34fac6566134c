"""`history.jsonl`: a line for each validation and for each change of the plan of a run."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickfox.config.schema import from_dict, setting
from quickfox.errors import DataError, NoInputError
from quickfox.files.atomic import append_line, write_file
from quickfox.files.json import parse_json, read_bounded
from quickfox.training.engine.events import Replanned, Sample, Validated

HISTORY_FILE = "history.jsonl"

_MAX_HISTORY_BYTES = 2**26  # about 300,000 lines
_SAMPLES_PER_DOUBLING = 16


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


def record_event(run: Path, event: Validated | Replanned) -> None:
    """Appends a line to `history.jsonl`; of its fields only `seconds` depends on the speed of the machine."""
    kind = "validation" if isinstance(event, Validated) else "replan"
    values = dataclasses.asdict(event)
    values.pop("tokens_per_second", None)
    append_line(run / HISTORY_FILE, json.dumps({"event": kind, **values}))


def are_samples_recorded(validation: int) -> bool:
    """Whether the samples of a validation, counted from 1, are kept: of all up to the 31st, then of 16 per doubling.

    Thus a run of any length has a few hundred of them at most, at nearly equal distances on a logarithmic scale.
    """
    stride = 1 << max(0, validation.bit_length() - _SAMPLES_PER_DOUBLING.bit_length())
    return validation % stride == 0


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


def read_validations(run: Path) -> list[Validation]:
    """The validations of a run, earliest first; an incomplete last line is left out.

    Raises:
        DataError: a complete line is not an event.
        StorageError: reading failed.
    """
    path = run / HISTORY_FILE
    names = {field.name for field in dataclasses.fields(Validation)}
    validations = []
    for number, (_, event) in enumerate(_read_events(path), start=1):
        if event.get("event") == "validation":
            where = f"{path}, line {number}"
            values = {name: value for name, value in event.items() if name in names}
            if isinstance(samples := values.get("samples"), list):
                values["samples"] = tuple(from_dict(Sample, sample, where) for sample in samples)
            validations.append(from_dict(Validation, values, where))
    return validations


def _read_events(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """The complete lines of a history, as bytes and decoded; none if the file does not exist."""
    try:
        *lines, _ = read_bounded(path, _MAX_HISTORY_BYTES).split(b"\n")
    except NoInputError:
        return []
    events = []
    for number, line in enumerate(lines, start=1):
        event = parse_json(line, f"{path}, line {number}")
        if not isinstance(event, dict) or type(event.get("step")) is not int:
            raise DataError(f"{path}, line {number}: not an event of a run")
        events.append((line, event))
    return events
