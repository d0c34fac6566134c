"""A new run: its length, its vocabulary, what is refused before files are made, and the record to repeat it from."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_driver import SMALL, STEPS, TEXT, at_step, outcome, resume, standard_input, start

from quickfox.errors import CannotCreateError, DataError, NoInputError, StorageError, UsageError
from quickfox.text.corpus import open_corpus
from quickfox.text.vocabulary import build_vocabulary, count_characters
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import save_tokenizer
from quickfox.training.planning import cost
from quickfox.training.run import start as start_module

pytestmark = pytest.mark.usefixtures("fake_training")


def test_a_budget_corrects_the_number_of_steps_and_records_it(tmp_path: Path) -> None:
    events = start(tmp_path, options={"budget": 20.0})
    history = (tmp_path / "run" / "history.jsonl").read_text()
    plans = [json.loads(line) for line in history.splitlines() if '"replan"' in line]
    assert plans
    assert events[-1].steps == plans[-1]["total_steps"]


def test_without_held_out_text_the_last_checkpoint_is_the_best(tmp_path: Path) -> None:
    last = start(tmp_path, options={"steps": 30, "validation_split": 0.0})[-1]
    assert (last.validation_loss, last.best_validation_loss) == (None, None)
    assert last.checkpoint.name == "step-00000030"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [("too short", DataError, "at least 19"), ("x" * 18, DataError, "18 characters"), ("", NoInputError, "no text")],
)
def test_texts_that_are_too_short_are_refused_and_leave_no_files(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        start(tmp_path, text=text)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"validation_split": 0.0}, {"validation_split": 0.0, "budget": 5.0}])
def test_patience_without_a_validation_text_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="patience needs a loss on held-out text"):
        start(tmp_path, options={"patience": 2, **options})
    assert not (tmp_path / "run").exists()


def test_patience_ends_a_run_whose_loss_does_not_improve(tmp_path: Path) -> None:
    validations = open_corpus([str(Path(__file__))], pytest.fail)
    for folder, validation in (("split", None), ("text", validations)):
        last = start(tmp_path / folder, options={"patience": 1}, validation=validation)[-1]
        assert (last.stopped_early, last.steps < STEPS) == (True, True)


def test_threads_beyond_the_processors_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_module, "total_threads", lambda _: 1)
    notices: list[str] = []
    start(tmp_path, options={"threads": 2, "steps": 2}, notices=notices)
    assert "warning: 2 threads, but only 1 available: the plan expects the speed of 1" in notices


def test_the_shortest_accepted_text_trains(tmp_path: Path) -> None:
    assert start(tmp_path, text="ab" * 9 + "a", options={"steps": 2})[-1].steps == 2


def save_vocabulary(folder: Path, text: str, min_count: int = 1) -> Path:
    path = folder / "vocab.json"
    save_tokenizer(CharacterTokenizer(build_vocabulary(count_characters([text]), min_count)), path)
    return path


def test_a_vocabulary_that_lacks_characters_is_refused(tmp_path: Path) -> None:
    vocabulary = save_vocabulary(tmp_path, TEXT.replace("q", ""))
    with pytest.raises(DataError, match=re.escape("'q' (U+0071)")):
        start(tmp_path, vocabulary_path=vocabulary)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_without_rare_characters_is_accepted(tmp_path: Path) -> None:
    """They become the unknown token."""
    text, notices = "Q" + TEXT, list[str]()
    vocabulary = save_vocabulary(tmp_path, text, 2)
    events = start(tmp_path, text=text, vocabulary_path=vocabulary, options={"steps": 2}, notices=notices)
    assert events[0].training_tokens + events[0].validation_tokens == len(text)
    assert "1 characters of the corpus are too rare for the vocabulary: 'Q' (U+0051)" in notices


def test_an_output_directory_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep me")
    with pytest.raises(CannotCreateError):
        start(tmp_path)
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep me"


def test_too_little_disk_space_is_refused_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(cost.shutil, "disk_usage", lambda _: usage)
    for corpus in (None, standard_input()):
        with pytest.raises(StorageError):
            start(tmp_path, corpus=corpus)
        assert not (tmp_path / "run").exists()


def test_a_model_too_large_for_memory_is_refused_and_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memory"):
        start(tmp_path, options={"hidden_dim": 65536, "num_layers": 64})
    assert not (tmp_path / "run").exists()


# Repeating a run


def test_a_run_under_a_budget_is_repeated_exactly_from_its_record(tmp_path: Path) -> None:
    first, again, parts = tmp_path / "first", tmp_path / "again", tmp_path / "parts"
    last = start(first, options={"budget": 20.0})[-1]
    expected = outcome(first)
    assert expected["plan"]["replans"]
    repeat: dict[str, Any] = {"config_from": first / "run" / "run.json", "settings": {}}
    assert start(again, **repeat)[-1].steps == last.steps
    assert outcome(again) == expected
    start(parts, **repeat, stop=at_step(expected["plan"]["replans"][0][0]))
    resume(parts)
    assert outcome(parts) == expected


def test_options_override_the_repeated_record(uninterrupted: Path, tmp_path: Path) -> None:
    options = {"steps": 5, "random_seed": 7}
    events = start(tmp_path, config_from=uninterrupted / "run", settings={}, options=options)
    assert (events[-1].steps, events[0].training.random_seed) == (5, 7)
    assert events[0].model.hidden_dim == SMALL["hidden_dim"]


def test_a_run_is_not_repeated_on_another_text(uninterrupted: Path, tmp_path: Path) -> None:
    """Its settings are used if the tokenizer is named too."""
    repeat: dict[str, Any] = {
        "text": TEXT.replace("lazy", "idle"),
        "config_from": uninterrupted / "run",
        "settings": {},
    }
    with pytest.raises(DataError, match=r"the text is not that of .*, or use its settings for another text"):
        start(tmp_path, **repeat)
    assert not (tmp_path / "run").exists()
    notices: list[str] = []
    start(tmp_path, **repeat, options={"steps": 2, "tokenizer": "char"}, notices=notices)
    assert any("the run will differ" in notice for notice in notices)


def test_a_run_is_repeated_with_the_tokenizer_it_was_given(tmp_path: Path) -> None:
    vocabulary = save_vocabulary(tmp_path, TEXT + "ABC")
    start(tmp_path / "first", vocabulary_path=vocabulary, options={"steps": 2})
    record = tmp_path / "first" / "run" / "run.json"
    start(tmp_path / "again", config_from=record, settings={})
    assert outcome(tmp_path / "again") == outcome(tmp_path / "first")
    (tmp_path / "run.json").write_bytes(record.read_bytes())  # without its tokenizer
    with pytest.raises(DataError, match=r"give its tokenizer\.json"):
        start(tmp_path / "third", config_from=tmp_path / "run.json", settings={})
    start(tmp_path / "third", config_from=tmp_path / "run.json", settings={}, vocabulary_path=vocabulary)
    assert outcome(tmp_path / "third") == outcome(tmp_path / "first")
