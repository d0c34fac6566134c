"""Reports what the history of a run has, scalars and samples, to experiment trackers, after the settings of the run.

A tracker that fails is left out with one warning; training goes on.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Self

from quickfox.config.training import TrackerName
from quickfox.errors import UnavailableError
from quickfox.training.engine.events import Event, RunStarted, StepsCompleted, Validated
from quickfox.training.run.history import HistoryFollower
from quickfox.training.run.tracker_backends import TRACKERS, Tracker

_PACKAGES = {"tensorboard": "tensorflow", "trackio": "trackio", "wandb": "wandb"}


def check_installed(names: Sequence[TrackerName]) -> None:
    """Raises UnavailableError if the package of a tracker is not installed."""
    for name in names:
        package = _PACKAGES.get(name)
        if package and find_spec(package) is None:
            message = f"report_to {name} needs {package}, which is not installed: pip install {package}"
            raise UnavailableError(message, "report_to")


class Trackers:
    """Reports the events of a run to several trackers; a context manager.

    Attributes:
        names: of the trackers.

    Args:
        names: of the trackers, installed; see `check_installed`.
        project: for those that group runs by project.
        notify: called with one line for each tracker that fails.
    """

    def __init__(self, names: Sequence[TrackerName], project: str, notify: Callable[[str], None]) -> None:
        self.names = list(dict.fromkeys(names))
        self._project = project
        self._notify = notify
        self._trackers: dict[TrackerName, Tracker] = {}
        self._history: HistoryFollower | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._warn_of_failure(name):
                tracker.close()

    def report(self, event: Event) -> None:
        """Reports what an event has added to the history of the run."""
        if isinstance(event, RunStarted):
            self._history = HistoryFollower(event.directory)
            for name in self.names:
                with self._warn_of_failure(name):
                    self._trackers[name] = TRACKERS[name](event, self._project)
        if self._trackers and self._history and isinstance(event, RunStarted | StepsCompleted | Validated):
            records = self._history.read_new()
            for name, tracker in list(self._trackers.items()):
                with self._warn_of_failure(name):
                    tracker.write(records)

    @contextlib.contextmanager
    def _warn_of_failure(self, name: TrackerName) -> Iterator[None]:
        """Leaves a tracker out if it fails, in whatever way: training is worth more."""
        try:
            yield
        except Exception as error:
            self._trackers.pop(name, None)
            self._notify(f"warning: {name} failed, and gets no more of this run: {type(error).__name__}: {error}")
