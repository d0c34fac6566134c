"""A run that was stopped, killed or damaged and then resumed is the run that would have been, or says why not."""

import errno
import hashlib
import io
import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from quickfox.checkpoints.run_directory import checkpoints_of, step_directories
from quickfox.config.training import TrainingRequest
from quickfox.errors import BusyError, DataError, DivergedError, NoInputError, StorageError, UsageError
from quickfox.files import atomic as durable
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import save_tokenizer
from quickfox.training.engine import trainer
from quickfox.training.engine.events import (
    Event,
    RunContext,
    RunFinished,
    RunInterrupted,
    RunStarted,
    StepsCompleted,
    Validated,
)
from quickfox.training.planning import auto_config as settings
from quickfox.training.planning import cost as resources
from quickfox.training.run.directory import run_lock
from quickfox.training.run.resume import resume_run
from quickfox.training.run.start import start_run

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40
SMALL: dict[str, Any] = {"hidden_dim": 16, "embedding_dim": 4, "batch_size": 4, "window": 16, "random_seed": 1}
STEPS = 90
VALIDATION_INTERVAL = 25  # an epoch of TEXT
HEAVY = {"num_layers": 2, "dropout": 0.3}

Until = Callable[[Event], bool]


@pytest.fixture(scope="module", autouse=True)
def _short_epochs() -> Iterator[None]:
    """Validations every epoch, however short it is, so that short runs have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "MIN_VALIDATION_INTERVAL", 10)
        patch.setattr(settings, "VALIDATION_SHARE", 10.0)
        yield


def at(step: int) -> Until:
    """True from the first `StepsCompleted` at or after `step` on."""
    return lambda event: isinstance(event, StepsCompleted) and event.step >= step


def begun(event: Event) -> bool:
    """True once it is decided from where a run goes on."""
    return isinstance(event, RunStarted)


def watch(
    begin: Callable[[RunContext], Any],
    stop: Until = lambda _: False,
    kill: Until = lambda _: False,
    notices: list[str] | None = None,
    started: float | None = None,
) -> list[Event]:
    """All events of a run, which is asked to stop, or left without a chance to save, at the event that says so."""
    asked = False
    seen: list[Event] = []
    run_context = RunContext(
        notify=[].append if notices is None else notices.append,
        started=time.monotonic() if started is None else started,
        stop_requested=lambda: asked,
    )
    with closing(begin(run_context)) as events:
        for event in events:
            seen.append(event)
            asked = asked or stop(event)
            if kill(event):
                break
    return seen


def begin(
    folder: Path,
    *,
    text: str = TEXT,
    corpus: Corpus | None = None,
    checkpoint_every: str | None = None,
    config_from: Path | None = None,
    settings: dict[str, Any] = SMALL,
    options: dict[str, Any] | None = None,
    **watching: Any,
) -> list[Event]:
    """A new run in `folder`/run, of the text in `folder`/corpus.txt."""
    source = folder / "corpus.txt"
    source.write_text(text, encoding="utf-8")
    length = {} if config_from or (options and {"epochs", "budget"} & options.keys()) else {"steps": STEPS}
    return watch(
        lambda run_context: start_run(
            corpus or open_corpus([str(source)], run_context.notify),
            TrainingRequest(**{**settings, **length, **(options or {})}),
            output=folder / "run",
            vocabulary_path=None,
            name="corpus",
            run_context=run_context,
            checkpoint_every=checkpoint_every,
            config_from=config_from,
        ),
        **watching,
    )


def go_on(folder: Path, checkpoint_every: str | None = None, *, run: Path | None = None, **options: Any) -> list[Event]:
    """The run in `folder`/run resumed."""
    watching = {name: options.pop(name) for name in ("stop", "kill", "notices", "started") if name in options}
    return watch(
        lambda run_context: resume_run(
            run or folder / "run",
            TrainingRequest(**options),
            run_context=run_context,
            checkpoint_every=checkpoint_every,
        ),
        **watching,
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of history.jsonl, less what the clock said."""
    lines = [json.loads(line) for line in (folder / "run" / "history.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return lines


def outcome(folder: Path) -> dict[str, Any]:
    """Everything about a run that must not depend on whether it was ever stopped."""
    last = step_directories(folder / "run")[-1]
    state = json.loads((last / "state.json").read_text())
    return {
        "model": sha256(last / "model.safetensors"),
        "training": sha256(last / "training.safetensors"),
        "state": {name: value for name, value in state.items() if "seconds" not in name and name != "timed_steps"},
        "history": history(folder),
        "plan": json.loads((folder / "run" / "run.json").read_text())["training"],
        "left": sorted(path.name for path in (folder / "run").iterdir()),
    }


def files(folder: Path) -> dict[str, bytes]:
    """Every file of the run, but for what only the corpus's owner changes."""
    return {str(path): path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}


def damage(path: Path) -> None:
    """Flips one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert isinstance(begin(folder)[-1], RunFinished)
    return folder


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with a checkpoint every 10 steps, asked to stop at step 60."""
    folder = tmp_path_factory.mktemp("stopped")
    last = begin(folder, checkpoint_every="10", stop=at(60))[-1]
    assert isinstance(last, RunInterrupted)
    assert 60 <= last.step < STEPS
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of it, with a corpus of its own, for a test to spoil."""
    folder = tmp_path / "copy"
    shutil.copytree(stopped_once, folder)
    record = folder / "run" / "run.json"
    record.write_text(record.read_text().replace(str(stopped_once), str(folder)))
    return folder


# The same to the last bit.


@pytest.mark.parametrize("step", [1, VALIDATION_INTERVAL, 70])
def test_stopped_and_resumed_is_the_same_as_in_one_go(whole: Path, tmp_path: Path, step: int) -> None:
    first = begin(tmp_path, stop=(lambda _: True) if step == 1 else at(step))
    assert isinstance(first[-1], RunInterrupted)
    second = go_on(tmp_path)
    assert isinstance(second[0], RunStarted)
    assert second[0].step == first[-1].step >= step
    assert outcome(tmp_path) == outcome(whole)


def test_stopped_many_times_is_the_same_as_in_one_go(whole: Path, tmp_path: Path) -> None:
    events = begin(tmp_path, stop=at(5), checkpoint_every="7")
    for step in (20, 40, 60, STEPS):
        assert isinstance(events[-1], RunInterrupted)
        events = go_on(tmp_path, stop=at(step))
    assert isinstance(events[-1], RunFinished)
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.parametrize("step", [12, 64])
def test_killed_between_checkpoints_is_the_same_as_in_one_go(whole: Path, tmp_path: Path, step: int) -> None:
    first = begin(tmp_path, kill=at(step), checkpoint_every="10")
    assert 0 < go_on(tmp_path)[0].step <= first[-1].step
    assert outcome(tmp_path) == outcome(whole)


def test_killed_before_its_first_checkpoint_it_begins_again_and_says_so(whole: Path, tmp_path: Path) -> None:
    begin(tmp_path, kill=begun)
    notices: list[str] = []
    assert go_on(tmp_path, notices=notices)[0].step == 0
    assert [notice for notice in notices if "starting at step 0" in notice]
    assert outcome(tmp_path) == outcome(whole)


def test_how_often_checkpoints_are_made_changes_nothing(whole: Path, stopped: Path) -> None:
    go_on(stopped, "3")
    assert json.loads((stopped / "run" / "run.json").read_text())["checkpoint_every"] == "3"
    assert outcome(stopped) == outcome(whole)


def test_with_two_layers_and_dropout_it_is_the_same_too(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    begin(tmp_path / "whole", options=HEAVY)
    begin(tmp_path / "parts", options=HEAVY, stop=at(33))
    go_on(tmp_path / "parts", stop=at(55))
    go_on(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_patience_remembers_validations_before_the_stop(tmp_path: Path) -> None:
    noise = "".join(random.Random(0).choices("abcdefgh", k=1200))  # nothing to learn but by heart
    options = {"patience": 3, "learning_rate": 0.05, "steps": 2000}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    last = begin(tmp_path / "whole", text=noise, options=options)[-1]
    assert last.stopped_early
    validations = [line for line in history(tmp_path / "whole") if line["event"] == "validation"]
    assert [line["is_best"] for line in validations[-3:]] == [False] * 3
    begin(tmp_path / "parts", text=noise, options=options, stop=at(validations[-2]["step"]))
    assert go_on(tmp_path / "parts")[-1].steps == last.steps
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_without_a_held_out_text_it_is_the_same_too(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    begin(tmp_path / "whole", options={"validation_split": 0.0})
    begin(tmp_path / "parts", options={"validation_split": 0.0}, stop=at(40))
    assert go_on(tmp_path / "parts")[-1].checkpoint.name == f"step-{STEPS:08d}"
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_no_clock_matters(whole: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day goes backwards, and so do the checkpoints' times: the newest is the one of the last step."""
    now = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    for age, directory in enumerate(step_directories(stopped / "run")):
        os.utime(directory, (10**9 - age * 10**6,) * 2)
        os.utime(directory / "manifest.json", (10**9 - age * 10**6,) * 2)
    assert go_on(stopped)[0].step >= 60
    assert outcome(stopped) == outcome(whole)


# --config


def test_a_budgeted_run_is_repeated_exactly_by_its_record(tmp_path: Path) -> None:
    for name in ("first", "again", "parts"):
        (tmp_path / name).mkdir()
    last = begin(tmp_path / "first", options={"budget": 3.5})[-1]
    expected = outcome(tmp_path / "first")
    assert expected["plan"]["replans"]
    record = tmp_path / "first" / "run" / "run.json"
    assert begin(tmp_path / "again", config_from=record, settings={})[-1].steps == last.steps
    assert outcome(tmp_path / "again") == expected
    replan = expected["plan"]["replans"][0][0]
    begin(tmp_path / "parts", config_from=record, settings={}, stop=at(replan))
    go_on(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == expected


def test_options_win_over_the_repeated_record(whole: Path, tmp_path: Path) -> None:
    events = begin(tmp_path, config_from=whole / "run", settings={}, options={"steps": 5, "random_seed": 7})
    assert (events[-1].steps, events[0].training.random_seed) == (5, 7)
    assert events[0].model.hidden_dim == SMALL["hidden_dim"]


def test_repeating_on_another_text_is_said(whole: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    text = TEXT.replace("lazy", "idle")
    begin(tmp_path, text=text, config_from=whole / "run", settings={}, options={"steps": 2}, notices=notices)
    assert any("the run will differ" in notice for notice in notices)


# Damage.


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(stopped: Path, name: str) -> None:
    newest, older = step_directories(stopped / "run")[-1], step_directories(stopped / "run")[-2]
    damage(newest / name)
    notices: list[str] = []
    started = go_on(stopped, notices=notices, kill=begun)[0]
    assert started.step == int(older.name.removeprefix("step-"))
    warning = next(notice for notice in notices if notice.startswith("warning: "))
    assert str(newest) in warning
    assert str(older) in warning


def test_from_the_checkpoint_before_a_damaged_one_it_ends_the_same(whole: Path, stopped: Path) -> None:
    (step_directories(stopped / "run")[-1] / "manifest.json").unlink()
    go_on(stopped)
    assert outcome(stopped) == outcome(whole)


def test_when_all_are_damaged_it_does_not_begin_again(stopped: Path) -> None:
    for directory in step_directories(stopped / "run"):
        damage(directory / "training.safetensors")
    before = files(stopped)
    with pytest.raises(DataError, match="no checkpoint is undamaged"):
        go_on(stopped)
    assert files(stopped) == before


def test_what_interrupted_writes_left_is_cleared_away(whole: Path, stopped: Path) -> None:
    with (stopped / "run" / "history.jsonl").open("a") as file:
        file.write('{"event": "validation", "st')
    (stopped / "run" / ".quickfox-0123.tmp").write_bytes(b"half a file")
    (stopped / "run" / "checkpoints" / ".quickfox-4567.tmp").mkdir()
    (stopped / "run" / "checkpoints" / ".quickfox-4567.tmp" / "model.safetensors").write_bytes(b"half a model")
    go_on(stopped)
    assert outcome(stopped) == outcome(whole)
    assert not list((stopped / "run").rglob(".quickfox-*"))


def test_a_damaged_record_is_refused(stopped: Path) -> None:
    record = stopped / "run" / "run.json"
    record.write_bytes(record.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"run\.json"):
        go_on(stopped)


def test_no_run_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (tmp_path, None):
        with pytest.raises(NoInputError, match="llm train CORPUS"):
            watch(lambda run_context, run=run: resume_run(run, TrainingRequest(), run_context=run_context))


def test_without_a_name_the_run_last_written_to_is_meant(
    stopped: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole / "run", tmp_path / "runs" / "older")
    for path in (tmp_path / "runs").rglob("*"):
        os.utime(path, (0, 0))
    (stopped / "run").rename(tmp_path / "runs" / "newer")
    notices: list[str] = []
    (first,) = watch(
        lambda run_context: resume_run(None, TrainingRequest(), run_context=run_context), notices=notices, kill=begun
    )
    assert first.directory == Path("runs/newer")
    assert "run: runs/newer (the newest)" in notices


# The text and its vocabulary.


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (TEXT.replace("lazy", "azyl"), DataError, "the text has changed"),
        (TEXT[:-1], DataError, "the text has changed"),
        (TEXT + "x", DataError, "the text has changed"),
        ("", NoInputError, "no text"),
        (None, NoInputError, "corpus.txt"),
    ],
)
def test_another_text_is_refused_and_nothing_is_lost(
    stopped: Path, text: str | None, error: type[Exception], said: str
) -> None:
    forget_tokens(stopped)
    (stopped / "corpus.txt").unlink()
    if text is not None:
        (stopped / "corpus.txt").write_text(text)
    before = files(stopped)
    with pytest.raises(error, match=said):
        go_on(stopped)
    assert files(stopped) == before


def test_a_text_with_characters_that_the_vocabulary_lacks_is_refused(stopped: Path) -> None:
    forget_tokens(stopped)
    (stopped / "corpus.txt").write_text(TEXT.replace("q", "Q"))
    with pytest.raises(DataError):
        go_on(stopped)


def test_a_text_that_was_restored_is_gone_on_with(whole: Path, stopped: Path) -> None:
    forget_tokens(stopped)
    (stopped / "corpus.txt").write_text(TEXT[:-1])
    with pytest.raises(DataError):
        go_on(stopped)
    (stopped / "corpus.txt").write_text(TEXT)
    go_on(stopped)
    assert outcome(stopped) == outcome(whole)


def forget_tokens(folder: Path) -> None:
    """The run has to read its text again."""
    (folder / "run" / "tokens.bin").unlink()


def test_the_tokens_of_a_stopped_run_are_used_again_and_its_text_is_not_needed(whole: Path, stopped: Path) -> None:
    (stopped / "corpus.txt").unlink()
    go_on(stopped)
    assert outcome(stopped) == outcome(whole)
    assert not (stopped / "run" / "tokens.bin").exists()


def test_damaged_tokens_are_made_again(whole: Path, stopped: Path) -> None:
    damage(stopped / "run" / "tokens.bin")
    go_on(stopped)
    assert outcome(stopped) == outcome(whole)


def test_another_vocabulary_is_refused(stopped: Path) -> None:
    characters = tuple(sorted(set(TEXT) - {"q"} | {"Q"}))
    save_tokenizer(CharacterTokenizer(Vocabulary(characters)), stopped / "run" / "tokenizer.json")
    with pytest.raises(DataError, match="vocabulary is not the one"):
        go_on(stopped)


def from_standard_input(text: str = TEXT) -> Corpus:
    return open_corpus(["-"], [].append, stdin=io.BytesIO(text.encode()))


def test_a_text_from_standard_input_is_kept_as_tokens_until_the_end(whole: Path, tmp_path: Path) -> None:
    begin(tmp_path, corpus=from_standard_input(), stop=at(30))
    assert (tmp_path / "run" / "tokens.bin").stat().st_size == len(TEXT)
    assert isinstance(go_on(tmp_path, stop=at(50))[-1], RunInterrupted)
    assert (tmp_path / "run" / "tokens.bin").exists()
    go_on(tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_damaged_or_missing_tokens_from_standard_input_are_refused(tmp_path: Path) -> None:
    begin(tmp_path, corpus=from_standard_input(), stop=at(10))
    damage(tmp_path / "run" / "tokens.bin")
    with pytest.raises(DataError, match="standard input"):
        go_on(tmp_path)
    (tmp_path / "run" / "tokens.bin").unlink()
    with pytest.raises(NoInputError, match="standard input"):
        go_on(tmp_path)


# Settings and length.


@pytest.mark.parametrize(
    ("name", "value", "own"),
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
        ("threads", 99, None),
    ],
)
def test_changed_settings_are_refused_with_both_values(
    stopped_once: Path, name: str, value: float, own: str | None
) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is {own or ''}.* in this run, not {value}"):
        go_on(stopped_once, **{name: value})


def test_settings_that_are_the_runs_own_may_be_given(whole: Path, stopped: Path) -> None:
    go_on(stopped, **SMALL, steps=STEPS)
    assert outcome(stopped) == outcome(whole)


def test_a_finished_run_is_left_as_it_is(whole: Path) -> None:
    before = files(whole)
    notices: list[str] = []
    (event,) = go_on(whole, notices=notices)
    assert isinstance(event, RunFinished)
    assert (event.steps, event.stopped_early) == (STEPS, False)
    assert event.best_validation_loss == min(line["validation_loss"] for line in history(whole))
    assert any("is finished" in notice for notice in notices)
    assert files(whole) == before
    assert isinstance(go_on(whole, steps=STEPS)[0], RunFinished)
    assert files(whole) == before


def longer(options: dict[str, float], folder: Path, notices: list[str]) -> list[Event]:
    events = go_on(folder, notices=notices, **options)
    assert any("decay is planned anew" in notice for notice in notices)
    return events


@pytest.mark.parametrize(
    ("options", "steps"), [({"steps": 120}, 120), ({"epochs": 5.0}, round(5 * 0.9 * len(TEXT) / 64))]
)
def test_a_finished_run_is_extended(whole: Path, tmp_path: Path, options: dict[str, float], steps: int) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    events = longer(options, tmp_path, [])
    assert (events[0].step, events[-1].steps) == (STEPS, steps)
    assert outcome(tmp_path)["plan"]["replans"] == [[STEPS, steps]]
    assert history(tmp_path)[: len(history(whole))] == history(whole)
    assert history(tmp_path)[-1]["step"] == steps


def test_an_unfinished_run_is_extended_from_where_it_is(stopped: Path) -> None:
    events = longer({"steps": 120}, stopped, [])
    assert outcome(stopped)["plan"]["replans"] == [[events[0].step, 120]]
    assert events[-1].steps == 120


def test_a_shorter_plan_is_a_new_plan_too(stopped: Path) -> None:
    assert longer({"steps": 80}, stopped, [])[-1].steps == 80


def test_an_extension_outlives_a_kill_before_its_first_checkpoint(stopped: Path, tmp_path: Path) -> None:
    (tmp_path / "twin").mkdir()
    shutil.copytree(stopped, tmp_path / "twin", dirs_exist_ok=True)
    go_on(tmp_path / "twin", steps=120)
    go_on(stopped, "1000", steps=120, kill=begun)
    assert go_on(stopped, "10")[-1].steps == 120
    assert outcome(stopped) == outcome(tmp_path / "twin")


def test_an_extended_finished_run_outlives_a_kill_too(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    go_on(tmp_path, steps=120, kill=begun)
    assert go_on(tmp_path)[-1].steps == 120


def test_before_the_first_checkpoint_the_length_may_change(whole: Path, tmp_path: Path) -> None:
    begin(tmp_path, options={"steps": 500, "dropout": 0.0}, kill=begun)
    go_on(tmp_path, steps=STEPS)
    assert outcome(tmp_path) == outcome(whole)


def test_a_run_is_extended_by_a_budget(stopped: Path) -> None:
    seconds = json.loads((step_directories(stopped / "run")[-1] / "state.json").read_text())["seconds"]
    events = longer({"budget": seconds + 2.5}, stopped, [])
    assert events[0].budget_seconds == seconds + 2.5
    assert events[-1].steps == outcome(stopped)["plan"]["replans"][-1][1]


def test_a_budget_is_enough_for_a_run_of_a_single_step_that_nobody_timed(tmp_path: Path) -> None:
    first = begin(tmp_path, stop=lambda _: True)
    assert first[-1].step == 1
    assert go_on(tmp_path, budget=5.0)[-1].steps > 1


@pytest.mark.parametrize("options", [{"steps": 20}, {"epochs": 1.0}, {"budget": 0.01}])
def test_a_length_that_the_run_has_had_is_refused(stopped: Path, options: dict[str, float]) -> None:
    before = files(stopped)
    with pytest.raises(UsageError, match=r"is no more than this run has had: 6\d steps"):
        go_on(stopped, **options)
    assert files(stopped) == before


def test_a_budget_counts_the_time_of_earlier_parts(tmp_path: Path) -> None:
    hours_ago = time.monotonic() - 7200
    begin(tmp_path, options={"budget": 7200.0}, stop=lambda _: True, started=hours_ago)
    assert go_on(tmp_path)[-1].steps < 100, "the two hours are over, there is no time for more"
    with pytest.raises(UsageError, match=r"72\d\d s"):
        go_on(tmp_path, budget=3600.0)


# The machine.


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: usage)


def test_too_little_disk_space_is_refused_before_anything_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room(monkeypatch)
    for corpus in (None, from_standard_input()):
        with pytest.raises(StorageError, match="make room"):
            begin(tmp_path, corpus=corpus)
        assert not (tmp_path / "run").exists()


def test_too_little_disk_space_is_refused_when_resuming(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room(monkeypatch)
    before = files(stopped)
    with pytest.raises(StorageError, match="make room"):
        go_on(stopped)
    assert files(stopped) == before


def test_a_model_too_large_for_memory_is_refused_before_anything_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memory"):
        begin(tmp_path, options={"hidden_dim": 65536, "num_layers": 64})
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_while_training_costs_nothing_that_was_saved(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = durable._write_new_file

    def write_until_full(path: Path, data: bytes) -> None:
        if path.name == "training.safetensors" and len(step_directories(tmp_path / "run")) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_write_new_file", write_until_full)
        with pytest.raises(StorageError, match="No space left"):
            begin(tmp_path, checkpoint_every="10")
    assert [checkpoint.manifest.step for checkpoint in checkpoints_of(tmp_path / "run")] == [10, 20]
    assert not list((tmp_path / "run").rglob(".quickfox-*"))
    assert go_on(tmp_path)[0].step == 20
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.parametrize(("bad_step", "checkpoint_every", "kept"), [(56, "40", 50), (56, "1", 55), (75, "1000", 50)])
def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad_step: int, checkpoint_every: str, kept: int
) -> None:
    """Whether it is seen by the next step's loss, by the weights to be saved, or by the validation."""
    rate = trainer.learning_rate

    def rate_until_bad(step: int, *plan: Any) -> float:
        return rate(step, *plan) if step < bad_step - 1 else math.nan

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "learning_rate", rate_until_bad)
        with pytest.raises(DivergedError, match=f"step {bad_step}|step {bad_step + 1}"):
            begin(tmp_path, checkpoint_every=checkpoint_every)
    assert checkpoints_of(tmp_path / "run")[-1].manifest.step == kept
    go_on(tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_a_run_that_somebody_else_trains_is_refused(stopped: Path) -> None:
    with run_lock(stopped / "run"), pytest.raises(BusyError, match=str(os.getpid())):
        go_on(stopped)


def test_other_versions_are_said(stopped: Path) -> None:
    record = stopped / "run" / "run.json"
    values = json.loads(record.read_text())
    values["versions"]["tensorflow"] = "1.0"
    record.write_text(json.dumps(values))
    notices: list[str] = []
    go_on(stopped, notices=notices, kill=begun)
    assert any("other versions" in notice for notice in notices)


def test_each_validation_is_told_once_over_all_parts(whole: Path, tmp_path: Path) -> None:
    events = [*begin(tmp_path, stop=at(VALIDATION_INTERVAL)), *go_on(tmp_path, stop=at(60)), *go_on(tmp_path)]
    steps = [event.step for event in events if isinstance(event, Validated)]
    assert steps == [line["step"] for line in history(whole)]
