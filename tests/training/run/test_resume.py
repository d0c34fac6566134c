"""A resumed run ends like one that was not interrupted, or explains in one line why it cannot continue."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from run_driver import (
    SMALL,
    STEPS,
    VALIDATION_INTERVAL,
    at_step,
    flip_bit,
    is_start,
    outcome,
    read_files,
    read_validations,
    resume,
    start,
    write_run_json,
)

from quickfox.checkpoints.run_directory import list_checkpoint_directories
from quickfox.errors import BusyError, DataError, StorageError, UsageError
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import save_tokenizer
from quickfox.training.engine.events import RunFinished, RunInterrupted, RunStarted, Validated
from quickfox.training.planning import cost
from quickfox.training.run.directory import run_lock

pytestmark = pytest.mark.usefixtures("fake_training")


@pytest.mark.parametrize("step", [1, VALIDATION_INTERVAL, 70])
def test_a_stopped_run_ends_like_an_uninterrupted_one(uninterrupted: Path, tmp_path: Path, step: int) -> None:
    first = start(tmp_path, stop=(lambda _: True) if step == 1 else at_step(step))
    assert isinstance(first[-1], RunInterrupted)
    second = resume(tmp_path)
    assert isinstance(second[0], RunStarted)
    assert second[0].step == first[-1].step >= step
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_a_run_stopped_many_times_ends_like_an_uninterrupted_one(uninterrupted: Path, tmp_path: Path) -> None:
    events = start(tmp_path, stop=at_step(5), checkpoint_every="7")
    for step in (20, 40, 60, STEPS):
        assert isinstance(events[-1], RunInterrupted)
        events = resume(tmp_path, stop=at_step(step))
    assert isinstance(events[-1], RunFinished)
    assert outcome(tmp_path) == outcome(uninterrupted)


@pytest.mark.parametrize("step", [12, 64])
def test_a_run_killed_between_checkpoints_ends_like_an_uninterrupted_one(
    uninterrupted: Path, tmp_path: Path, step: int
) -> None:
    first = start(tmp_path, kill=at_step(step), checkpoint_every="10")
    assert 0 < resume(tmp_path)[0].step <= first[-1].step
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_a_run_killed_before_its_first_checkpoint_starts_at_step_0(uninterrupted: Path, tmp_path: Path) -> None:
    start(tmp_path, kill=is_start)
    notices: list[str] = []
    assert resume(tmp_path, notices=notices)[0].step == 0
    assert [notice for notice in notices if "starting at step 0" in notice]
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_the_checkpoint_interval_may_change(uninterrupted: Path, stopped: Path) -> None:
    resume(stopped, "3")
    assert json.loads((stopped / "run" / "run.json").read_text())["checkpoint_every"] == "3"
    assert outcome(stopped) == outcome(uninterrupted)


def test_two_layers_with_dropout_continue_exactly(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"num_layers": 2, "dropout": 0.3}
    start(whole, options=options)
    start(parts, options=options, stop=at_step(33))
    resume(parts, stop=at_step(55))
    resume(parts)
    assert outcome(parts) == outcome(whole)


def test_patience_counts_validations_before_the_interruption(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    noise = "".join(random.Random(0).choices("abcdefgh", k=1200))
    options = {"patience": 3, "learning_rate": 0.05, "steps": 2000}
    last = start(whole, text=noise, options=options)[-1]
    assert last.stopped_early
    validations = read_validations(whole)
    assert [line["is_best"] for line in validations[-3:]] == [False] * 3
    start(parts, text=noise, options=options, stop=at_step(validations[-2]["step"]))
    assert resume(parts)[-1].steps == last.steps
    assert outcome(parts) == outcome(whole)


def test_a_run_without_held_out_text_continues_exactly(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(whole, options={"validation_split": 0.0})
    start(parts, options={"validation_split": 0.0}, stop=at_step(40))
    assert resume(parts)[-1].checkpoint.name == f"step-{STEPS:08d}"
    assert outcome(parts) == outcome(whole)


def test_file_times_and_the_time_of_day_do_not_matter(
    uninterrupted: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of day goes backwards, and so do the checkpoints' times: the newest is the one of the last step."""
    now = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    for age, directory in enumerate(list_checkpoint_directories(stopped / "run")):
        os.utime(directory, (10**9 - age * 10**6,) * 2)
        os.utime(directory / "manifest.json", (10**9 - age * 10**6,) * 2)
    assert resume(stopped)[0].step >= 60
    assert outcome(stopped) == outcome(uninterrupted)


