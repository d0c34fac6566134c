"""The diagnosis in words: each finding from a history that shows it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickfox.report.diagnosis import diagnose
from quickfox.report.loading import ReportedRun, load_run
from quickfox.report.measures import TextMeasures
from quickfox.training.run.history import Step
from written_runs import write_run


def findings(tmp_path: Path, *losses: float | None, measures: TextMeasures | None = None, **changes: Any) -> list[str]:
    """The titles of the findings of a run with these validation losses."""
    run = load_run(write_run(tmp_path, "run", losses=losses), 1)
    return titles(dataclasses.replace(run, **changes), measures)


def titles(run: ReportedRun, measures: TextMeasures | None = None) -> list[str]:
    return [finding.title for finding in diagnose(run, measures)]


def measures_with(bits_per_byte: float, error: float | None) -> TextMeasures:
    return TextMeasures("text", 0, np.zeros(4, np.float32), bits_per_byte, error, 4, [])


@pytest.mark.parametrize(
    ("losses", "title"),
    [
        ((2.5, 2.0, 2.1, 2.2), "Overfitting"),
        ((2.9, 2.5, 2.0), "Under-training"),
        ((2.1, 2.001, 2.0, 2.0, 2.0, 2.0), "No problem found"),
        ((2.6, 2.502, 2.501, 2.5, 2.5, 2.5), "First signs of overfitting"),
        ((), "Nothing to judge by"),
        ((None, None), "Nothing to judge by"),
        ((2.0,), "Probably under-trained"),
    ],
)
def test_the_losses_decide(tmp_path: Path, losses: tuple[float | None, ...], title: str) -> None:
    assert title in findings(tmp_path, *losses)


def test_rising_training_losses_are_a_divergence(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, "run"), 1)
    run.history.steps[-3:] = [
        Step(step=number, train_loss=5.0, learning_rate=0.1, seconds=1.0) for number in (28, 29, 30)
    ]
    assert titles(run)[0] == "Divergence"


def test_a_wide_interval_means_that_the_held_out_text_is_too_small(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, "run", losses=(2.0, 2.0)), 1)
    assert "Held-out text too small" in titles(run, measures_with(2.0, 0.05))
    assert "Held-out text too small" in titles(run, measures_with(2.0, None))
    assert "Held-out text too small" not in titles(run, measures_with(2.0, 0.01))


def test_an_interrupted_run_can_be_resumed(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, "run"), 1)
    training = dataclasses.replace(run.record.training, steps=60)
    interrupted = dataclasses.replace(run, record=dataclasses.replace(run.record, training=training))
    assert "The run is not finished" not in titles(run)
    [finding] = [each for each in diagnose(interrupted, None) if each.title == "The run is not finished"]
    assert f"llm train --resume {run.directory}" in finding.text


def test_a_network_with_an_ngram_gate_is_compared_with_its_own_loss(tmp_path: Path) -> None:
    """The training loss is that of the network with the gate, and not of the network alone."""
    run = load_run(write_run(tmp_path, "run", losses=(2.4, 2.25, 2.25, 2.25)), 1)
    run.history.validations[-1] = dataclasses.replace(run.history.validations[-1], network_loss=3.5)
    assert "First signs of overfitting" in titles(run)
    model = dataclasses.replace(run.record.model, ngram_gate=3)
    gated = dataclasses.replace(run, record=dataclasses.replace(run.record, model=model))
    assert "First signs of overfitting" not in titles(gated)
