"""A run of version 0.1.0, whose corpus came from standard input, is resumed with the losses it had there."""

import json
import shutil
from pathlib import Path

import pytest

import quickfox
from quickfox.training.engine.events import Event, RunFinished

FIXTURE = Path(__file__).parents[2] / "fixtures" / "version_0_1_0"


@pytest.mark.slow
def test_resume_a_run_of_the_previous_version(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE / "resumable", tmp_path / "run")
    expected = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))["resumed"]
    events: list[Event] = []
    quickfox.resume(tmp_path / "run", steps=expected["steps"], on_event=events.append)
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert finished.steps == expected["steps"]
    assert finished.validation_loss == pytest.approx(expected["validation_loss"], abs=1e-3)
    assert finished.train_loss == pytest.approx(expected["train_loss"], abs=1e-3)
