"""Training as TensorFlow compiles it: the files and events of a whole run, and exact continuation after interruptions.

The rules of starting and resuming are tested with fake training, in the other files of this folder.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from run_driver import SMALL, TEXT, at_step, outcome, read_validations, resume, start

import quickfox
from quickfox.checkpoints.checkpoint import load_model, load_training_state
from quickfox.checkpoints.run_directory import list_checkpoints, sort_by_loss
from quickfox.training.engine.events import Event, RunFinished, RunInterrupted, RunStarted, Validated
from quickfox.training.run.history import read_history

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_epochs")]

DROPOUT = {**SMALL, "window": 4, "num_layers": 2, "dropout": 0.3, "validation_split": 0.5}
LONG_TEXT = TEXT * 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A run that TensorFlow trained until it knows its text, and its events."""
    folder = tmp_path_factory.mktemp("run")
    return folder / "run", start(folder, text=LONG_TEXT, options={"steps": 700, "window": 8, "batch_size": 8})


def test_the_first_event_has_the_settings_and_the_last_the_result(trained: tuple[Path, list[Event]]) -> None:
    directory, events = trained
    first, last = events[0], events[-1]
    assert isinstance(first, RunStarted)
    assert isinstance(last, RunFinished)
    assert first.directory == last.directory == directory
    assert first.training_tokens + first.validation_tokens == len(LONG_TEXT)
    assert (last.steps, last.stopped_early) == (700, False)
    best = min(event.validation_loss for event in events if isinstance(event, Validated))
    assert last.best_validation_loss == best


def test_the_best_and_the_last_two_checkpoints_are_kept(trained: tuple[Path, list[Event]]) -> None:
    directory, events = trained
    validations = [event for event in events if isinstance(event, Validated)]
    best = min(validations, key=lambda event: event.validation_loss)
    kept = [checkpoint.manifest.step for checkpoint in list_checkpoints(directory)]
    assert kept == sorted({best.step, *(event.step for event in validations[-2:])})
    assert events[-1].checkpoint == directory / "checkpoints" / f"step-{best.step:08d}"


def test_history_has_a_line_for_each_validation(trained: tuple[Path, list[Event]]) -> None:
    directory, events = trained
    lines = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    losses = [event.validation_loss for event in events if isinstance(event, Validated)]
    assert [line["validation_loss"] for line in lines if line["event"] == "validation"] == losses


def test_run_json_holds_every_setting(trained: tuple[Path, list[Event]]) -> None:
    directory, _ = trained
    values = json.loads((directory / "run.json").read_text())
    assert values["model"]["hidden_dim"] == 16
    assert values["training"]["random_seed"] == 1
    assert values["corpus"]["characters"] == len(LONG_TEXT)


def test_encoded_tokens_are_removed_at_the_end(trained: tuple[Path, list[Event]]) -> None:
    names = sorted(path.name for path in trained[0].iterdir())
    assert names == ["checkpoints", "history.jsonl", "run.json", "tokenizer.json"]


def test_samples_are_generated_by_the_model(trained: tuple[Path, list[Event]]) -> None:
    samples = [event.samples for event in trained[1] if isinstance(event, Validated)]
    assert all(set(sample.text) <= set(LONG_TEXT) for row in samples for sample in row)
    assert [len(sample.text) for sample in samples[-1]] == [160, 80, 80]
    assert [sample.prompt for sample in samples[0]] == [sample.prompt for sample in samples[-1]]
    assert all(sample.prompt in LONG_TEXT for sample in samples[0])
    assert [validation.samples for validation in read_history(trained[0]).validations] == samples


def test_the_trained_model_continues_its_text(trained: tuple[Path, list[Event]]) -> None:
    model = quickfox.load(trained[0])
    assert model.generate("the quick ", length=33, temperature=0) == "the quick brown fox jumps over the lazy dog"


def test_evaluation_agrees_with_the_validation_loss_of_training(trained: tuple[Path, list[Event]]) -> None:
    held_out = LONG_TEXT[int(len(LONG_TEXT) * 0.9) :]
    model = quickfox.load(trained[0])
    assert model.evaluate(held_out).nats_per_token == pytest.approx(trained[1][-1].best_validation_loss, abs=0.005)


def test_a_checkpoint_holds_the_training_state(trained: tuple[Path, list[Event]]) -> None:
    state = load_training_state(trained[1][-1].checkpoint)
    assert state.tensors["state.0"].shape == (8, 16)
    slots = {"first_moment.embedding.weight", "second_moment.output.bias", "momentum.recurrent.0.input_kernel"}
    assert slots <= state.tensors.keys()
    assert state.state["total_steps"] == 700


def test_a_pretrained_model_learns_another_text_faster(trained: tuple[Path, list[Event]], tmp_path: Path) -> None:
    """After an epoch its network has a lower loss than a random one, although the text has new characters."""
    text, settings = "THE lazy fox, the quick dog!\n" * 60, {**SMALL, "window": 8, "steps": 60}
    random_start, pretrained_start = tmp_path / "random", tmp_path / "pretrained"
    start(random_start, text=text, settings=settings)
    start(pretrained_start, text=text, settings=settings, init_from=trained[0])
    first_losses = [read_validations(folder)[0]["network_loss"] for folder in (pretrained_start, random_start)]
    assert first_losses[0] < first_losses[1]
    assert quickfox.load(pretrained_start / "run").generate("THE", length=5)


def test_frozen_embeddings_are_not_trained(trained: tuple[Path, list[Event]], tmp_path: Path) -> None:
    options = {"freeze_embeddings": True, "steps": 20}
    start(tmp_path, text=TEXT[:1500], settings={**SMALL, "window": 8}, options=options, init_from=trained[0])
    before, after = (
        load_model(sort_by_loss(list_checkpoints(run))[0].directory) for run in (trained[0], tmp_path / "run")
    )
    np.testing.assert_array_equal(after.parameters["embedding.weight"], before.parameters["embedding.weight"])
    assert (after.parameters["output.kernel"] != before.parameters["output.kernel"]).any()


def test_interrupted_training_continues_bit_for_bit(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(whole, settings=DROPOUT)
    assert isinstance(start(parts, settings=DROPOUT, checkpoint_every="20", stop=at_step(33))[-1], RunInterrupted)
    killed = resume(parts, kill=at_step(61))
    restarted = resume(parts)
    assert 0 < restarted[0].step <= killed[-1].step
    assert isinstance(restarted[-1], RunFinished)
    assert outcome(parts) == outcome(whole)


def test_a_run_under_a_budget_is_repeated_bit_for_bit_from_its_record(tmp_path: Path) -> None:
    first, repeated = tmp_path / "first", tmp_path / "repeated"
    last = start(first, settings=DROPOUT, options={"budget": 3.0})[-1]
    expected = outcome(first)
    assert expected["plan"]["replans"]
    replan_step, _ = expected["plan"]["replans"][0]
    record = first / "run" / "run.json"
    start(repeated, config_from=record, settings={"threads": 2}, stop=at_step(replan_step))
    assert resume(repeated)[-1].steps == last.steps
    assert outcome(repeated) == expected
