"""The plain and the live display of a training run, given events made by hand."""

import contextlib
import dataclasses
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quickfox.cli.training_log import PlainDisplay, format_ngrams, format_plan, format_result, format_sample
from quickfox.config.model import ModelConfig, ngram_config
from quickfox.training.engine.events import (
    NgramsEstimated,
    Replanned,
    RunFinished,
    RunPlanned,
    RunStarted,
    Sample,
    StepsCompleted,
    Validated,
    WaitingForNgrams,
)
from quickfox.training.planning.cost import estimate_cost
from toy_models import training_config

STARTED = RunStarted(
    directory=Path("runs/fox"),
    model=ModelConfig(vocabulary_size=65, embedding_dim=64, hidden_dim=512),
    training=training_config(
        steps=100, batch_size=32, window=64, learning_rate=0.01, dropout=0.25, validation_interval=50, random_seed=7
    ),
    budget_seconds=150.0,
    parameters=1_219_201,
    training_tokens=102_400,
    validation_tokens=10_000,
    held_out_tokens=10_000,
)
STEPS = StepsCompleted(
    step=25,
    total_steps=100,
    epoch=0.5,
    train_loss=2.125,
    tokens_per_second=50_000.0,
    learning_rate=0.01,
    seconds=10.0,
    seconds_left=30.0,
)
VALIDATED = Validated(
    step=50,
    total_steps=100,
    epoch=1.0,
    tokens=102_400,
    train_loss=2.0,
    validation_loss=1.75,
    network_loss=None,
    best_validation_loss=1.75,
    is_best=True,
    tokens_per_second=50_000.0,
    learning_rate=0.01,
    seconds=20.0,
    samples=(Sample("\n", "First \x1b[31mCitizen:\n\nBefore we [bold]proceed\n"),),
)
FINISHED = RunFinished(
    directory=Path("runs/the fox"),
    checkpoint=Path("runs/the fox/checkpoints/step-00000050"),
    epochs=2.0,
    steps=100,
    tokens=204_800,
    tokens_per_second=50_000.0,
    train_loss=1.9,
    validation_loss=1.8,
    best_validation_loss=1.75,
    network_loss=None,
    parameters=1_219_201,
    stopped_early=False,
)
NGRAMS = NgramsEstimated(
    ngrams=(65, 3000, 40_000),
    min_counts=(0, 1, 2),
    counted_tokens=102_400,
    training_tokens=102_400,
    loss=1.875,
    seconds=0.5,
)
NGRAM_RUN = dataclasses.replace(
    STARTED,
    model=ngram_config(65),
    training=training_config(steps=1, batch_size=1, window=1, ngram_order=3),
    budget_seconds=None,
    parameters=0,
)
NGRAM_RESULT = dataclasses.replace(
    FINISHED, steps=1, parameters=0, train_loss=None, validation_loss=1.875, best_validation_loss=1.875
)


def test_the_plain_display_writes_settings_and_validations(capfd: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay(quiet=False) as display:
        for event in (STARTED, STEPS, Replanned(step=25, total_steps=90), VALIDATED, FINISHED):
            display.show(event)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "run       runs/fox",
        "text      102,400 training tokens, 10,000 validation tokens",
        "model     lstm, 1 layer of 512, embedding 64, vocabulary 65: 1,219,201 parameters",
        "training  ends after 2m 30s, about 100 steps of 32 x 64 tokens (2.0 epochs), learning rate 0.01, dropout 0.25",
        "machine   float32, 2 threads; random seed 7",
        "epoch   1.00  step 50/100  training 2.0000  validation 1.7500  best 1.7500  50,000 tokens/s  20s *",
    ]


def test_the_plain_display_of_a_mixture_names_the_ngrams_and_both_losses(capfd: pytest.CaptureFixture[str]) -> None:
    started = dataclasses.replace(STARTED, training=dataclasses.replace(STARTED.training, ngram_order=3))
    with PlainDisplay(quiet=False) as display:
        for event in (started, NGRAMS, dataclasses.replace(VALIDATED, network_loss=2.0)):
            display.show(event)
    lines = capfd.readouterr().err.splitlines()
    assert lines[2].endswith("1,219,201 parameters; mixed with n-grams of order 3")
    assert lines[5:7] == [
        "n-grams   3-gram model alone: validation 1.8750; 43,065 n-grams",
        "          left out for size: 3-grams below 2 occurrences",
    ]
    assert "validation 1.7500 (network alone 2.0000)  best 1.7500" in lines[7]


def test_a_text_that_is_not_counted_completely_is_reported() -> None:
    lines = format_ngrams(dataclasses.replace(NGRAMS, min_counts=(0, 1, 1), training_tokens=204_800, loss=None))
    assert lines == [
        "n-grams   3-gram model alone: validation -; 43,065 n-grams",
        "          counted on 102,400 of 204,800 training tokens",
    ]