def test_a_run_resumed_from_an_older_checkpoint_ends_the_same(uninterrupted: Path, stopped: Path) -> None:
    (list_checkpoint_directories(stopped / "run")[-1] / "manifest.json").unlink()
    resume(stopped)
    assert outcome(stopped) == outcome(uninterrupted)


def test_remains_of_interrupted_writes_are_removed(uninterrupted: Path, stopped: Path) -> None:
    with (stopped / "run" / "history.jsonl").open("a") as file:
        file.write('{"event": "validation", "st')
    (stopped / "run" / ".quickfox-0123.tmp").write_bytes(b"half a file")
    (stopped / "run" / "checkpoints" / ".quickfox-4567.tmp").mkdir()
    (stopped / "run" / "checkpoints" / ".quickfox-4567.tmp" / "model.safetensors").write_bytes(b"half a model")
    resume(stopped)
    assert outcome(stopped) == outcome(uninterrupted)
    assert not list((stopped / "run").rglob(".quickfox-*"))


def test_no_undamaged_checkpoint_is_refused_and_changes_nothing(stopped: Path) -> None:
    for directory in list_checkpoint_directories(stopped / "run"):
        flip_bit(directory / "training.safetensors")
    before = read_files(stopped)
    with pytest.raises(DataError, match="no checkpoint is undamaged"):
        resume(stopped)
    assert read_files(stopped) == before


def test_a_damaged_record_is_refused(stopped: Path) -> None:
    record = stopped / "run" / "run.json"
    record.write_bytes(record.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"run\.json"):
        resume(stopped)


def test_another_vocabulary_is_refused(stopped: Path) -> None:
    characters = (*(chr(97 + k) for k in range(27)), "\n")
    save_tokenizer(CharacterTokenizer(Vocabulary(tuple(sorted(characters)))), stopped / "run" / "tokenizer.json")
    with pytest.raises(DataError, match=r"tokenizer\.json has changed"):
        resume(stopped)


def test_a_finished_run_is_not_changed(uninterrupted: Path) -> None:
    before = read_files(uninterrupted)
    notices: list[str] = []
    (event,) = resume(uninterrupted, notices=notices)
    assert isinstance(event, RunFinished)
    assert (event.steps, event.stopped_early, event.workers) == (STEPS, False, 1)
    assert event.best_validation_loss == min(line["validation_loss"] for line in read_validations(uninterrupted))
    assert any("is finished" in notice for notice in notices)
    assert read_files(uninterrupted) == before
    assert isinstance(resume(uninterrupted, steps=STEPS)[0], RunFinished)
    assert read_files(uninterrupted) == before


def test_the_runs_own_settings_may_be_repeated(uninterrupted: Path, stopped: Path) -> None:
    resume(stopped, **SMALL, steps=STEPS)
    assert outcome(stopped) == outcome(uninterrupted)


def test_too_little_disk_space_is_refused(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(cost.shutil, "disk_usage", lambda _: usage)
    before = read_files(stopped)
    with pytest.raises(StorageError, match="free some space"):
        resume(stopped)
    assert read_files(stopped) == before


def test_a_run_that_another_process_trains_is_refused(stopped: Path) -> None:
    with run_lock(stopped / "run"), pytest.raises(BusyError, match=str(os.getpid())):
        resume(stopped)


def test_other_versions_give_a_notice(stopped: Path) -> None:
    record = stopped / "run" / "run.json"
    values = json.loads(record.read_text())
    values["versions"]["tensorflow"] = "1.0"
    write_run_json(record, values)
    notices: list[str] = []
    resume(stopped, notices=notices, kill=is_start)
    assert any("versions" in notice for notice in notices)


def test_each_validation_is_an_event_of_one_part_only(uninterrupted: Path, tmp_path: Path) -> None:
    parts = (start(tmp_path, stop=at_step(VALIDATION_INTERVAL)), resume(tmp_path, stop=at_step(60)), resume(tmp_path))
    steps = [event.step for part in parts for event in part if isinstance(event, Validated)]
    assert steps == [line["step"] for line in read_validations(uninterrupted)]


def test_a_run_is_resumed_only_with_enough_memory(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine, or with fewer workers."""
    monkeypatch.setattr(os, "sysconf", lambda _name: 1)
    with pytest.raises(UsageError, match=r"training needs about .* of memory"):
        resume(stopped)
