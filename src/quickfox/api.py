"""Python API of training, which the command line calls too: a corpus in, a `Model` out.

Parameters are named like the options of the command line. The API does not print. Only training imports TensorFlow.
"""

import glob
import itertools
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from quickfox.config.corpus import CorpusOptions
from quickfox.config.training import TrainingRequest
from quickfox.errors import UsageError
from quickfox.model import Model, load, load_directory
from quickfox.text.corpus import open_corpus
from quickfox.text.sources import STANDARD_INPUT, uncompressed_name
from quickfox.training.engine.events import Event, RunContext, RunFinished, RunRequest

__all__ = ["Model", "iter_resumed_training", "iter_training", "load", "resume", "run_name", "train"]


def train(
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    output: str | PathLike[str] | None = None,
    validation: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vocab: str | PathLike[str] | None = None,
    init_from: str | PathLike[str] | None = None,
    on_event: Callable[[Event], None] | None = None,
    **options: Any,
) -> Model:
    """Trains a model on a corpus, and returns the checkpoint with the lowest validation loss.

    Args:
        sources: one or more files, folders or globs.
        output: the run directory, new or empty; None: `runs/NAME`.
        validation: files, folders or globs of the text to validate on, instead of a part of the corpus.
        vocab: a vocabulary file; None: the vocabulary is built from the training text.
        init_from: a run or model that provides the initial weights; None: random weights.
        on_event: called with each event of quickfox.training.engine.events.
        options: fields of TrainingRequest, such as `budget` (seconds), `epochs`, `steps` or `hidden_dim`, and of
            CorpusOptions, such as `lines` or `column`.

    Raises:
        QuickfoxError: any subclass.
        TypeError: an option does not exist.
    """
    names, validation_names = (
        [fspath(each)] if isinstance(each, str | PathLike) else [fspath(source) for source in each]
        for each in (sources, validation)
    )
    return _best_model(
        iter_training(
            names,
            RunRequest(
                corpus=CorpusOptions.take(options),  # before the others: it removes its own
                training=TrainingRequest(**options),
                output=None if output is None else Path(output),
                validation=tuple(validation_names),
                vocabulary_path=None if vocab is None else Path(vocab),
                init_from=None if init_from is None else Path(init_from),
            ),
            run_context=RunContext(notify=_warn, started=time.monotonic()),
        ),
        on_event,
    )


def resume(
    run: str | PathLike[str] | None = None, *, on_event: Callable[[Event], None] | None = None, **options: Any
) -> Model:
    """Continues an interrupted run, or extends a finished one; returns the checkpoint with the lowest validation loss.

    Args:
        run: the run directory; None: the newest under `runs`.
        on_event: as for `train`.
        options: `epochs`, `steps` or `budget` for a new length; other settings must be those of the run.

    Raises:
        QuickfoxError: any subclass.
        TypeError: an option does not exist.
    """
    directory = None if run is None else Path(run)
    run_context = RunContext(notify=_warn, started=time.monotonic())
    return _best_model(iter_resumed_training(directory, TrainingRequest(**options), run_context=run_context), on_event)


def iter_training(sources: Sequence[str], request: RunRequest, *, run_context: RunContext) -> Generator[Event]:
    """Trains a model on the corpus of `sources`, yielding events; see quickfox.training.run.start.start_run.

    Closing the generator ends the run without another checkpoint.
    """
    from quickfox.training.run.start import start_run  # imports TensorFlow when it runs
    from quickfox.training.run.transfer import resolve_corpus_options
    from quickfox.training.run.workers import check_sources

    check_sources(run_context.cluster, (*sources, *request.validation))
    if STANDARD_INPUT in sources and STANDARD_INPUT in request.validation:
        raise UsageError("standard input ('-') can be read only once: name a file for validation", "validation")
    options = resolve_corpus_options(request)
    corpus = open_corpus(sources, run_context.notify, options=options)
    validation = open_corpus(request.validation, run_context.notify, options=options) if request.validation else None
    yield from start_run(corpus, run_name(sources[0]), request, run_context, validation)


def iter_resumed_training(
    run_directory: Path | None,
    request: TrainingRequest,
    *,
    run_context: RunContext,
    checkpoint_every: str | None = None,
) -> Generator[Event]:
    """Continues a run, yielding events; see quickfox.training.run.resume.resume_run."""
    from quickfox.training.run.resume import resume_run

    yield from resume_run(run_directory, request, run_context=run_context, checkpoint_every=checkpoint_every)


def run_name(source: str) -> str:
    """The name of the run of a corpus: the stem of a file, or the name of a folder or of the folder of a glob."""
    if source == STANDARD_INPUT:
        return "stdin"
    path = Path(source)
    if path.is_dir():
        return path.resolve().name
    if glob.has_magic(source) and not path.exists():
        folders = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        return Path(*folders).resolve().name
    return Path(uncompressed_name(path.name)).stem


def _best_model(events: Generator[Event], on_event: Callable[[Event], None] | None) -> Model:
    """Consumes the events of a run, and loads its best checkpoint."""
    with closing(events):
        for event in events:
            if on_event is not None:
                on_event(event)
            if isinstance(event, RunFinished):
                return load_directory(event.checkpoint)
    raise AssertionError("a run ends with RunFinished")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
