"""Live progress of training and of reading a text on a terminal, with Rich.

Training: progress bars of the run and of the epoch with the current losses below them; above them a permanent line
per validation, with a sample of the model. Reading: a progress bar in bytes. Only this module imports Rich.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from quickfox.cli.curves import Point, draw_losses
from quickfox.cli.training_log import (
    format_ngrams,
    format_progress,
    format_sample,
    format_settings,
    format_validation,
)
from quickfox.training.engine.events import (
    Event,
    NgramsEstimated,
    Replanned,
    RunStarted,
    StepsCompleted,
    Validated,
    WaitingForNgrams,
)

REFRESHES_PER_SECOND = 5
MIN_COLUMNS_FOR_DETAILS = 60
MIN_ROWS_FOR_CURVE, CURVE_ROWS, CURVE_COLUMNS = 24, 7, 76
MAX_CURVE_POINTS = 1000
READING_BAR_DELAY = 0.5
"""Seconds after which a reading bar is shown, so that it does not flash up for a short text."""


class ReadingBar:
    """A progress bar for reading a text, in bytes, with speed and remaining time.

    `progress` can be a part of another display. As a context manager the bar is a display of its own, which is shown
    after READING_BAR_DELAY.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn()]
        if console.width >= MIN_COLUMNS_FOR_DETAILS:
            columns += [TransferSpeedColumn(), TimeRemainingColumn()]
        self.progress = Progress(
            *columns, console=console, expand=True, transient=True, refresh_per_second=REFRESHES_PER_SECOND
        )
        self._start_time = math.inf
        self._task = self.progress.add_task("", visible=False)

    def __enter__(self) -> Self:
        self._start_time = time.monotonic() + READING_BAR_DELAY
        return self

    def __exit__(self, *_exception: object) -> None:
        self.progress.stop()

    def start_progress(self, stage: str, size: int) -> Callable[[int], None]:
        """A callback to report bytes read of `size`; its first call replaces the bar of the previous stage."""
        is_started = False

        def advance(count: int) -> None:
            nonlocal is_started
            if not is_started:
                self.progress.reset(self._task, total=size, visible=True, description=stage)
                is_started = True
            self.progress.advance(self._task, count)
            if time.monotonic() > self._start_time:
                self.progress.start()

        return advance


class LiveDisplay:
    """Shows the events of a training run; a context manager that restores the terminal."""

    def __init__(self) -> None:
        # A duplicate of the descriptor, so that the display works while TensorFlow's output is silenced.
        self._terminal = os.fdopen(
            os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace"
        )
        self._console = Console(file=self._terminal, highlight=False)
        columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn()]
        if self._console.width >= MIN_COLUMNS_FOR_DETAILS:
            columns.append(TextColumn("{task.fields[position]}"))
        self._progress = Progress(*columns, console=self._console, expand=True)
        self._run = self._progress.add_task("run", total=None, position="")
        self._epoch = self._progress.add_task("epoch", total=1.0, position="")
        self._status = Text("reading the text, starting TensorFlow", style="dim")
        self._last_validation: Validated | None = None
        self._curve = Text(style="dim", no_wrap=True)
        self._losses: tuple[list[Point], list[Point]] = [], []  # of training and of validations
        reading = ReadingBar(self._console)
        self.start_progress = reading.start_progress
        self._live = Live(
            Group(reading.progress, self._status),
            console=self._console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,  # permanent lines are printed above it
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._live.stop()
        self._terminal.close()

    def show(self, event: Event) -> None:
        """Updates the display for an event."""
        match event:
            case RunStarted():
                self._live.update(Group(self._curve, self._progress, self._status))
                for line in (*format_settings(event), *event.advice):
                    self._console.print(Text(line))
                self._progress.update(self._run, total=event.training.planned_steps)
                self._status.plain = "compiling the first step" if event.model.has_network else "counting n-grams"
            case WaitingForNgrams():
                self._status.plain = "waiting for the n-gram tables"
            case NgramsEstimated():
                for line in format_ngrams(event):
                    self._console.print(Text(line))
            case StepsCompleted():
                epochs = event.epoch * event.total_steps / event.step
                steps = f"step {event.step:,} of {event.total_steps:,}"
                self._progress.update(self._run, completed=event.step, total=event.total_steps, position=steps)
                position = f"{event.epoch:.1f} of {epochs:.1f}"
                self._progress.update(self._epoch, completed=event.epoch % 1, position=position)
                self._status.plain = format_progress(event, self._last_validation)
                if event.train_loss is not None:
                    self._losses[0].append((event.step, event.train_loss))
                    self._draw_curve()
            case Validated():
                self._last_validation = event
                if event.validation_loss is not None:
                    self._losses[1].append((event.step, event.validation_loss))
                self._console.print(Text(format_validation(event), style="bold" if event.is_best else ""))
                for sample in event.samples[:1]:
                    lines = "\n".join(format_sample(sample.text))
                    text = Text(lines, style="dim", overflow="ellipsis", no_wrap=True)
                    self._console.print(Padding(text, (0, 0, 1, 4)))
            case Replanned():
                self._progress.update(self._run, total=event.total_steps)

    def _draw_curve(self) -> None:
        """Draws the losses if the window is high enough and shows Braille patterns."""
        training, validation = self._losses
        for losses in self._losses:
            if len(losses) > MAX_CURVE_POINTS:
                del losses[1:-1:2]
        width, height = self._console.size
        if (
            height < MIN_ROWS_FOR_CURVE
            or width < MIN_COLUMNS_FOR_DETAILS
            or not self._console.encoding.startswith("utf")
        ):
            self._curve.plain = ""
            return
        lines = draw_losses(training, validation, min(width, CURVE_COLUMNS), CURVE_ROWS)
        self._curve.plain = "\n".join(lines)
