"""Training, and the reading of a text, shown live on a terminal: the only Rich code.

Two bars that move, for the run and for the epoch, with the numbers of the moment under them; above them a line for
each validation, which stays, with a little text of the model's own. Before that a bar for the text that is being read.
Knows events, and nothing of where they come from.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from quickfox.cli.training_log import describe_progress, describe_start, describe_validation, sample_lines
from quickfox.training.engine.events import Event, Replanned, RunStarted, StepsCompleted, Validated

REFRESHES_PER_SECOND = 5
COLUMNS_FOR_POSITION = 60


PATIENCE_SECONDS = 0.5  # a text that is read within this time needs no bar


class ReadingBar:
    """How much of a text has been read, in bytes, how fast, and how long it will take.

    `progress` can be a part of a display; as a context manager it is one, once reading has gone on for a while.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn()]
        if console.width >= COLUMNS_FOR_POSITION:
            columns += [TransferSpeedColumn(), TimeRemainingColumn()]
        self.progress = Progress(
            *columns, console=console, expand=True, transient=True, refresh_per_second=REFRESHES_PER_SECOND
        )
        self._appears = math.inf
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._appears = time.monotonic() + PATIENCE_SECONDS
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def reading(self, stage: str, size: int) -> Callable[[int], None]:
        """A bar for reading `size` bytes: there once it is told that some were read, in the place of the former one."""
        task: TaskID | None = None

        def move(read: int) -> None:
            nonlocal task
            if task is None:
                if self._task is not None:
                    self.progress.remove_task(self._task)
                task = self._task = self.progress.add_task(stage, total=size)
            self.progress.advance(task, read)
            if time.monotonic() > self._appears:
                self.progress.start()

        return move


class LiveDisplay:
    """Shows the events of one run; a context manager, which gives the terminal back at its end."""

    def __init__(self) -> None:
        # A descriptor of our own, so that the bars move on while TensorFlow's start has the real one muted.
        self._terminal = os.fdopen(
            os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace"
        )
        self._console = Console(file=self._terminal, highlight=False)
        columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn()]
        if self._console.width >= COLUMNS_FOR_POSITION:
            columns.append(TextColumn("{task.fields[position]}"))
        self._progress = Progress(*columns, console=self._console, expand=True)
        self._run = self._progress.add_task("run", total=None, position="")
        self._epoch = self._progress.add_task("epoch", total=1.0, position="")
        self._numbers = Text("reading the text, starting TensorFlow", style="dim")
        self._last_validation: Validated | None = None
        self._reading = ReadingBar(self._console)
        self._live = Live(
            Group(self._reading.progress, self._numbers),
            console=self._console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,  # what shall stay was printed above
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()
        self._terminal.close()

    def reading(self, stage: str, size: int) -> Callable[[int], None]:
        """A bar for reading a text before the run starts; see ReadingBar."""
        return self._reading.reading(stage, size)

    def show(self, event: Event) -> None:
        """Brings the display up to date with what has happened."""
        match event:
            case RunStarted():
                self._live.update(Group(self._progress, self._numbers))
                self.say(*describe_start(event))
                self._progress.update(self._run, total=event.training.planned_steps)
                self._numbers.plain = "compiling the first step"
            case StepsCompleted():
                self._move_bars(event)
                self._numbers.plain = describe_progress(event, self._last_validation)
            case Validated():
                self._last_validation = event
                self._console.print(Text(describe_validation(event), style="bold" if event.is_best else ""))
                sample = Text("\n".join(sample_lines(event.sample)), style="dim", overflow="ellipsis", no_wrap=True)
                self._console.print(Padding(sample, (0, 0, 1, 4)))
            case Replanned():
                self._progress.update(self._run, total=event.total_steps)

    def say(self, *lines: str) -> None:
        """Prints lines that stay, above the bars."""
        for line in lines:
            self._console.print(Text(line))

    def _move_bars(self, event: StepsCompleted) -> None:
        epochs = event.epoch * event.total_steps / event.step
        self._progress.update(
            self._run,
            completed=event.step,
            total=event.total_steps,
            position=f"step {event.step:,} of {event.total_steps:,}",
        )
        self._progress.update(self._epoch, completed=event.epoch % 1, position=f"{event.epoch:.1f} of {epochs:.1f}")
