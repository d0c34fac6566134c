"""The experiment trackers: TensorBoard, trackio, Weights & Biases, CSV files; each module is imported on use.

TensorBoard's and CSV files are written anew from the history when a run starts or resumes. To the others, which cannot
remove values, only steps after the last reported one are reported. Both ways, the curve of a resumed run has neither a
gap nor a step twice.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from quickfox.config.training import TrackerName
from quickfox.errors import DataError
from quickfox.files.atomic import write_file
from quickfox.files.json import read_json
from quickfox.training.engine.events import RunStarted, Sample
from quickfox.training.run.history import Step, Validation

STATE_FILE = "trackers.json"

Record = Step | Validation


class Tracker(Protocol):
    """Where a run is reported to."""

    def write(self, records: Sequence[Record]) -> None:
        """Reports the next records of the history."""

    def close(self) -> None:
        """Ends the report."""


def scalars(record: Record) -> dict[str, float]:
    """The numbers of a record that are known, by name."""
    group = "train" if isinstance(record, Step) else "validation"
    names = {("train", "train_loss"): "loss", ("validation", "validation_loss"): "loss"}
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {
        f"{group}/{names.get((group, name), name)}": value
        for name, value in values.items()
        if name not in ("step", "samples") and value is not None
    }


def _settings(event: RunStarted) -> dict[str, Any]:
    """The settings of a run, ready for JSON."""
    settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(event), default=str))
    return settings


class _TensorBoardTracker:
    """Event files in the directory `tensorboard` of the run, written by TensorFlow.

    `tf.summary` gives each value the time at which it is written. Here it is that of the run without its pauses, also
    when the files are written anew.
    """

    def __init__(self, event: RunStarted, _project: str) -> None:
        from quickfox.training.tensorflow_runtime import import_tensorflow

        self._tf = import_tensorflow()
        folder = event.directory / "tensorboard"
        folder.mkdir(exist_ok=True)
        for former in folder.glob("events.out.tfevents.*"):
            former.unlink()
        self._start_time: float | None = None
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = self._tf.io.TFRecordWriter(str(folder / name))
        self._write(time.time(), file_version="brain.Event:2")
        settings = json.dumps(_settings(event), indent=2)
        text = self._text("settings", f"```\n{settings}\n```")
        self._write(time.time(), summary=self._tf.compat.v1.Summary(value=[text]))

    def write(self, records: Sequence[Record]) -> None:
        if records and self._start_time is None:
            self._start_time = time.time() - records[-1].seconds
        for record in records:
            summary = self._tf.compat.v1.Summary
            values = [summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record).items()]
            for number, sample in enumerate(record.samples if isinstance(record, Validation) else ()):
                values.append(self._text(f"samples/{number}", _format_sample(sample)))
            wall_time = (self._start_time or 0.0) + record.seconds
            self._write(wall_time, step=record.step, summary=summary(value=values))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _text(self, tag: str, text: str) -> Any:
        """A text, which TensorBoard shows as Markdown."""
        v1 = self._tf.compat.v1
        metadata = v1.SummaryMetadata(plugin_data=v1.SummaryMetadata.PluginData(plugin_name="text"))
        return v1.Summary.Value(tag=tag, tensor=self._tf.make_tensor_proto([text]), metadata=metadata)

    def _write(self, wall_time: float, **content: Any) -> None:
        event = self._tf.compat.v1.Event(wall_time=wall_time, **content)
        self._writer.write(event.SerializeToString())


class _CsvTracker:
    """The files metrics.csv, samples.csv and settings.csv in the directory `csv` of the run."""

    def __init__(self, event: RunStarted, _project: str) -> None:
        self._folder = event.directory / "csv"
        self._folder.mkdir(exist_ok=True)
        kinds = (Step, Validation)
        names = [field.name for kind in kinds for field in dataclasses.fields(kind) if field.name != "samples"]
        self._columns = list(dict.fromkeys(names))
        settings = _settings(event)
        settings |= settings.pop("model") | settings.pop("training")
        rows = [[name, json.dumps(value)] for name, value in settings.items()]
        for name, header in (("metrics", ["event", *self._columns]), ("samples", ["step", "prompt", "text"])):
            write_file(self._folder / f"{name}.csv", _format_rows([header]))
        write_file(self._folder / "settings.csv", _format_rows([["name", "value"], *rows]))

    def write(self, records: Sequence[Record]) -> None:
        metrics, samples = [], []
        for record in records:
            kind = "step" if isinstance(record, Step) else "validation"
            metrics.append([kind, *(getattr(record, name, None) for name in self._columns)])
            if isinstance(record, Validation):
                samples += [[record.step, sample.prompt, sample.text] for sample in record.samples]
        for name, rows in (("metrics", metrics), ("samples", samples)):
            if rows:
                with (self._folder / f"{name}.csv").open("ab") as file:
                    file.write(_format_rows(rows))

    def close(self) -> None:
        """Nothing to release."""


class _RemoteTracker:
    """What a library keeps elsewhere: a run with an id of its own, which a resumed run continues.

    The id, and the last step and validation that were reported, are in STATE_FILE in the run directory.
    """

    name: TrackerName

    def __init__(self, event: RunStarted, project: str) -> None:
        self._path = event.directory / STATE_FILE
        states = read_json(self._path) if self._path.exists() else {}
        if not isinstance(states, dict):
            raise DataError(f"{self._path}: not the state of trackers; delete it to report the run as a new one")
        self._states = states
        self._reported = states.setdefault(self.name, {"id": secrets.token_hex(4), "Step": -1, "Validation": -1})
        self._start(event, project, f"{event.directory.resolve().name}-{self._reported['id']}")

    def write(self, records: Sequence[Record]) -> None:
        new = [record for record in records if record.step > self._reported[type(record).__name__]]
        for record in new:
            self._log(record)
            self._reported[type(record).__name__] = record.step
        if new:
            write_file(self._path, json.dumps(self._states).encode())

    def _start(self, event: RunStarted, project: str, name: str) -> None:
        """Starts or continues the run of this name."""
        raise NotImplementedError

    def _log(self, record: Record) -> None:
        raise NotImplementedError


class _WandbTracker(_RemoteTracker):
    """Weights & Biases: offline, in the directory `wandb` of the run, unless WANDB_MODE is set."""

    name = "wandb"

    def _start(self, event: RunStarted, project: str, name: str) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            id=name,
            name=name,
            resume="allow",
            dir=str(event.directory),
            config=_settings(event),
            mode=None if os.environ.get("WANDB_MODE") else "offline",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )

    def _log(self, record: Record) -> None:
        values: dict[str, Any] = dict(scalars(record))
        if isinstance(record, Validation) and record.samples:
            rows = [[sample.prompt, sample.text] for sample in record.samples]
            values["samples"] = self._wandb.Table(columns=["prompt", "text"], data=rows)
        self._run.log(values, step=record.step)

    def close(self) -> None:
        self._run.finish()


class _TrackioTracker(_RemoteTracker):
    """Trackio: on this machine, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL is set."""

    name = "trackio"

    def _start(self, event: RunStarted, project: str, name: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # how to open its page
            import trackio

            self._trackio = trackio
            self._run = trackio.init(project=project, name=name, resume="allow", config=_settings(event))

    def _log(self, record: Record) -> None:
        values: dict[str, Any] = dict(scalars(record))
        for number, sample in enumerate(record.samples if isinstance(record, Validation) else ()):
            values[f"samples/{number}"] = self._trackio.Markdown(_format_sample(sample))
        self._run.log(values, step=record.step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._trackio.finish()


def _format_sample(sample: Sample) -> str:
    """A sample as Markdown, in which no character of the texts has a meaning."""
    prompt, text = ("\n".join(f"    {line}" for line in part.splitlines()) for part in (sample.prompt, sample.text))
    return f"prompt\n\n{prompt}\n\ntext\n\n{text}"


def _format_rows(rows: Sequence[Sequence[object]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()


TRACKERS: dict[TrackerName, Callable[[RunStarted, str], Tracker]] = {
    "tensorboard": _TensorBoardTracker,
    "trackio": _TrackioTracker,
    "wandb": _WandbTracker,
    "csv": _CsvTracker,
}
"""Name -> what opens the tracker for a run and a project."""
