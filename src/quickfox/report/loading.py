"""Read what a run left on disk, without TensorFlow: its record, history, best model and text.

What is missing or damaged becomes a sentence in the report; only a path that is no run is an error.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quickfox.checkpoints.run_directory import RUN_FILE, find_best_model
from quickfox.config.media import KIND_NAMES
from quickfox.data.dataset import Tokens
from quickfox.errors import DataError, NoInputError
from quickfox.model import Model, load_directory
from quickfox.text.corpus import Corpus
from quickfox.training.engine.events import RunContext
from quickfox.training.run.history import History, read_history
from quickfox.training.run.record import RunRecord, read_record
from quickfox.training.run.recorded_text import recorded_tokens

MAX_TRAINING_TOKENS = 2**22
"""Of a longer training text, only the last tokens are read for baselines and copies."""

MAX_HELD_OUT_TOKENS = 2**17
"""Of a longer held-out text, only the first tokens are measured."""


@dataclass(frozen=True)
class ReportedRun:
    """A run as it is on disk.

    Attributes:
        directory: the run directory.
        record: its `run.json`.
        history: its `history.jsonl`; empty if it is damaged.
        model: its best undamaged checkpoint; None: there is none.
        problems: a sentence for each part that is missing or damaged.
    """

    directory: Path
    record: RunRecord
    history: History
    model: Model | None
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.directory.resolve().name


def load_run(directory: Path, threads: int) -> ReportedRun:
    """Reads a run.

    Args:
        directory: the run directory.
        threads: of the model.

    Raises:
        NoInputError, DataError: it is not a run, or its record is damaged.
        StorageError: reading failed.
    """
    if directory.name == RUN_FILE:
        directory = directory.parent
    record = read_record(directory)
    problems: list[str] = []
    try:
        history = read_history(directory)
    except DataError as error:
        history = History([], [])
        problems.append(f"The history of the run is damaged: {error}.")
    model = None
    try:
        path, warning = find_best_model(directory)
        model = dataclasses.replace(load_directory(path), threads=threads)
        if warning:
            problems.append(f"A checkpoint is damaged: {warning}.")
    except (NoInputError, DataError) as error:
        problems.append(f"There is no model to examine: {error}.")
    return ReportedRun(directory, record, history, model, problems)


@dataclass(frozen=True, eq=False)
class RunText:
    """The text of a run, as token ids.

    Attributes:
        training_ids: (n,) the training text, or its end if it is long.
        held_out: the held-out text.
        is_cut: whether there is more training text.
    """

    training_ids: np.ndarray
    held_out: Tokens
    is_cut: bool


def load_text(run: ReportedRun) -> RunText | None:
    """The text of a run; None, with a problem, if it cannot be read."""
    media = run.record.model.media
    if media is not None:
        run.problems.append(
            f"The model reads {KIND_NAMES[media.kind]}, after which a report does not examine it: `llm evaluate` does."
        )
        return None
    context = RunContext(notify=lambda _: None, started=time.monotonic())
    try:
        with recorded_tokens(run.directory, run.record, context) as (training, held_out):
            first = max(0, len(training) - MAX_TRAINING_TOKENS)
            mask = held_out.loss_mask
            length = min(len(held_out), MAX_HELD_OUT_TOKENS)
            copied = Tokens(held_out.ids[:length], None if mask is None else mask[:length], held_out.unknown_token)
            return RunText(training.ids[first : len(training)], copied, is_cut=first > 0)
    except (NoInputError, DataError) as error:
        run.problems.append(f"The text of the run cannot be read: {error}.")
        return None


def find_held_out(model: Path, corpus: Corpus, run_context: RunContext) -> np.ndarray | None:
    """The token ids of the held-out text of the run of a model, of a long one the first; None: it is not of `corpus`.

    Args:
        model: the model directory.
        corpus: any text; it is compared with the files and the text of the run.
        run_context: for reading it.

    Raises:
        NoInputError, DataError: the text of the run is missing, or has changed.
    """
    run = model.parent.parent
    if not (run / RUN_FILE).is_file():
        return None
    record = read_record(run)
    names = {str(Path(name).absolute()) for name in corpus.names}
    if not names <= set(record.corpus.files) and corpus.digest() != record.corpus.sha256:
        return None
    with recorded_tokens(run, record, run_context) as (_, held_out):
        return np.array(held_out.ids[: min(len(held_out), MAX_HELD_OUT_TOKENS)])
