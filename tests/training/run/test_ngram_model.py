"""A run of an n-gram model alone: its events and files, without TensorFlow, and its interruptions."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from run_driver import (
    NGRAM_ALONE,
    TEXT,
    collect_events,
    is_start,
    outcome,
    read_files,
    read_history,
    resume,
    standard_input,
    start_ngram_model,
    with_tables,
)

import quickfox
from faults import states_at_kills, visible
from quickfox.checkpoints.checkpoint import load_model, load_training_state
from quickfox.checkpoints.run_directory import list_checkpoint_directories
from quickfox.config.training import TrainingRequest
from quickfox.errors import DataError, NoInputError, QuickfoxError
from quickfox.files import atomic
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.text.corpus import open_corpus
from quickfox.training.engine.events import (
    Event,
    NgramsEstimated,
    RunFinished,
    RunInterrupted,
    RunRequest,
    RunStarted,
    StepsCompleted,
    Validated,
)
from quickfox.training.planning.ngrams import MAX_NGRAMS
from quickfox.training.run.start import start_run

TRAINING_TOKENS = round(len(TEXT) * 0.9)


def test_a_start_killed_at_any_system_call_can_be_started_again_or_resumed(tmp_path: Path) -> None:
    """At its end the run directory is as if the start had not been killed."""
    whole = tmp_path / "whole"
    whole.mkdir()
    states = states_at_kills(whole, tmp_path, lambda: start_ngram_model(whole))
    has_record = [(folder / "run" / "run.json").exists() for folder in states]
    assert (has_record.count(False) > 5, has_record.count(True) > 5) == (True, True)
    for folder, is_resumable in zip(states, has_record, strict=True):
        (resume if is_resumable else start_ngram_model)(folder)
        assert sorted(visible(folder / "run")) == sorted(visible(whole / "run"))


# Events and files -----------------------------------------------------------------------------------------


def test_the_events_of_a_run(tmp_path: Path) -> None:
    started, report, validated, completed, finished = start_ngram_model(tmp_path)
    assert isinstance(started, RunStarted)
    assert (started.model.architecture, started.parameters, started.step, started.workers) == ("ngram", 0, 0, 1)
    assert (started.training_tokens, started.validation_tokens) == (TRAINING_TOKENS, len(TEXT) - TRAINING_TOKENS)
    assert isinstance(report, NgramsEstimated)
    assert len(report.ngrams) == started.training.ngram_order >= 2
    assert isinstance(validated, Validated)
    assert [len(sample.text) for sample in validated.samples] == [160, 80, 80]
    assert all(set(sample.text) <= set(TEXT) for sample in validated.samples)
    assert isinstance(completed, StepsCompleted)
    assert isinstance(finished, RunFinished)
    assert (finished.epochs, finished.steps, finished.tokens) == (1.0, 1, TRAINING_TOKENS)
    assert (finished.train_loss, finished.network_loss, finished.parameters) == (None, None, 0)
    assert finished.validation_loss == finished.best_validation_loss == report.loss == validated.validation_loss
    assert finished.tokens_per_second == pytest.approx(TRAINING_TOKENS / report.seconds)
    assert (finished.stopped_early, finished.workers) == (False, 1)


def test_the_files_of_a_run(uninterrupted_ngram_model: Path) -> None:
    run = uninterrupted_ngram_model / "run"
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "history.jsonl", "run.json", "tokenizer.json"]
    (checkpoint,) = list_checkpoint_directories(run)
    assert checkpoint.name == "step-00000001"
    model = load_model(checkpoint)
    ids = model.tokenizer.encode(TEXT[:TRAINING_TOKENS])
    order = json.loads((run / "run.json").read_text())["training"]["ngram_order"]
    expected = estimate_ngrams(ids, model.config.vocabulary_size, order, MAX_NGRAMS)
    assert model.config.ngrams == expected.ngrams
    assert list(model.parameters) == list(expected.tensors)
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(model.parameters[name], tensor)
    assert load_training_state(checkpoint).tensors == {}
    (line,) = read_history(uninterrupted_ngram_model)
    assert (line["event"], line["step"], line["epoch"]) == ("validation", 1, 1.0)
    assert (line["validation_loss"], line["network_loss"], line["train_loss"]) == (model.validation_loss, None, None)


def test_the_model_continues_its_text_and_its_loss_is_that_of_evaluation(uninterrupted_ngram_model: Path) -> None:
    model = quickfox.load(uninterrupted_ngram_model / "run")
    assert model.generate("the quick ", length=33, temperature=0) == "the quick brown fox jumps over the lazy dog"
    (line,) = read_history(uninterrupted_ngram_model)
    assert model.evaluate(TEXT[TRAINING_TOKENS:]).nats_per_token == pytest.approx(line["validation_loss"], abs=1e-4)


def test_the_same_text_gives_the_same_files(uninterrupted_ngram_model: Path, tmp_path: Path) -> None:
    """On other numbers of threads and with other random seeds too."""
    start_ngram_model(tmp_path, options={"threads": 1, "random_seed": 7})
    assert outcome(tmp_path)["model"] == outcome(uninterrupted_ngram_model)["model"]


def test_without_held_out_text_there_is_no_loss(tmp_path: Path) -> None:
    finished = start_ngram_model(tmp_path, options={"validation_split": 0.0})[-1]
    assert isinstance(finished, RunFinished)
    assert (finished.validation_loss, finished.best_validation_loss, finished.train_loss) == (None, None, None)
    assert finished.tokens == len(TEXT)
    assert finished.checkpoint.name == "step-00000001"


@pytest.mark.parametrize(("text", "order"), [("abc", 2), ("aaaa", 3), ("x" * 1000, 10)])
def test_the_shortest_and_most_regular_texts_train(tmp_path: Path, text: str, order: int) -> None:
    start_ngram_model(tmp_path, text=text)
    model = load_model(list_checkpoint_directories(tmp_path / "run")[-1])
    assert len(model.config.ngrams) == order
    assert len(quickfox.load(tmp_path / "run").generate("a" if "a" in text else "x", length=5)) == 6


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [("ab", DataError, "2 characters, but an n-gram model needs at least 3: add text"), ("", NoInputError, "no text")],
)
def test_texts_that_are_too_short_are_refused_and_leave_no_files(
    tmp_path: Path, text: str, error: type[QuickfoxError], message: str
) -> None:
    with pytest.raises(error, match=message):
        start_ngram_model(tmp_path, text=text)
    assert not (tmp_path / "run").exists()


def test_documents_are_validated_on_their_completions(tmp_path: Path) -> None:
    """The prompts are random."""
    random = np.random.default_rng(0)
    prompts = ["".join(random.choice(list("abcdefgh"), 9)) for _ in range(60)]
    (tmp_path / "pairs.jsonl").write_text(
        "\n".join(json.dumps({"prompt": prompt + "?", "completion": "yes"}) for prompt in prompts)
    )
    events = start_ngram_model(tmp_path, corpus=open_corpus([str(tmp_path / "pairs.jsonl")], [].append))
    (validated,) = (event for event in events if isinstance(event, Validated))
    assert validated.validation_loss is not None
    assert validated.validation_loss < 0.1


def test_a_run_from_start_to_end_does_not_import_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_text(TEXT)
    program = """
