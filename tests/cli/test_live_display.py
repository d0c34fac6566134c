"""The plain and the live display of a training run, given events made by hand."""

import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quickfox.cli.training_log import PlainDisplay, format_result, format_sample
from quickfox.config.model import ModelConfig
from quickfox.training.engine.events import Replanned, RunFinished, RunStarted, StepsCompleted, Validated
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
    best_validation_loss=1.75,
    is_best=True,
    tokens_per_second=50_000.0,
    learning_rate=0.01,
    seconds=20.0,
    sample="First \x1b[31mCitizen:\n\nBefore we [bold]proceed\n",
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
    parameters=1_219_201,
    stopped_early=False,
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


def test_the_quiet_display_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay(quiet=True) as display:
        for event in (STARTED, STEPS, VALIDATED, FINISHED):
            display.show(event)
    assert capfd.readouterr() == ("", "")


def test_the_result_names_the_next_command() -> None:
    assert format_result(FINISHED)[-1] == "next: llm generate --model 'runs/the fox'"


def test_control_characters_of_a_sample_are_escaped() -> None:
    assert format_sample(VALIDATED.sample) == ["First \\x1b[31mCitizen:", "Before we [bold]proceed"]


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
@pytest.mark.parametrize("columns", [20, 100])
def test_the_live_display_on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    import pty

    from quickfox.cli.live_display import LiveDisplay

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen, terminal = pty.openpty()
    reader = ThreadPoolExecutor(1).submit(read_to_end, screen)
    with os.fdopen(terminal, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with LiveDisplay() as display:
            display.start_progress("encoding", 2_000_000)(1_500_000)
            for event in (STARTED, STEPS, VALIDATED, Replanned(step=50, total_steps=90)):
                display.show(event)
    written = reader.result(timeout=60)
    assert "\x1b[?25l" in written  # the cursor is hidden
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # and shown again
    for word in ("epoch", "validation", "1.7500", "2.1250", "Citizen"):
        assert word in written or columns == 20
    assert "\x1b[31mCitizen" not in written


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
