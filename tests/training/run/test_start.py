"""A whole run on a small text: what it leaves on disk, and what it refuses before anything is there."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

import quickfox
from quickfox.checkpoints.checkpoint import load_training_state
from quickfox.checkpoints.run_directory import checkpoints_of
from quickfox.config.training import TrainingRequest
from quickfox.errors import CannotCreateError, DataError, NoInputError
from quickfox.text.corpus import open_corpus
from quickfox.text.vocabulary import build_vocabulary, count_characters
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import save_tokenizer
from quickfox.training.engine.events import Event, RunContext, RunFinished, RunStarted, Validated
from quickfox.training.run.start import start_run

TEXT = "the quick brown fox jumps over the lazy dog\n" * 120
SMALL: dict[str, Any] = {"hidden_dim": 16, "embedding_dim": 4, "batch_size": 4, "window": 16, "random_seed": 1}


def run(tmp_path: Path, text: str = TEXT, vocabulary_path: Path | None = None, **options: Any) -> list[Event]:
    source = tmp_path / "corpus.txt"
    source.write_text(text, encoding="utf-8")
    request = TrainingRequest(**{**SMALL, "steps": 500, **options})
    notices: list[str] = []
    return list(
        start_run(
            open_corpus([str(source)], notices.append),
            request,
            output=tmp_path / "run",
            vocabulary_path=vocabulary_path,
            name="corpus",
            run_context=RunContext(notify=notices.append, started=time.monotonic()),
        )
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    folder = tmp_path_factory.mktemp("run")
    return folder / "run", run(folder)


def test_events_begin_with_the_settings_and_end_with_the_result(finished: tuple[Path, list[Event]]) -> None:
    directory, events = finished
    first, last = events[0], events[-1]
    assert isinstance(first, RunStarted)
    assert isinstance(last, RunFinished)
    assert first.directory == last.run == directory
    assert first.training_tokens + first.validation_tokens == len(TEXT)
    assert (last.steps, last.stopped_early) == (500, False)
    best = min(event.validation_loss for event in events if isinstance(event, Validated))
    assert last.best_validation_loss == best


def test_the_best_and_the_last_two_checkpoints_are_kept(finished: tuple[Path, list[Event]]) -> None:
    directory, events = finished
    validations = [event for event in events if isinstance(event, Validated)]
    best = min(validations, key=lambda event: event.validation_loss)
    kept = [checkpoint.manifest.step for checkpoint in checkpoints_of(directory)]
    assert kept == sorted({best.step, *(event.step for event in validations[-2:])})
    assert events[-1].checkpoint == directory / "checkpoints" / f"step-{best.step:08d}"


def test_history_has_a_line_for_each_validation(finished: tuple[Path, list[Event]]) -> None:
    directory, events = finished
    lines = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    losses = [event.validation_loss for event in events if isinstance(event, Validated)]
    assert [line["validation_loss"] for line in lines if line["event"] == "validation"] == losses


def test_run_json_holds_every_setting(finished: tuple[Path, list[Event]]) -> None:
    directory, _ = finished
    values = json.loads((directory / "run.json").read_text())
    assert values["model"]["hidden_dim"] == 16
    assert values["training"]["random_seed"] == 1
    assert values["corpus"]["characters"] == len(TEXT)


def test_encoded_tokens_are_removed_at_the_end(finished: tuple[Path, list[Event]]) -> None:
    assert sorted(path.name for path in finished[0].iterdir()) == [
        "checkpoints",
        "history.jsonl",
        "run.json",
        "tokenizer.json",
    ]


def test_samples_are_the_models_own_text(finished: tuple[Path, list[Event]]) -> None:
    samples = [event.sample for event in finished[1] if isinstance(event, Validated)]
    assert all(set(sample) <= set(TEXT) for sample in samples)
    assert len(samples[-1]) == 160


def test_the_trained_model_knows_its_text(finished: tuple[Path, list[Event]]) -> None:
    model = quickfox.load(finished[0])
    assert model.generate("the quick ", length=33, temperature=0) == "the quick brown fox jumps over the lazy dog"


def test_evaluating_agrees_with_the_validation_while_training(finished: tuple[Path, list[Event]]) -> None:
    held_out = TEXT[int(len(TEXT) * 0.9) :]
    model = quickfox.load(finished[0])
    assert model.evaluate(held_out).nats_per_token == pytest.approx(finished[1][-1].best_validation_loss, abs=0.005)


def test_a_checkpoint_holds_what_resuming_needs(finished: tuple[Path, list[Event]]) -> None:
    state = load_training_state(finished[1][-1].checkpoint)
    assert state.tensors["state.0"].shape == (4, 16)
    slots = {"first_moment.embedding.weight", "second_moment.output.bias", "momentum.recurrent.0.input_kernel"}
    assert slots <= state.tensors.keys()
    assert state.state["total_steps"] == 500


def test_a_budget_is_kept_and_its_corrections_recorded(tmp_path: Path) -> None:
    events = run(tmp_path, steps=None, budget=4.0)
    history = (tmp_path / "run" / "history.jsonl").read_text()
    plans = [json.loads(line) for line in history.splitlines() if '"replan"' in line]
    assert plans
    assert events[-1].steps == plans[-1]["total_steps"]


def test_without_a_held_out_text_the_last_checkpoint_is_the_best(tmp_path: Path) -> None:
    last = run(tmp_path, steps=30, validation_split=0.0)[-1]
    assert (last.validation_loss, last.best_validation_loss) == (None, None)
    assert last.checkpoint.name == "step-00000030"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [("too short", DataError, "at least 19"), ("x" * 18, DataError, "18 characters"), ("", NoInputError, "no text")],
)
def test_texts_that_are_too_short_are_refused_before_anything_is_made(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path, text)
    assert not (tmp_path / "run").exists()


def test_the_shortest_text_that_is_accepted_trains(tmp_path: Path) -> None:
    assert run(tmp_path, "ab" * 9 + "a", steps=2)[-1].steps == 2


def save_vocabulary(tmp_path: Path, text: str, min_count: int = 1) -> Path:
    path = tmp_path / "vocab.json"
    save_tokenizer(CharacterTokenizer(build_vocabulary(count_characters([text]), min_count)), path)
    return path


def test_a_vocabulary_that_lacks_characters_is_refused(tmp_path: Path) -> None:
    vocabulary = save_vocabulary(tmp_path, TEXT.replace("q", ""))
    with pytest.raises(DataError, match=re.escape("'q' (U+0071)")):
        run(tmp_path, vocabulary_path=vocabulary)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_that_leaves_rare_characters_out_is_used(tmp_path: Path) -> None:
    text = TEXT + "Q"
    events = run(tmp_path, text, save_vocabulary(tmp_path, text, min_count=2), steps=2)
    assert events[0].training_tokens + events[0].validation_tokens == len(TEXT)


def test_an_output_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep me")
    with pytest.raises(CannotCreateError):
        run(tmp_path)
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep me"
