"""Quickfox from Python, and what the command line calls: a text at one end of training, a model at the other.

    text -> model    train, resume, iter_training

What a trained model can do is in `trained_model`. The names are those of the command line's options. Nothing here
prints. TensorFlow is imported by training only.
"""

import glob
import itertools
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from quickfox.config.training import TrainingRequest
from quickfox.model import Model, load, load_directory
from quickfox.text.corpus import STANDARD_INPUT, open_corpus
from quickfox.training.engine.events import Event, RunContext, RunFinished

__all__ = ["Model", "iter_resumed_training", "iter_training", "load", "resume", "run_name", "train"]


def train(
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    output: str | PathLike[str] | None = None,
    vocab: str | PathLike[str] | None = None,
    init_from: str | PathLike[str] | None = None,
    on_event: Callable[[Event], None] | None = None,
    **options: Any,
) -> Model:
    """Trains a model on your text; returns the best by validation loss.

    Args:
        sources: one or more files, folders or globs.
        output: the folder of the run, new or empty; None: `runs/NAME`.
        vocab: a vocabulary file; None: all characters of the text.
        init_from: a run or model whose weights to start with; None: fresh ones.
        on_event: called with each event of quickfox.training.engine.events, to watch the run.
        options: the settings of TrainingRequest by name, such as `budget` (seconds), `epochs`, `steps`, `hidden_dim`.

    Raises:
        QuickfoxError: any of its children, with a message for the user.
        TypeError: an option that does not exist.
    """
    names = [fspath(sources)] if isinstance(sources, str | PathLike) else [fspath(source) for source in sources]
    return _last_model(
        iter_training(
            names,
            TrainingRequest(**options),
            output=None if output is None else Path(output),
            vocabulary_path=None if vocab is None else Path(vocab),
            init_from=None if init_from is None else Path(init_from),
            run_context=RunContext(notify=_warn, started=time.monotonic()),
        ),
        on_event,
    )


def resume(
    run: str | PathLike[str] | None = None, *, on_event: Callable[[Event], None] | None = None, **options: Any
) -> Model:
    """Goes on with an interrupted run, or extends a finished one; returns the best model by validation loss.

    Args:
        run: its folder; None: the newest under `runs`.
        on_event: as for `train`.
        options: `epochs`, `steps` or `budget` for another length; other settings only as they were.

    Raises:
        QuickfoxError: any of its children, with a message for the user.
        TypeError: an option that does not exist.
    """
    directory = None if run is None else Path(run)
    run_context = RunContext(notify=_warn, started=time.monotonic())
    return _last_model(iter_resumed_training(directory, TrainingRequest(**options), run_context=run_context), on_event)


def iter_training(
    sources: Sequence[str],
    request: TrainingRequest,
    *,
    output: Path | None,
    vocabulary_path: Path | None,
    run_context: RunContext,
    checkpoint_every: str | None = None,
    config_from: Path | None = None,
    init_from: Path | None = None,
    dry_run: bool = False,
) -> Generator[Event]:
    """Trains a model on the corpus of `sources`, telling what happens; see quickfox.training.run.start.start_run.

    Closing the generator ends the run in an orderly way, without saving once more.
    """
    from quickfox.training.run.start import start_run  # imports TensorFlow when it runs
    from quickfox.training.run.workers import check_sources

    check_sources(run_context.cluster, sources)
    yield from start_run(
        open_corpus(sources, run_context.notify),
        request,
        output=output,
        vocabulary_path=vocabulary_path,
        name=run_name(sources[0]),
        run_context=run_context,
        checkpoint_every=checkpoint_every,
        config_from=config_from,
        init_from=init_from,
        dry_run=dry_run,
    )


def iter_resumed_training(
    run_directory: Path | None,
    request: TrainingRequest,
    *,
    run_context: RunContext,
    checkpoint_every: str | None = None,
) -> Generator[Event]:
    """Goes on with a run, telling what happens; see quickfox.training.run.resume.resume_run."""
    from quickfox.training.run.resume import resume_run

    yield from resume_run(run_directory, request, run_context=run_context, checkpoint_every=checkpoint_every)


def run_name(source: str) -> str:
    """What to call the run of a corpus: the stem of a file, the name of a folder or of that which a glob looks into."""
    if source == STANDARD_INPUT:
        return "stdin"
    path = Path(source)
    if path.is_dir():
        return path.resolve().name
    if glob.has_magic(source) and not path.exists():
        folders = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        return Path(*folders).resolve().name
    return Path(path.name.removesuffix(".gz")).stem


def _last_model(events: Iterable[Event], on_event: Callable[[Event], None] | None) -> Model:
    for event in events:
        if on_event is not None:
            on_event(event)
        if isinstance(event, RunFinished):
            return load_directory(event.checkpoint)
    raise AssertionError("a run ends with RunFinished")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
