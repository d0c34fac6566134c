"""run.json and the checkpoint interval: written values are read back, invalid ones are refused."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_driver import write_run_json

from configurations import configurations
from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.data.encoding import Split
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.files.json import format_json
from quickfox.training.run.record import (
    DEFAULT_CHECKPOINT_SECONDS,
    CheckpointInterval,
    CorpusRecord,
    RunRecord,
    current_versions,
    read_record,
    write_record,
)
from toy_models import training_config

RECORD = RunRecord(
    model=ModelConfig(vocabulary_size=3, embedding_dim=4, hidden_dim=8),
    training=training_config(replans=((10, 50), (20, 60))),
    budget_seconds=60.0,
    validation_split=0.1,
    corpus=CorpusRecord(
        files=("/texts/ä.txt", "-"), characters=9, tokens=8, training_tokens=7, sha256="ab", tokens_sha256="cd"
    ),
    vocabulary_sha256="ef",
    checkpoint_every="3m",
    versions=current_versions(),
)


def test_a_record_is_read_back_unchanged(tmp_path: Path) -> None:
    for record in (RECORD, dataclasses.replace(RECORD, budget_seconds=None)):
        write_record(tmp_path, record)
        assert read_record(tmp_path) == read_record(tmp_path / "run.json") == record


FILE_NAMES = st.binary(min_size=1, max_size=20).map(os.fsdecode)


@given(
    files=st.lists(FILE_NAMES, max_size=3).map(tuple),
    versions=st.dictionaries(st.text(), st.text(), max_size=2),
    training=configurations(TrainingConfig),
    budget_seconds=st.none() | st.floats(0, 1e300),
)
def test_any_file_name_text_and_setting_is_read_back(files: tuple[str, ...], **values: Any) -> None:
    record = dataclasses.replace(RECORD, corpus=dataclasses.replace(RECORD.corpus, files=files), **values)
    with tempfile.TemporaryDirectory() as folder:
        write_record(Path(folder), record)
        assert read_record(Path(folder)) == record


def test_every_changed_bit_is_noticed(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    path = tmp_path / "run.json"
    data = path.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(DataError, match=str(path)):
            read_record(tmp_path)


def test_a_record_of_format_version_1_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(format_json({"format_version": 1, **dataclasses.asdict(RECORD)}))
    assert read_record(tmp_path) == RECORD


def test_training_tokens_are_those_recorded_or_else_a_share_of_the_tokens(tmp_path: Path) -> None:
    for training_tokens, expected in ((5, 5), (8, 8), (None, 7)):
        corpus = dataclasses.replace(RECORD.corpus, training_tokens=training_tokens)
        assert dataclasses.replace(RECORD, corpus=corpus).training_tokens == expected
    write_record(tmp_path, RECORD)
    path = tmp_path / "run.json"
    write_run_json(path, json.loads(path.read_text().replace('"training_tokens": 7', '"training_tokens": 9')))
    with pytest.raises(DataError, match=r"run\.json: corpus: training_tokens 9 is above tokens 8"):
        read_record(tmp_path)


def test_a_plain_text_is_divided_at_a_character_unless_an_earlier_version_encoded_it() -> None:
    seed = RECORD.training.random_seed
    assert RECORD.split == Split(8, None, seed)
    earlier = dataclasses.replace(RECORD.corpus, training_tokens=None)
    assert dataclasses.replace(RECORD, corpus=earlier).split is None
    documents = dataclasses.replace(RECORD.corpus, has_documents=True, documents=5)
    assert dataclasses.replace(RECORD, corpus=documents).split == Split(4, 5, seed)
    assert dataclasses.replace(RECORD, validation_split=0.0).split is None


def test_a_missing_record_is_no_input(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "run.json", tmp_path / "nowhere"):
        with pytest.raises(NoInputError, match=str(path)):
            read_record(path)


def changed(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda record: {**record, **values}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: [1], "not the record of a run"),
        (lambda record: {name: record[name] for name in record if name != "format_version"}, "not the record of a run"),
        (changed(format_version=3), "upgrade"),
        (changed(format_version=True), "format version"),
        (changed(format_version="1"), "format version"),
        (changed(unknown=1), "unknown setting 'unknown'"),
        (lambda record: {name: record[name] for name in record if name != "corpus"}, "'corpus' is missing"),
        (lambda record: changed(training={**record["training"], "steps": True})(record), "'steps'"),
        (lambda record: changed(training={**record["training"], "replans": [[5, 4]]})(record), "replans"),
        (lambda record: changed(training={**record["training"], "replans": [[5]]})(record), "'replans'"),
        (lambda record: changed(model={**record["model"], "hidden_dim": 10**9})(record), "hidden_dim"),
        (changed(versions={"python": 3}), "'versions'"),
    ],
)
def test_an_invalid_record_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    write_record(tmp_path, RECORD)
    path = tmp_path / "run.json"
    changed_record = change(json.loads(path.read_text()))
    if isinstance(changed_record, dict):
        write_run_json(path, changed_record)
    else:
        path.write_text(json.dumps(changed_record))
    with pytest.raises(DataError, match=message) as caught:
        read_record(tmp_path)
    assert str(path) in str(caught.value)


def test_a_record_too_large_to_read_is_not_written(tmp_path: Path) -> None:
    files = tuple(f"/texts/{number:0100}.txt" for number in range(160_000))
    many = dataclasses.replace(RECORD, corpus=dataclasses.replace(RECORD.corpus, files=files))
    with pytest.raises(UsageError, match="160,000 files"):
        write_record(tmp_path, many)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "steps", "seconds"),
    [
        (None, None, DEFAULT_CHECKPOINT_SECONDS),
        ("1", 1, None),
        ("500", 500, None),
        ("007", 7, None),
        ("90s", None, 90.0),
        ("1.5m", None, 90.0),
        ("2h", None, 7200.0),
        ("0.5s", None, 0.5),
    ],
)
def test_an_interval_is_a_number_of_steps_or_a_time(text: str | None, steps: int | None, seconds: float | None) -> None:
    assert CheckpointInterval.parse(text) == CheckpointInterval(steps, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0s",
        "0.0000001s",
        "-5",
        "5 steps",
        "٥",
        "1e3",
        "nan",
        "inf",
        "9" * 5000,
        "9" * 400 + "s",
        "9" * 20 + "h",
    ],
)
def test_an_invalid_interval_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        CheckpointInterval.parse(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("checkpoint_every must be ")
    assert caught.value.settings == ("checkpoint_every",)


@pytest.mark.parametrize("text", [None, "1", "1099511627776", "90s", "0.001s", "0.25s", "1000000000000s", "277h"])
def test_an_interval_formatted_as_text_is_parsed_back(text: str | None) -> None:
    interval = CheckpointInterval.parse(text)
    assert CheckpointInterval.parse(str(interval)) == interval


def test_an_interval_in_steps_ignores_the_time() -> None:
    interval = CheckpointInterval.parse("10")
    assert [step for step in range(1, 31) if interval.is_due(step, 1e9)] == [10, 20, 30]


def test_an_interval_in_seconds_ignores_the_step() -> None:
    interval = CheckpointInterval.parse("2m")
    assert [interval.is_due(7, seconds) for seconds in (-5.0, 0.0, 119.9, 120.0, 1e9)] == [False] * 3 + [True] * 2
