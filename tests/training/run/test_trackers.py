"""Trackers get what the history of a run has, also after it was killed and resumed."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from run_driver import SMALL, TEXT, Condition, at_step

from quickfox.config.training import TrackerName, TrainingRequest
from quickfox.errors import UnavailableError
from quickfox.text.corpus import open_corpus
from quickfox.training.engine.events import RunContext, RunRequest
from quickfox.training.run.history import Validation, read_history
from quickfox.training.run.resume import resume_run
from quickfox.training.run.start import start_run
from quickfox.training.run.tracker_backends import scalars
from quickfox.training.run.trackers import Trackers, check_installed

pytestmark = pytest.mark.usefixtures("fake_training")


def report(
    names: Sequence[TrackerName], run: Path, kill: Condition = lambda _: False, *, resume: bool = False
) -> list[str]:
    """Trains a run, reported to trackers, until it ends or is abandoned; returns the warnings."""
    notices: list[str] = []
    context = RunContext(notify=notices.append, started=0.0)
    if resume:
        events = resume_run(run, TrainingRequest(), run_context=context)
    else:
        corpus_file = run.parent / "corpus.txt"
        corpus_file.write_text(TEXT)
        training = TrainingRequest(**SMALL, steps=60, ngram="off")
        request = RunRequest(training=training, output=run, checkpoint_every="20")
        events = start_run(open_corpus([str(corpus_file)], notices.append), "run", request, context)
    warnings: list[str] = []
    with Trackers(names, "project", warnings.append) as trackers:
        for event in events:
            trackers.report(event)
            if kill(event):
                break
    return warnings


def read_event_files(run: Path) -> list[tuple[int, dict[str, Any]]]:
    """The step and the values of each event in the event files of a run."""
    files = sorted(str(path) for path in (run / "tensorboard").iterdir())
    assert len(files) == 1
    events = [tf.compat.v1.Event.FromString(data.numpy()) for data in tf.data.TFRecordDataset(files)]
    assert events[0].file_version == "brain.Event:2"
    return [
        (event.step, {value.tag: value.simple_value if value.HasField("simple_value") else tf.make_ndarray(value.tensor)
                      for value in event.summary.value})
        for event in events[1:]
    ]  # fmt: skip


def expected_scalars(run: Path) -> list[tuple[int, dict[str, float]]]:
    history = read_history(run)
    records = sorted([*history.steps, *history.validations], key=lambda each: (each.step, isinstance(each, Validation)))
    return [(each.step, scalars(each)) for each in records]


def without_seconds(events: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The values that a resumed run repeats."""
    return [{tag: value for tag, value in values.items() if not tag.endswith("seconds")} for _, values in events]


@pytest.fixture
def killed_and_resumed(tmp_path: Path) -> Path:
    """A run reported to files that was killed between two checkpoints, and resumed."""
    run = tmp_path / "run"
    assert report(["tensorboard", "csv"], run, kill=at_step(33)) == []
    assert read_history(run).steps[-1].step > 20
    assert report(["tensorboard", "csv"], run, resume=True) == []
    return run


def test_event_files_equal_the_history(killed_and_resumed: Path) -> None:
    run = killed_and_resumed
    (step, settings), *events = read_event_files(run)
    assert step == 0
    assert json.loads(settings["settings"][0].decode().strip("`\n"))["training"]["random_seed"] == SMALL["random_seed"]
    found = [(step, {tag: each for tag, each in values.items() if isinstance(each, float)}) for step, values in events]
    as_float32 = [
        (step, {tag: float(np.float32(each)) for tag, each in values.items()}) for step, values in expected_scalars(run)
    ]
    assert found == as_float32
    texts = [values["samples/0"][0].decode() for _, values in events if "samples/0" in values]
    samples = [validation.samples[0].text for validation in read_history(run).validations if validation.samples]
    assert len(texts) == len(samples) > 0
    assert all(sample.split("\n")[0] in text for text, sample in zip(texts, samples, strict=True))


def test_csv_files_equal_the_history(killed_and_resumed: Path) -> None:
    history = read_history(killed_and_resumed)
    with (killed_and_resumed / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for kind, records in (("step", history.steps), ("validation", history.validations)):
        found = [
            (int(row["step"]), float(row["train_loss"]), float(row["seconds"])) for row in rows if row["event"] == kind
        ]
        assert found == [(each.step, each.train_loss, each.seconds) for each in records]
    with (killed_and_resumed / "csv" / "samples.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert texts == [sample.text for each in history.validations for sample in each.samples]


class FakeRun:
    """A run of wandb or trackio, which keeps what is logged."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.fail_at = fail_at

    def log(self, values: dict[str, Any], step: int) -> None:
        if step == self.fail_at:
            raise ConnectionError("no route")
        self.logged.append((step, {tag: value for tag, value in values.items() if isinstance(value, int | float)}))

    def finish(self) -> None:
        """Nothing to send."""


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeRun, list[dict[str, Any]]]:
    """Stand-ins of wandb and trackio: the run that they continue, and the arguments of each `init`."""
    run, calls = FakeRun(), []

    def init(**arguments: Any) -> FakeRun:
        calls.append(arguments)
        return run

    for name in ("wandb", "trackio"):
        library = ModuleType(name)
        vars(library).update(init=init, finish=run.finish, Markdown=str)
        vars(library).update(Table=SimpleNamespace, Settings=SimpleNamespace)
        monkeypatch.setitem(sys.modules, name, library)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return run, calls


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_library_gets_each_step_once(name: TrackerName, libraries: Any, tmp_path: Path) -> None:
    remote, calls = libraries
    run = tmp_path / "run"
    assert report([name], run, kill=at_step(33)) == []
    assert report([name], run, resume=True) == []
    expected = expected_scalars(run)
    assert [step for step, _ in remote.logged] == [step for step, _ in expected]
    timeless = [{tag: each for tag, each in values.items() if "seconds" not in tag} for _, values in expected]
    assert [
        {tag: each for tag, each in values.items() if "seconds" not in tag} for _, values in remote.logged
    ] == timeless
    first, second = calls
    assert first["name"] == second["name"]
    assert (first["project"], first["resume"]) == ("project", "allow")
    if name == "wandb":
        assert first["mode"] == "offline"


def test_a_tracker_that_fails_is_one_warning(libraries: Any, tmp_path: Path) -> None:
    remote, _ = libraries
    remote.fail_at = 20
    run = tmp_path / "run"
    warnings = report(["wandb", "csv"], run)
    assert warnings == ["warning: wandb failed, and gets no more of this run: ConnectionError: no route"]
    assert read_history(run).steps[-1].step == 60
    rows = (run / "csv" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + len(expected_scalars(run))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickfox.training.run.trackers.find_spec", lambda _: None)
    check_installed(["csv"])
    with pytest.raises(UnavailableError, match=r"report_to wandb needs wandb, .*: pip install wandb"):
        check_installed(["csv", "wandb"])
