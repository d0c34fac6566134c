"""Training, shown live on a terminal: the only Rich code.

Two bars that move, for the run and for the epoch, with the numbers of the moment under them; above them a line for
each validation, which stays, with a little text of the model's own. Knows events, and nothing of where they come from.
"""

import os
import sys
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from quickfox.cli.training_lines import describe_progress, describe_start, describe_validation, sample_lines
from quickfox.training.events import Event, Replanned, RunStarted, StepsDone, Validated

REFRESHES_PER_SECOND = 5
COLUMNS_FOR_POSITION = 60


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
        self._live = Live(
            Group(self._progress, self._numbers),
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

    def show(self, event: Event) -> None:
        """Brings the display up to date with what has happened."""
        match event:
            case RunStarted():
                self.say(*describe_start(event))
                self._progress.update(self._run, total=event.training.steps)
                self._numbers.plain = "compiling the first step"
            case StepsDone():
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

    def _move_bars(self, event: StepsDone) -> None:
        epochs = event.epoch * event.total_steps / event.step
        self._progress.update(
            self._run,
            completed=event.step,
            total=event.total_steps,
            position=f"step {event.step:,} of {event.total_steps:,}",
        )
        self._progress.update(self._epoch, completed=event.epoch % 1, position=f"{event.epoch:.1f} of {epochs:.1f}")
