"""`llm train`: a corpus in, a model out, and on the way a view of how it learns."""

import json
import os
import shlex
import sys
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quickfox.cli import STARTED
from quickfox.cli.options import CorpusArgument, JsonOption, ThreadsOption, parse_duration, pin_numpy_threads
from quickfox.cli.signals import Stopped, second_signal_ends_at_once
from quickfox.cli.streams import notify, write_product
from quickfox.cli.training_lines import PlainDisplay, describe_end
from quickfox.config import Architecture, Precision, TrainingRequest
from quickfox.training.events import Event, RunFinished, RunStarted, Validated

if TYPE_CHECKING:
    from quickfox.cli.display import LiveDisplay

NAME = "train"

EXAMPLES = """\b
Examples:
  llm train corpus.txt
  llm train books/ --budget 10m --output runs/books
  llm train corpus.txt --epochs 5 --hidden-dim 256 --random-seed 1
  zcat logs.gz | llm train - --quiet --json | jq .best_validation_loss"""


def _option(name: str, help_text: str, metavar: str = "N", **settings: Any) -> Any:
    """An option whose value is chosen to suit the text, the time and the machine where it is not given."""
    return typer.Option(name, metavar=metavar, help=help_text, show_default=False, **settings)


def run(
    corpus: CorpusArgument,
    output: Annotated[Path | None, _option("--output", "The run's folder. Default: runs/NAME.", "DIR")] = None,
    vocab: Annotated[
        Path | None, _option("--vocab", "A file of `llm build-vocab`. Default: all characters of the text.", "FILE")
    ] = None,
    budget: Annotated[
        float | None,
        _option("--budget", "Wall time for the whole command: 60s, 5m, 1h.", metavar="TIME", parser=parse_duration),
    ] = None,
    epochs: Annotated[float | None, _option("--epochs", "Train for so many passes over the text.")] = None,
    steps: Annotated[int | None, _option("--steps", "Train for so many optimizer steps.")] = None,
    patience: Annotated[
        int | None, _option("--patience", "Stop after so many validations without improvement.")
    ] = None,
    validation_split: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the text, its end, to validate on; 0: none.")
    ] = TrainingRequest.validation_split,
    architecture: Annotated[Architecture, typer.Option(help="The kind of network.")] = TrainingRequest.architecture,
    embedding_dim: Annotated[int | None, _option("--embedding-dim", "Numbers that stand for a token.")] = None,
    hidden_dim: Annotated[int | None, _option("--hidden-dim", "Units of a layer.")] = None,
    num_layers: Annotated[int | None, _option("--num-layers", "Recurrent layers, one upon the other.")] = None,
    dropout: Annotated[
        float | None, _option("--dropout", "Share of the layers' outputs to drop while training.", "SHARE")
    ] = None,
    batch_size: Annotated[int | None, _option("--batch-size", "Streams of text trained side by side.")] = None,
    window: Annotated[int | None, _option("--window", "Tokens of back-propagation through time.")] = None,
    learning_rate: Annotated[float | None, _option("--learning-rate", "The schedule's peak.", "RATE")] = None,
    random_seed: Annotated[
        int | None, _option("--random-seed", "Repeats the weights and the order of an earlier run.")
    ] = None,
    precision: Annotated[
        Literal["auto", Precision], typer.Option(help="Of the matrix products.")
    ] = TrainingRequest.precision,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Train a language model on a text. Settings that are not given are chosen to suit the text and the machine."""
    request = TrainingRequest(
        architecture=architecture,
        embedding_dim=embedding_dim,
        hidden_dim=hidden_dim,
        num_layers=num_layers,
        dropout=dropout,
        batch_size=batch_size,
        window=window,
        learning_rate=learning_rate,
        steps=steps,
        epochs=epochs,
        budget=budget,
        patience=patience,
        validation_split=validation_split,
        random_seed=random_seed,
        precision=precision,
        threads=threads,
    )
    pin_numpy_threads(1)  # NumPy only draws samples here; TensorFlow's threads are its own
    from quickfox.api import iter_training

    events = iter_training(corpus, request, output=output, vocabulary_path=vocab, notice=notify, started=STARTED)
    with second_signal_ends_at_once():
        finished = _watch(events, quiet=quiet)
    if as_json:
        write_product(json.dumps(_summary(finished)) + "\n")
    elif not quiet:
        notify("\n".join(describe_end(finished)))


def _watch(events: Generator[Event], *, quiet: bool) -> RunFinished:
    """Shows the events of a run until its last, and returns that one."""
    directory, is_saved = None, False
    try:
        with closing(events), _open_display(quiet) as display:
            for event in events:
                if isinstance(event, RunStarted):
                    directory = event.directory
                is_saved = is_saved or isinstance(event, Validated)
                display.show(event)
                if isinstance(event, RunFinished):
                    return event
    except Stopped:
        if is_saved:
            notify(f"stopped; the best model so far: llm generate --model {shlex.quote(str(directory))}")
        raise
    raise AssertionError("a run ends with RunFinished")


def _open_display(quiet: bool) -> "PlainDisplay | LiveDisplay":
    if quiet or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return PlainDisplay(quiet=quiet)
    from quickfox.cli.display import LiveDisplay  # Rich, only where it can be seen

    return LiveDisplay()


def _summary(finished: RunFinished) -> dict[str, Any]:
    """What `--json` prints; the seconds are those of the whole command."""
    return {
        "run": str(finished.run),
        "checkpoint": str(finished.checkpoint),
        "epochs": finished.epochs,
        "steps": finished.steps,
        "tokens": finished.tokens,
        "seconds": round(time.monotonic() - STARTED, 3),
        "tokens_per_second": finished.tokens_per_second,
        "train_loss": finished.train_loss,
        "validation_loss": finished.validation_loss,
        "best_validation_loss": finished.best_validation_loss,
        "parameters": finished.parameters,
        "workers": 1,
    }
