"""A run of a network mixed with n-grams: which checkpoints have the tables, and that interruptions do not matter."""

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_driver import (
    SMALL,
    STEPS,
    TEXT,
    VALIDATION_INTERVAL,
    at_step,
    is_start,
    outcome,
    read_validations,
    resume,
    sha256,
    start,
    with_tables,
)

import quickfox
from quickfox.checkpoints.checkpoint import ModelBundle, load_model
from quickfox.checkpoints.run_directory import list_checkpoint_directories
from quickfox.config.model import DEFAULT_EXPONENTS
from quickfox.errors import UsageError
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.training.engine import trainer
from quickfox.training.engine.events import (
    Event,
    NgramsEstimated,
    RunInterrupted,
    StepsCompleted,
    Validated,
    WaitingForNgrams,
)
from quickfox.training.planning import ngrams
from quickfox.training.planning.ngrams import MAX_NGRAMS

pytestmark = pytest.mark.usefixtures("fake_training")

TRAINING_TEXT = TEXT[: round(len(TEXT) * 0.9)]


def last_checkpoint(folder: Path) -> Path:
    return list_checkpoint_directories(folder / "run")[-1]


def models(folder: Path) -> list[ModelBundle]:
    """The models of all checkpoints, in order of the step."""
    return [load_model(directory) for directory in list_checkpoint_directories(folder / "run")]


def reports(events: Iterable[Event]) -> list[NgramsEstimated]:
    return [event for event in events if isinstance(event, NgramsEstimated)]


def assert_same_files(folder: Path, expected: Path) -> None:
    """The same last checkpoint byte for byte, and the same history."""
    assert outcome(folder) == outcome(expected)
    for name in ("config.json", "model.safetensors", "training.safetensors"):
        assert (last_checkpoint(folder) / name).read_bytes() == (last_checkpoint(expected) / name).read_bytes()


@pytest.mark.parametrize("order", [1, 3])
def test_the_tables_are_those_of_the_training_text(tmp_path: Path, order: int) -> None:
    events = start(tmp_path, options={"steps": 2, "ngram": order})
    (model,) = models(tmp_path)
    ids = model.tokenizer.encode(TRAINING_TEXT)
    expected = estimate_ngrams(ids, model.config.vocabulary_size, order, MAX_NGRAMS)
    assert model.config.ngrams == expected.ngrams
    assert model.config.exponents != DEFAULT_EXPONENTS  # fitted in the validation
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(model.parameters[name], tensor)
    (report,) = reports(events)
    assert report.ngrams == expected.ngrams
    assert report.counted_tokens == report.training_tokens == len(TRAINING_TEXT)


def test_the_default_order_depends_on_the_text_and_is_recorded(uninterrupted: Path) -> None:
    record = json.loads((uninterrupted / "run" / "run.json").read_text())
    assert record["training"]["ngram_order"] == len(models(uninterrupted)[-1].config.ngrams) >= 2
    assert record["model"]["ngrams"] == []  # known only after the start


def test_the_events_and_the_history_have_both_losses(tmp_path: Path) -> None:
    events = start(tmp_path)
    validations = [event for event in events if isinstance(event, Validated)]
    (report,) = reports(events)
    assert events.index(report) < events.index(validations[0])
    lines = read_validations(tmp_path)
    for name in ("validation_loss", "network_loss"):
        losses = [getattr(event, name) for event in validations]
        assert None not in losses
        assert [line[name] for line in lines] == losses
    manifest = json.loads((events[-1].checkpoint / "manifest.json").read_text())
    best = min(validations, key=lambda event: event.validation_loss)
    assert (manifest["validation_loss"], manifest["network_loss"]) == (best.validation_loss, best.network_loss)
    assert (events[-1].best_validation_loss, events[-1].network_loss) == (best.validation_loss, best.network_loss)


def test_the_model_of_a_run_is_the_mixture(tmp_path: Path) -> None:
    finished = start(tmp_path, options={"learning_rate": 1e-9})[-1]  # the fake network learns nothing
    model = quickfox.load(tmp_path / "run")
    assert model.generate("the quick ", length=20, temperature=0) == "the quick brown fox jumps over"
    assert finished.parameters == sum(
        tensor.size for name, tensor in models(tmp_path)[-1].parameters.items() if not name.startswith("ngram.")
    )


