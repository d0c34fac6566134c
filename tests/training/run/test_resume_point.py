"""Which run and checkpoint a resumed run continues from, which settings may change, and how a run is extended."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from run_driver import (
    STEPS,
    TEXT,
    collect_events,
    flip_bit,
    is_start,
    outcome,
    read_files,
    read_history,
    resume,
    start,
)

from quickfox.checkpoints.manifest import MANIFEST_NAME, digest, format_manifest, parse_manifest
from quickfox.checkpoints.run_directory import list_checkpoint_directories
from quickfox.config.training import TrainingRequest
from quickfox.errors import NewerFormatError, NoInputError, UsageError
from quickfox.files.json import format_json
from quickfox.training.engine.events import Event
from quickfox.training.run.resume import resume_run

pytestmark = pytest.mark.usefixtures("fake_training")


# Which run and which checkpoint


def test_no_run_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (tmp_path, None):
        with pytest.raises(NoInputError, match="llm train CORPUS"):
            collect_events(lambda run_context, run=run: resume_run(run, TrainingRequest(), run_context=run_context))


def test_without_a_name_the_run_written_last_is_resumed(
    stopped: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(uninterrupted / "run", tmp_path / "runs" / "older")
    for path in (tmp_path / "runs").rglob("*"):
        os.utime(path, (0, 0))
    (stopped / "run").rename(tmp_path / "runs" / "newer")
    notices: list[str] = []
    (first,) = collect_events(
        lambda run_context: resume_run(None, TrainingRequest(), run_context=run_context), notices=notices, kill=is_start
    )
    assert first.directory == Path("runs/newer")
    assert "run: runs/newer (the newest)" in notices


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(stopped: Path, name: str) -> None:
    newest, older = list_checkpoint_directories(stopped / "run")[-1], list_checkpoint_directories(stopped / "run")[-2]
    flip_bit(newest / name)
    notices: list[str] = []
    started = resume(stopped, notices=notices, kill=is_start)[0]
    assert started.step == int(older.name.removeprefix("step-"))
    warning = next(notice for notice in notices if notice.startswith("warning: "))
    assert str(newest) in warning
    assert str(older) in warning


def test_a_checkpoint_of_another_version_is_neither_replaced_nor_removed(stopped: Path) -> None:
    newest = list_checkpoint_directories(stopped / "run")[-1]
    contents = {path.name: path.read_bytes() for path in newest.iterdir()}
    state = {**json.loads(contents["state.json"]), "new_member": 1}
    manifest = parse_manifest(contents[MANIFEST_NAME], "manifest")
    changed = format_json(state)
    training = {**manifest.training, "state.json": digest(changed)}
    (newest / "state.json").write_bytes(changed)
    (newest / MANIFEST_NAME).write_bytes(format_manifest(dataclasses.replace(manifest, training=training)))
    before = read_files(stopped)
    with pytest.raises(NewerFormatError, match=r"another version of quickfox wrote them"):
        resume(stopped)
    assert read_files(stopped) == before


def test_a_run_that_cannot_be_read_is_named_and_skipped(
    stopped: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (stopped / "run").rename(tmp_path / "runs" / "good")
    shutil.copytree(uninterrupted / "run", tmp_path / "runs" / "bad")
    flip_bit(tmp_path / "runs" / "bad" / "run.json")
    notices: list[str] = []
    (first,) = collect_events(
        lambda run_context: resume_run(None, TrainingRequest(), run_context=run_context), notices=notices, kill=is_start
    )
    assert first.directory == Path("runs/good")
    assert notices[0].startswith("warning: runs/bad/run.json: ")


# Settings


@pytest.mark.parametrize(
    ("name", "value", "recorded"),
    [
        ("hidden_dim", 32, "16"),
        ("num_layers", 2, "1"),
        ("batch_size", 8, "4"),
        ("window", 8, "16"),
        ("dropout", 0.25, "0.0"),
        ("learning_rate", 0.5, "0.01"),
        ("random_seed", 2, "1"),
        ("validation_split", 0.2, "0.1"),
        ("patience", 3, "None"),
        ("threads", 99, "2"),
    ],
)
def test_changed_settings_are_refused_with_both_values(
    stopped_once: Path, name: str, value: float, recorded: str
) -> None:
    option = f"(--{name.replace('_', '-')}|{name})"
    with pytest.raises(UsageError, match=rf"{option} is {recorded} in this run, not {value}"):
        resume(stopped_once, **{name: value})


@pytest.mark.parametrize(("ngram", "recorded"), [(2, 3), (7, 3), ("off", 3), (3, "off")])
def test_another_ngram_order_is_refused_with_both(tmp_path: Path, ngram: int | str, recorded: int | str) -> None:
    start(tmp_path, options={"ngram": recorded}, kill=is_start)
    with pytest.raises(UsageError, match=f"^ngram is {recorded} in this run, not {ngram}: leave it out"):
        resume(tmp_path, ngram=ngram)


@pytest.mark.parametrize("ngram", [3, "off"])
def test_the_ngram_order_of_the_run_may_be_given(tmp_path: Path, ngram: int | str) -> None:
    start(tmp_path, options={"ngram": ngram}, kill=is_start)
    assert resume(tmp_path, ngram=ngram, kill=is_start)[0].training.ngram_order == (0 if ngram == "off" else ngram)


# Length


def extend(options: dict[str, float], folder: Path) -> list[Event]:
    """Resumes the run with another length, which a notice reports."""
    notices: list[str] = []
    events = resume(folder, notices=notices, **options)
    assert any("steps" in notice and "instead of" in notice for notice in notices)
    return events


@pytest.mark.parametrize(
    ("options", "steps"), [({"steps": 120}, 120), ({"epochs": 5.0}, round(5 * 0.9 * len(TEXT) / 64))]
)
def test_a_finished_run_can_be_extended(
    uninterrupted: Path, tmp_path: Path, options: dict[str, float], steps: int
) -> None:
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    events = extend(options, tmp_path)
    assert (events[0].step, events[-1].steps) == (STEPS, steps)
    assert outcome(tmp_path)["plan"]["replans"] == [[STEPS, steps]]
    assert read_history(tmp_path)[: len(read_history(uninterrupted))] == read_history(uninterrupted)
    assert read_history(tmp_path)[-1]["step"] == steps


def test_an_unfinished_run_is_extended_at_its_last_step(stopped: Path) -> None:
    events = extend({"steps": 120}, stopped)
    assert outcome(stopped)["plan"]["replans"] == [[events[0].step, 120]]
    assert events[-1].steps == 120


def test_a_run_can_be_shortened(stopped: Path) -> None:
    assert extend({"steps": 80}, stopped)[-1].steps == 80


def test_an_extension_survives_a_kill_before_its_first_checkpoint(stopped: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(stopped, twin)
    resume(twin, steps=120)
    resume(stopped, "1000", steps=120, kill=is_start)
    assert resume(stopped, "10")[-1].steps == 120
    assert outcome(stopped) == outcome(twin)


def test_the_extension_of_a_finished_run_survives_a_kill(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    resume(tmp_path, steps=120, kill=is_start)
    assert resume(tmp_path)[-1].steps == 120


def test_before_the_first_checkpoint_the_length_may_change(uninterrupted: Path, tmp_path: Path) -> None:
    start(tmp_path, options={"steps": 500, "dropout": 0.0}, kill=is_start)
    resume(tmp_path, steps=STEPS)
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_a_run_is_extended_by_a_budget(stopped: Path) -> None:
    seconds = json.loads((list_checkpoint_directories(stopped / "run")[-1] / "state.json").read_text())["seconds"]
    events = extend({"budget": seconds + 2.5}, stopped)
    assert events[0].budget_seconds == seconds + 2.5
    assert events[-1].steps == outcome(stopped)["plan"]["replans"][-1][1]


def test_a_budget_extends_a_run_whose_only_step_was_not_timed(tmp_path: Path) -> None:
    first = start(tmp_path, stop=lambda _: True)
    assert first[-1].step == 1
    assert resume(tmp_path, budget=5.0)[-1].steps > 1


@pytest.mark.parametrize("options", [{"steps": 20}, {"epochs": 1.0}, {"budget": 0.01}])
def test_a_length_already_reached_is_refused(stopped: Path, options: dict[str, float]) -> None:
    before = read_files(stopped)
    with pytest.raises(UsageError, match=r"6\d steps"):
        resume(stopped, **options)
    assert read_files(stopped) == before


def test_a_budget_counts_the_time_of_earlier_parts(tmp_path: Path) -> None:
    start(tmp_path, options={"budget": 7200.0}, stop=lambda _: True, seconds_ago=7200)
    assert resume(tmp_path)[-1].steps < 100, "the two hours are over, there is no time for more"
    with pytest.raises(UsageError, match=r"72\d\d s"):
        resume(tmp_path, budget=3600.0)


@pytest.mark.parametrize("options", [{"steps": 20}, {"epochs": 2.0}, {"budget": 60.0}])
def test_a_run_of_an_ngram_model_cannot_be_extended(tmp_path: Path, options: dict[str, float]) -> None:
    start(tmp_path, settings={}, options={"architecture": "ngram", "budget": 60.0})
    before = read_files(tmp_path)
    with pytest.raises(UsageError, match=f"^{next(iter(options))} cannot extend a run of architecture ngram"):
        resume(tmp_path, **options)
    assert read_files(tmp_path) == before
