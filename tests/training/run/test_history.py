"""history.jsonl: written events are read back, an incomplete line is dropped, a wrong one is refused."""

import dataclasses
import json
import tempfile
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.errors import DataError
from quickfox.training.engine.events import CompletedStep, Replanned, Sample, Validated
from quickfox.training.run.history import (
    History,
    is_recorded,
    read_history,
    record_event,
    record_steps,
    truncate_history,
)

VALIDATED = Validated(
    step=20,
    total_steps=40,
    epoch=1.5,
    tokens=640,
    train_loss=2.0,
    validation_loss=None,
    network_loss=None,
    best_validation_loss=None,
    is_best=True,
    tokens_per_second=1e6,
    learning_rate=0.01,
    seconds=3.5,
    samples=(Sample("a <b>", "c"),),
)


def test_history_has_a_line_per_event_without_speed(tmp_path: Path) -> None:
    record_event(tmp_path, Replanned(step=10, total_steps=40))
    record_event(tmp_path, VALIDATED)
    replan, validation = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert replan.pop("crc32") == f"{zlib.crc32(json.dumps(replan).encode()):08x}"
    assert replan == {"event": "replan", "step": 10, "total_steps": 40}
    assert (validation["event"], validation["step"], validation["validation_loss"]) == ("validation", 20, None)
    assert "tokens_per_second" not in validation


LOSSES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.floats(0, 1e300)


@given(
    st.lists(
        st.builds(
            Validated,
            step=st.integers(0, 2**40),
            epoch=NUMBERS,
            tokens=st.integers(0, 2**60),
            train_loss=LOSSES,
            validation_loss=LOSSES,
            network_loss=LOSSES,
            best_validation_loss=LOSSES,
            learning_rate=NUMBERS,
            seconds=NUMBERS,
            tokens_per_second=NUMBERS,
            samples=st.lists(st.builds(Sample, st.text(), st.text()), max_size=2).map(tuple),
        ),
        max_size=3,
    )
)
def test_any_validations_are_read_back(validations: list[Validated]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for validation in validations:
            record_event(Path(folder), validation)
        for written, read in zip(validations, read_history(Path(folder)).validations, strict=True):
            assert {field.name: getattr(written, field.name) for field in dataclasses.fields(read)} == vars(read)


def test_truncating_keeps_the_events_up_to_a_step(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for step in (10, 20, 30):
        record_event(tmp_path, Replanned(step=step, total_steps=40))
    whole = path.read_bytes()
    truncate_history(tmp_path, 30)
    assert path.read_bytes() == whole
    truncate_history(tmp_path, 20)
    assert whole.startswith(path.read_bytes())
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20]
    truncate_history(tmp_path, 0)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("incomplete", [b"{", b'{"event": "replan", "step": 1, "total_steps": 40}', b"\xff", b"\0" * 9])
def test_truncating_drops_an_incomplete_last_line(tmp_path: Path, incomplete: bytes) -> None:
    record_event(tmp_path, Replanned(step=10, total_steps=40))
    path = tmp_path / "history.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + incomplete)
    truncate_history(tmp_path, 30)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"hello", b"[1]", b"{}", b'{"step": true}', b'{"step": "1"}', b"", b"\xff"])
def test_a_complete_line_that_is_not_an_event_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "history.jsonl").write_bytes(line + b"\n")
    for read in (lambda: truncate_history(tmp_path, 30), lambda: read_history(tmp_path)):
        with pytest.raises(DataError, match="line 1"):
            read()
    assert (tmp_path / "history.jsonl").read_bytes() == line + b"\n"


def test_every_changed_bit_is_noticed(tmp_path: Path) -> None:
    record_event(tmp_path, VALIDATED)
    path = tmp_path / "history.jsonl"
    line = path.read_bytes()[:-1]
    for position in range(len(line)):
        changed = bytearray(line)
        changed[position] ^= 1 << position % 8
        if changed[position] != ord("\n"):  # which makes two lines, the last of them incomplete
            path.write_bytes(bytes(changed) + b"\n")
            with pytest.raises(DataError, match="line 1"):
                read_history(tmp_path)


def test_truncating_a_missing_history_creates_no_file(tmp_path: Path) -> None:
    truncate_history(tmp_path, 30)
    assert list(tmp_path.iterdir()) == []


def test_steps_and_validations_are_read_back(tmp_path: Path) -> None:
    assert read_history(tmp_path) == History([], [])
    record_event(tmp_path, Replanned(step=10, total_steps=40))
    record_steps(tmp_path, [CompletedStep(33, 2.5, 0.1), CompletedStep(34, 2.25, 0.2)], 1.5)
    record_event(tmp_path, VALIDATED)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"event": "validation", "st')
    history = read_history(tmp_path)
    assert [vars(step) for step in history.steps] == [
        {"step": 34, "train_loss": 2.25, "learning_rate": 0.2, "seconds": 1.5}
    ]
    [validation] = history.validations
    assert all(value == getattr(VALIDATED, name) for name, value in vars(validation).items())


def test_a_validation_of_an_earlier_version_has_no_samples(tmp_path: Path) -> None:
    record_event(tmp_path, VALIDATED)
    path = tmp_path / "history.jsonl"
    values = json.loads(path.read_text())
    del values["samples"], values["network_loss"], values["crc32"]
    path.write_text(json.dumps(values) + "\n")
    assert [validation.samples for validation in read_history(tmp_path).validations] == [()]


@pytest.mark.parametrize(
    "change", [{"seconds": "1"}, {"samples": [1]}, {"samples": [{"prompt": "a"}]}, {"epoch": None}]
)
def test_a_validation_with_a_wrong_value_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    record_event(tmp_path, VALIDATED)
    path = tmp_path / "history.jsonl"
    values = {**json.loads(path.read_text()), **change}
    del values["crc32"]
    path.write_text(json.dumps(values) + "\n")
    with pytest.raises(DataError, match="line 1"):
        read_history(tmp_path)


def test_steps_and_samples_are_recorded_at_nearly_equal_distances_on_a_logarithmic_scale() -> None:
    recorded = [number for number in range(1, 10_001) if is_recorded(number)]
    assert recorded[:34] == [*range(1, 32), 32, 34, 36]
    assert len(recorded) < 200
    assert all(later <= earlier * 17 / 16 for earlier, later in pairwise(recorded[15:]))