# Checkpoints before the tables are ready ------------------------------------------------------------------


def test_a_run_stopped_while_its_validation_waits_for_the_tables_begins_with_it(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_back: threading.Event
) -> None:
    monkeypatch.setattr(trainer, "POLLING_SECONDS", 0.01)
    events = start(tmp_path, stop=lambda event: isinstance(event, WaitingForNgrams))
    assert [type(event) for event in events[-2:]] == [WaitingForNgrams, RunInterrupted]
    assert [event.step for event in events[-2:]] == [VALIDATION_INTERVAL] * 2
    (model,) = models(tmp_path)
    assert model.config.ngrams == ()
    held_back.set()
    resume(tmp_path)
    assert_same_files(tmp_path, uninterrupted)


def test_a_run_stopped_before_its_tables_are_ready_estimates_them_again(
    uninterrupted: Path, tmp_path: Path, held_back: threading.Event
) -> None:
    events = start(tmp_path, stop=at_step(12))
    assert isinstance(events[-1], RunInterrupted)
    assert 12 <= events[-1].step < VALIDATION_INTERVAL
    assert reports(events) == []
    (model,) = models(tmp_path)
    assert model.config.ngrams == ()
    assert not [name for name in model.parameters if name.startswith("ngram.")]
    assert quickfox.load(last_checkpoint(tmp_path)).generate("the", length=5)
    held_back.set()
    resumed = resume(tmp_path)
    assert len(reports(resumed)) == 1
    assert resumed[0].step == events[-1].step
    assert_same_files(tmp_path, uninterrupted)


def test_a_run_stopped_twice_before_its_tables_are_ready(
    uninterrupted: Path, tmp_path: Path, held_back: threading.Event
) -> None:
    start(tmp_path, stop=at_step(3))
    assert isinstance(resume(tmp_path, stop=at_step(15))[-1], RunInterrupted)
    assert models(tmp_path)[-1].config.ngrams == ()
    held_back.set()
    resume(tmp_path)
    assert_same_files(tmp_path, uninterrupted)


def test_a_run_killed_before_its_tables_are_ready_estimates_them_again(
    uninterrupted: Path, tmp_path: Path, held_back: threading.Event
) -> None:
    start(tmp_path, kill=at_step(12), checkpoint_every="5")
    assert [model.config.ngrams for model in models(tmp_path)] == [(), ()]
    held_back.set()
    assert len(reports(resume(tmp_path))) == 1
    assert_same_files(tmp_path, uninterrupted)


@pytest.mark.parametrize("step", [VALIDATION_INTERVAL, 60])
def test_a_run_stopped_after_its_tables_are_ready_keeps_them(uninterrupted: Path, tmp_path: Path, step: int) -> None:
    assert len(reports(start(tmp_path, stop=at_step(step)))) == 1
    assert models(tmp_path)[-1].config.ngrams == models(uninterrupted)[-1].config.ngrams
    assert reports(resume(tmp_path)) == []
    assert_same_files(tmp_path, uninterrupted)


def test_a_run_killed_after_its_tables_are_reported_reports_them_again(uninterrupted: Path, tmp_path: Path) -> None:
    """Unless a checkpoint has them."""
    start(tmp_path, kill=with_tables, checkpoint_every="1000")
    assert models(tmp_path) == []
    assert len(reports(resume(tmp_path, kill=at_step(60)))) == 1
    assert reports(resume(tmp_path)) == []
    assert_same_files(tmp_path, uninterrupted)


def test_a_checkpoint_has_tables_from_their_event_on(tmp_path: Path, held_back: threading.Event) -> None:
    has_tables: dict[int, bool] = {}  # by step; a call may make several
    events = []

    def inspect(event: Event) -> bool:
        events.append(event)
        if isinstance(event, StepsCompleted):
            config = json.loads((last_checkpoint(tmp_path) / "config.json").read_text())
            has_tables[event.step] = bool(config["ngrams"])
            assert has_tables[event.step] == (len(reports(events)) == 1)
        if isinstance(event, StepsCompleted) and event.step >= 10:
            held_back.set()
        return False

    start(tmp_path, checkpoint_every="1", kill=inspect)
    assert list(has_tables.values()) == sorted(has_tables.values())
    assert not any(has for step, has in has_tables.items() if step <= 10)
    assert all(has for step, has in has_tables.items() if step >= VALIDATION_INTERVAL)
    assert has_tables[STEPS]


