"""The models that are served, by name; a run is loaded again when it has a better checkpoint."""

import asyncio
import dataclasses
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.checkpoints.run_directory import CHECKPOINTS_DIRECTORY, RUN_FILE, find_best_model, find_model
from quickfox.config.media import KIND_NAMES
from quickfox.errors import DataError, QuickfoxError
from quickfox.files.errors import translate_read_errors
from quickfox.model import Model, load_directory
from quickfox.serving.engine import Deliver, Engine, TokenCounts
from quickfox.serving.http import RequestError

Log = Callable[[str], None]
"""Receives a line for the operator of the server."""


@dataclass
class LoadedModel:
    """A model in memory and its engine; requests keep the one they began with.

    Attributes:
        model: the model.
        engine: generates its texts.
        loaded: time at which it was loaded, in seconds since 1970.
        num_requests: number of requests that use it.
    """

    model: Model
    engine: Engine
    loaded: float
    num_requests: int = 0


class ServedModel:
    """A run, checkpoint or model directory that is served by its name.

    Args:
        name: in requests.
        path: of the run, checkpoint or model directory.
        threads: processor threads.
        max_requests: most requests in hand at a time.
        deliver: see `Engine`.
        log: receives warnings.

    Raises:
        NoInputError, DataError, StorageError: there is no model, or it is damaged.
    """

    def __init__(self, name: str, path: Path, *, threads: int, max_requests: int, deliver: Deliver, log: Log) -> None:
        self.name = name
        with translate_read_errors(path):
            self.is_run = (path / RUN_FILE).is_file() or (path / CHECKPOINTS_DIRECTORY).is_dir()
        self.num_requests = 0
        """Number of requests in hand."""
        self.token_counts = TokenCounts()
        self.executor = ThreadPoolExecutor(1)
        """Runs work other than generation, such as scoring, one request after the other."""
        self._path = path
        self._threads = threads
        self._max_requests = max_requests
        self._deliver = deliver
        self._log = log
        self._reload_lock = threading.Lock()
        self._changed = self._read_time_of_change()
        directory, _, warning = find_model(str(path), {}, Path())
        if warning:
            log(f"warning: {warning}")
        self.loaded = self._start(load_directory(directory))
        self._history: dict[str, Any] = {"steps": [], "validations": []}
        self._first_reading = self.executor.submit(self._read_history)

    @contextmanager
    def accept(self) -> Iterator[LoadedModel]:
        """Counts a request as in hand within the block.

        Raises:
            RequestError: too many requests are in hand.
        """
        if self.num_requests >= self._max_requests:
            message = f"{self.num_requests} requests to {self.name} are in hand already: try again later"
            raise RequestError(message, 429, headers={"Retry-After": "1"})
        loaded = self.loaded
        self.num_requests += 1
        loaded.num_requests += 1
        try:
            yield loaded
        finally:
            self.num_requests -= 1
            loaded.num_requests -= 1
            self._close_if_unused(loaded)

    def check_for_better(self) -> None:
        """Loads a better checkpoint in the background if the run has changed; called before each request."""
        if self.is_run and self._read_time_of_change() != self._changed:
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._reload, args=(loop,), name="quickfox-reload", daemon=True).start()

    def _reload(self, loop: asyncio.AbstractEventLoop) -> None:
        """Loads the best checkpoint of the run, and lets the event loop replace the model if it is better."""
        with self._reload_lock:
            changed = self._read_time_of_change()
            if changed == self._changed:
                return
            self._changed = changed
            self._read_history()
            try:
                better = self._load_better()
            except QuickfoxError as error:
                self._log(f"warning: {self.name}: still serves {self.loaded.model.path}: {error}")
                return
            if better is not None:
                loop.call_soon_threadsafe(self._replace, better)

    def _replace(self, better: LoadedModel) -> None:
        """Serves another model from now on; runs in the event loop, as `accept` does."""
        former, self.loaded = self.loaded, better
        self._close_if_unused(former)
        self._log(f"{self.name}: now serves {better.model.path}")

    def _close_if_unused(self, loaded: LoadedModel) -> None:
        if loaded is not self.loaded and loaded.num_requests == 0:
            loaded.engine.close(when_idle=True)

    def _load_better(self) -> LoadedModel | None:
        """The best checkpoint of the run, if it is better than the one in memory."""
        current = self.loaded.model
        directory, warning = find_best_model(self._path)
        if warning:
            self._log(f"warning: {self.name}: {warning}")
        if directory == current.path:
            return None
        model = load_directory(directory)
        return self._start(model) if _rank(model.bundle) < _rank(current.bundle) else None

    async def get_history(self) -> dict[str, Any]:
        """The losses and samples of the run as they were when its model was looked for last; see `describe_history`."""
        await asyncio.wrap_future(self._first_reading)
        return self._history

    def _read_history(self) -> None:
        if not self.is_run:
            return
        from quickfox.training.run.history import describe_history, read_history

        try:
            self._history = describe_history(read_history(self._path))
        except QuickfoxError as error:
            self._log(f"warning: {self.name}: its history cannot be shown: {error}")

    def close(self) -> None:
        """Ends the threads; a running generation ends at the next token."""
        self.executor.shutdown(cancel_futures=True)
        self.loaded.engine.close()

    def _read_time_of_change(self) -> int:
        """When a checkpoint was last added or removed, in ns since 1970; 0 if it is unknown."""
        try:
            return os.stat(self._path / CHECKPOINTS_DIRECTORY).st_mtime_ns  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            return 0

    def _start(self, model: Model) -> LoadedModel:
        if model.media is not None:
            raise DataError(
                f"{self._path}: the model reads {KIND_NAMES[model.media.kind]}, which requests cannot carry"
            )
        model = dataclasses.replace(model, threads=self._threads)
        engine = Engine(
            model.language_model, model.bundle.tokenizer, self._deliver, self._report_failure, self.token_counts
        )
        return LoadedModel(model, engine, time.time())

    def _report_failure(self, error: Exception) -> None:
        if isinstance(error, QuickfoxError):
            self._log(f"{self.name}: {error}")
        else:
            self._log("".join(traceback.format_exception(error)))


def _rank(bundle: ModelBundle) -> tuple[bool, float, int]:
    """Sorts models by validation loss, lowest first; those without a loss are last, latest first."""
    loss = bundle.validation_loss
    return (True, 0.0, -bundle.step) if loss is None else (False, loss, bundle.step)