def test_an_ngram_model_has_no_lines_of_a_network(capfd: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay(quiet=False) as display:
        display.show(NGRAM_RUN)
    settings = capfd.readouterr().err.splitlines()
    assert settings == [
        "run       runs/fox",
        "text      102,400 training tokens, 10,000 validation tokens",
        "model     3-gram model, vocabulary 65",
    ]
    cost = estimate_cost(
        NGRAM_RUN.model, NGRAM_RUN.training, training_tokens=102_400, validation_tokens=10_000, flops=0.0
    )
    plan = format_plan(RunPlanned(NGRAM_RUN, cost))
    assert plan[:3] == settings
    assert [line.split()[0] for line in plan[3:]] == ["memory", "time"]
    assert "operations" not in plan[-1]


def test_the_result_of_a_mixture_has_both_losses() -> None:
    line = format_result(dataclasses.replace(FINISHED, network_loss=2.0))[0]
    assert line == (
        "saved in runs/the fox after 100 steps; best validation loss 1.7500 (network alone 2.0000) nats per token"
    )


def test_the_result_of_an_ngram_model_has_no_steps() -> None:
    assert format_result(NGRAM_RESULT)[0] == "saved in runs/the fox; best validation loss 1.8750 nats per token"
    unmeasured = dataclasses.replace(NGRAM_RESULT, validation_loss=None, best_validation_loss=None)
    assert format_result(unmeasured)[0] == "saved in runs/the fox"


def test_the_quiet_display_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay(quiet=True) as display:
        for event in (STARTED, NGRAMS, STEPS, VALIDATED, FINISHED):
            display.show(event)
    assert capfd.readouterr() == ("", "")


def test_the_result_names_the_next_command() -> None:
    assert format_result(FINISHED)[-1] == "next: llm generate --model 'runs/the fox'"


def test_control_characters_of_a_sample_are_escaped() -> None:
    assert format_sample(VALIDATED.samples[0].text) == ["First \\x1b[31mCitizen:", "Before we [bold]proceed"]


def read_to_end(screen: int) -> str:
    """Everything written to a pseudo-terminal until it is closed."""
    written = b""
    with (
        contextlib.suppress(OSError),
        os.fdopen(screen, "rb", buffering=0) as file,
    ):  # OSError: end on Linux
        while data := file.read(4096):
            written += data
    return written.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("columns", "rows"), [(20, 40), (100, 40), (100, 20)])
def test_the_live_display_on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, rows: int) -> None:
    import pty

    from quickfox.cli.live_display import LiveDisplay

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen, terminal = pty.openpty()
    reader = ThreadPoolExecutor(1).submit(read_to_end, screen)
    with os.fdopen(terminal, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with LiveDisplay() as display:
            display.start_progress("encoding", 2_000_000)(1_500_000)
            for event in (STARTED, NGRAMS, STEPS, VALIDATED, Replanned(step=50, total_steps=90), WaitingForNgrams(50)):
                display.show(event)
    written = reader.result(timeout=60)
    assert "\x1b[?25l" in written  # the cursor is hidden
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # and shown again
    for word in ("epoch", "validation", "1.7500", "2.1250", "Citizen", "1.8750", "waiting for the n-gram tables"):
        assert word in written or columns == 20
    assert "\x1b[31mCitizen" not in written
    assert any("\u2801" <= character <= "\u28ff" for character in written) == (columns == 100 and rows == 40)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("is_long", [False, True])
def test_a_reading_bar_is_shown_for_long_texts_only(monkeypatch: pytest.MonkeyPatch, *, is_long: bool) -> None:
    import pty

    from quickfox.cli import live_display

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(live_display, "READING_BAR_DELAY", -1.0 if is_long else 1e6)
    screen, terminal = pty.openpty()
    reader = ThreadPoolExecutor(1).submit(read_to_end, screen)
    with os.fdopen(terminal, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with live_display.ReadingBar() as bar:
            bar.start_progress("characters", 2_000_000)(1_500_000)
    written = reader.result(timeout=60)
    assert ("characters" in written) == ("1.5/2.0 MB" in written) == is_long


def test_a_bar_appears_with_the_first_bytes_read() -> None:
    from quickfox.cli.live_display import ReadingBar

    with ReadingBar() as bar:
        advance = bar.start_progress("characters", 10)
        bar.start_progress("vocabulary", 10)  # reads nothing
        advance(4)
        assert [(task.description, task.completed) for task in bar.progress.tasks] == [("characters", 4)]
        bar.start_progress("measuring", 10)(3)
        assert [(task.description, task.completed) for task in bar.progress.tasks] == [("measuring", 3)]