# Runs without tables --------------------------------------------------------------------------------------


def test_without_n_grams_the_network_is_the_same_and_there_are_no_tables(uninterrupted: Path, tmp_path: Path) -> None:
    events = start(tmp_path, options={"ngram": "off"})
    assert reports(events) == []
    without, mixed = models(tmp_path)[-1], models(uninterrupted)[-1]
    assert without.config.ngrams == ()
    assert without.parameters.keys() == {name for name in mixed.parameters if not name.startswith("ngram.")}
    for name, tensor in without.parameters.items():
        np.testing.assert_array_equal(tensor, mixed.parameters[name])
    files = [last_checkpoint(folder) / "training.safetensors" for folder in (tmp_path, uninterrupted)]
    assert sha256(files[0]) == sha256(files[1])
    lines, mixed_lines = read_validations(tmp_path), read_validations(uninterrupted)
    assert [line["validation_loss"] for line in lines] == [line["network_loss"] for line in mixed_lines]
    assert [line["train_loss"] for line in lines] == [line["train_loss"] for line in mixed_lines]
    assert all(line["network_loss"] is None for line in lines)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["training"]["ngram_order"] == 0


def test_a_run_without_n_grams_continues_without_them(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(whole, options={"ngram": "off"})
    start(parts, options={"ngram": "off"}, stop=at_step(40))
    assert reports(resume(parts)) == []
    assert_same_files(parts, whole)


def test_an_order_above_the_length_of_the_text_is_refused_and_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ngram 16 is more than the 15 training tokens"):
        start(tmp_path, text="abcdefgh" * 2 + "a", options={"window": 4, "ngram": 16})
    assert not (tmp_path / "run").exists()


# Settings and weights of another run ----------------------------------------------------------------------


@pytest.mark.parametrize("ngram", ["off", 2])
def test_a_repeated_run_has_the_order_of_its_record(tmp_path: Path, ngram: Any) -> None:
    first, again, other = tmp_path / "first", tmp_path / "again", tmp_path / "other"
    start(first, options={"ngram": ngram})
    start(again, config_from=first / "run", settings={})
    assert_same_files(again, first)
    start(other, config_from=first / "run", settings={}, options={"ngram": 4, "steps": 2})
    assert len(models(other)[-1].config.ngrams) == 4


def test_a_repeated_run_counts_the_part_of_the_text_that_the_budget_of_the_first_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngrams, "COUNTED_TOKENS_PER_SECOND", 200)
    budgeted, again, whole = tmp_path / "budgeted", tmp_path / "again", tmp_path / "whole"
    start(budgeted, options={"ngram": 3, "budget": 3.0})
    start(again, config_from=budgeted / "run", settings={})
    start(whole, options={"ngram": 3})
    part, repeated, all_ngrams = (models(folder)[-1].config.ngrams for folder in (budgeted, again, whole))
    assert part == repeated != all_ngrams


def test_a_pretrained_mixture_provides_the_network_and_the_text_the_tables(uninterrupted: Path, tmp_path: Path) -> None:
    text = "THE lazy fox, the quick dog!\n" * 60
    settings = {name: value for name, value in SMALL.items() if name not in ("hidden_dim", "embedding_dim")}
    start(
        tmp_path,
        text=text,
        settings=settings,
        options={"steps": 1, "ngram": 3, "learning_rate": 1e-9, "validation_split": 0.0},
        init_from=uninterrupted / "run",
    )
    model = models(tmp_path)[-1]
    expected = estimate_ngrams(model.tokenizer.encode(text), model.config.vocabulary_size, 3, MAX_NGRAMS)
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(model.parameters[name], tensor)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    pretrained = load_model(Path(record["init_from"]["directory"]))
    assert pretrained.config.ngrams
    kernel = "recurrent.0.recurrent_kernel"
    np.testing.assert_allclose(model.parameters[kernel], pretrained.parameters[kernel], atol=1e-6)


def test_a_run_that_is_killed_at_its_start_ends_like_an_uninterrupted_one(
    uninterrupted: Path, tmp_path: Path, held_back: threading.Event
) -> None:
    start(tmp_path, kill=is_start)
    held_back.set()
    resume(tmp_path)
    assert_same_files(tmp_path, uninterrupted)