import sys, quickfox
from quickfox.errors import UsageError
model = quickfox.train("fox.txt", architecture="ngram", output="run")
assert model.generate("the quick ", length=5, temperature=0) == "the quick brown"
assert model.evaluate("the lazy dog").nats_per_token < 1.0
quickfox.resume("run")
print("tensorflow" in sys.modules, "quickfox.training.engine.ngram_trainer" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "False True\n"


def test_the_clock_of_a_run_includes_the_time_before_it(tmp_path: Path) -> None:
    events = collect_events(
        lambda run_context: start_run(
            standard_input(),
            "corpus",
            RunRequest(training=TrainingRequest(**NGRAM_ALONE), output=tmp_path / "run"),
            run_context,
        ),
        seconds_ago=1000.0,
    )
    (validated,) = (event for event in events if isinstance(event, Validated))
    assert validated.seconds > 1000.0


# Interruptions --------------------------------------------------------------------------------------------


def test_a_run_stopped_while_it_counts_starts_again(
    uninterrupted_ngram_model: Path, tmp_path: Path, held_back: threading.Event
) -> None:
    interrupted = start_ngram_model(tmp_path, stop=is_start)[-1]
    assert isinstance(interrupted, RunInterrupted)
    assert interrupted.step == 0
    assert list_checkpoint_directories(tmp_path / "run") == []
    held_back.set()
    notices: list[str] = []
    events = resume(tmp_path, notices=notices)
    assert any("no checkpoint was committed yet; starting at step 0" in notice for notice in notices)
    assert [type(event) for event in events] == [RunStarted, NgramsEstimated, Validated, StepsCompleted, RunFinished]
    assert outcome(tmp_path) == outcome(uninterrupted_ngram_model)


@pytest.mark.parametrize("kill", [is_start, with_tables])
def test_a_run_killed_before_its_checkpoint_counts_again(
    uninterrupted_ngram_model: Path, tmp_path: Path, kill: Callable[[Event], bool]
) -> None:
    start_ngram_model(tmp_path, kill=kill)
    assert list_checkpoint_directories(tmp_path / "run") == []
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted_ngram_model)


def test_a_run_whose_checkpoint_failed_counts_again(
    uninterrupted_ngram_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its history then has a line without a checkpoint."""

    write = atomic._write

    def write_until_tensors(path: Path, flags: int, data: bytes) -> None:
        if path.name == "model.safetensors":
            raise KeyboardInterrupt
        write(path, flags, data)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", write_until_tensors)
        with pytest.raises(KeyboardInterrupt):
            start_ngram_model(tmp_path)
    assert len(read_history(tmp_path)) == 1
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted_ngram_model)


def test_a_run_killed_after_its_checkpoint_is_finished(tmp_path: Path) -> None:
    start_ngram_model(tmp_path, kill=lambda event: isinstance(event, Validated))
    (event,) = resume(tmp_path)
    assert isinstance(event, RunFinished)


def test_a_stop_request_after_the_tables_does_not_undo_the_run(tmp_path: Path) -> None:
    assert isinstance(start_ngram_model(tmp_path, stop=with_tables)[-1], RunFinished)


def test_a_finished_run_is_not_changed(uninterrupted_ngram_model: Path) -> None:
    before = read_files(uninterrupted_ngram_model)
    notices: list[str] = []
    (event,) = resume(uninterrupted_ngram_model, notices=notices)
    assert isinstance(event, RunFinished)
    assert (event.steps, event.epochs, event.train_loss, event.stopped_early) == (1, 1.0, None, False)
    assert event.best_validation_loss == read_history(uninterrupted_ngram_model)[0]["validation_loss"]
    assert any("is finished" in notice for notice in notices)
    assert read_files(uninterrupted_ngram_model) == before


def test_standard_input_is_counted_again_from_its_tokens(uninterrupted_ngram_model: Path, tmp_path: Path) -> None:
    start_ngram_model(tmp_path, corpus=standard_input(), kill=is_start)
    assert (tmp_path / "run" / "tokens.bin").exists()
    resume(tmp_path)
    assert outcome(tmp_path)["model"] == outcome(uninterrupted_ngram_model)["model"]
    assert not (tmp_path / "run" / "tokens.bin").exists()
