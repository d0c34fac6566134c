"""`llm train`: a corpus in, a model out, and on the way a view of how it learns."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quickfox.cli import STARTED
from quickfox.cli.options import JsonOption, ThreadsOption
from quickfox.cli.signals import StopRequest, end_at_once, second_signal_ends_at_once
from quickfox.cli.streams import can_show_progress, failure_line, notify, write_product
from quickfox.cli.training_log import PlainDisplay, describe_end, describe_plan
from quickfox.config.model import Architecture, TokenizerKind
from quickfox.config.schema import to_dict
from quickfox.config.training import Precision, Size, TrainingRequest
from quickfox.errors import QuickfoxError, UsageError
from quickfox.system.threads import pin_numpy_threads
from quickfox.system.units import parse_duration
from quickfox.training.distributed.cluster_spec import read_cluster_spec
from quickfox.training.engine.events import (
    Event,
    RunContext,
    RunFinished,
    RunInterrupted,
    RunPlanned,
    RunStarted,
    WorkerFinished,
    WorkerStarted,
)

if TYPE_CHECKING:
    from quickfox.cli.live_display import LiveDisplay

EXAMPLES = """\b
Examples:
  llm train corpus.txt
  llm train books/ --budget 10m --output runs/books
  llm train corpus.txt --epochs 5 --hidden-dim 256 --random-seed 1
  zcat logs.gz | llm train - --quiet --json | jq .best_validation_loss
  llm train --resume runs/books
  llm train letters.txt --init-from runs/books"""


def _option(name: str, help_text: str, metavar: str = "N", **settings: Any) -> Any:
    """An option whose value is chosen to suit the text, the time and the machine where it is not given."""
    return typer.Option(name, metavar=metavar, help=help_text, show_default=False, **settings)


def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CORPUS... | RUN",
            help="Text files, folders (every *.txt in them), globs, or - for standard input; UTF-8; .gz is unpacked; "
            "*.jsonl is JSON lines of texts that end. "
            "With --resume: the run to go on with.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run, the newest if none is named, from where it stopped.")
    ] = False,
    output: Annotated[Path | None, _option("--output", "The run's folder. Default: runs/NAME.", "DIR")] = None,
    vocab: Annotated[
        Path | None, _option("--vocab", "A file of `llm build-vocab`. Default: all characters of the text.", "FILE")
    ] = None,
    init_from: Annotated[
        Path | None, _option("--init-from", "Start with the weights of this run or model, and its vocabulary.", "DIR")
    ] = None,
    freeze_embeddings: Annotated[
        bool, typer.Option("--freeze-embeddings", help="With --init-from: leave the embedding as it is.")
    ] = False,
    tokenizer: Annotated[
        TokenizerKind | None, typer.Option(help="What a token is. Default: char, a character.", show_default=False)
    ] = None,
    vocabulary_size: Annotated[
        int | None, _option("--vocabulary-size", "Most tokens of a word or bpe tokenizer. Default: 4096.")
    ] = None,
    budget: Annotated[
        float | None,
        _option("--budget", "Wall time for the whole command: 60s, 5m, 1h.", metavar="TIME", parser=parse_duration),
    ] = None,
    epochs: Annotated[float | None, _option("--epochs", "Train for so many passes over the text.")] = None,
    steps: Annotated[int | None, _option("--steps", "Train for so many optimizer steps.")] = None,
    checkpoint_every: Annotated[
        str | None,
        _option("--checkpoint-every", "Save after so many steps (500) or so much time (5m). Default: 3m.", "N|TIME"),
    ] = None,
    keep_tokens: Annotated[
        bool, typer.Option("--keep-tokens", help="Keep the encoded text in the run's folder when the run has finished.")
    ] = False,
    config: Annotated[
        Path | None,
        _option("--config", "Repeat the settings of a run, from its run.json; options given here win.", "FILE"),
    ] = None,
    patience: Annotated[
        int | None, _option("--patience", "Stop after so many validations without improvement.")
    ] = None,
    validation_split: Annotated[
        float | None,
        _option("--validation-split", "Share of the text, its end, to validate on; 0: none. Default: 0.1.", "SHARE"),
    ] = None,
    architecture: Annotated[
        Architecture | None, typer.Option(help="The kind of network. Default: lstm.", show_default=False)
    ] = None,
    size: Annotated[
        Size | None, typer.Option(help="Layers and units by a name. Default: as the time allows.", show_default=False)
    ] = None,
    embedding_dim: Annotated[int | None, _option("--embedding-dim", "Numbers that stand for a token.")] = None,
    hidden_dim: Annotated[int | None, _option("--hidden-dim", "Units of a layer.")] = None,
    num_layers: Annotated[int | None, _option("--num-layers", "Layers, one upon the other.")] = None,
    num_heads: Annotated[int | None, _option("--num-heads", "Attentions side by side in a layer.")] = None,
    dropout: Annotated[
        float | None, _option("--dropout", "Share of the layers' outputs to drop while training.", "SHARE")
    ] = None,
    batch_size: Annotated[int | None, _option("--batch-size", "Streams of text trained side by side.")] = None,
    window: Annotated[
        int | None,
        _option("--window", "Tokens of back-propagation through time; attention sees as far, or twice as far."),
    ] = None,
    learning_rate: Annotated[float | None, _option("--learning-rate", "The schedule's peak.", "RATE")] = None,
    random_seed: Annotated[
        int | None, _option("--random-seed", "Repeats the weights and the order of an earlier run.")
    ] = None,
    precision: Annotated[
        Literal["auto", Precision], typer.Option(help="Of the matrix products.")
    ] = TrainingRequest.precision,
    threads: ThreadsOption = None,
    local_workers: Annotated[
        int | None,
        _option("--local-workers", "Train with so many processes of this machine, to try out what several would do."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide everything, print what it would cost, and train nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Train a language model on a text. Settings that are not given are chosen to suit the text and the machine."""
    request = TrainingRequest(
        architecture=architecture,
        size=size,
        embedding_dim=embedding_dim,
        hidden_dim=hidden_dim,
        num_layers=num_layers,
        num_heads=num_heads,
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
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        freeze_embeddings=freeze_embeddings or None,
    )
    pin_numpy_threads(1)  # NumPy only draws samples here; TensorFlow's threads are its own
    from quickfox.api import iter_resumed_training, iter_training

    if local_workers is not None:
        from quickfox.cli.local_workers import run_local_workers

        run_local_workers(local_workers, sys.argv[1:])
        return
    cluster = read_cluster_spec(os.environ)
    is_quiet = quiet or dry_run or (cluster is not None and not cluster.is_chief)
    stop = StopRequest()
    display = _open_display(is_quiet)
    run_context = RunContext(
        notify=notify,
        started=STARTED,
        stop_requested=stop.is_set,
        start_progress=display.reading,
        keep_tokens=keep_tokens,
        cluster=cluster,
        abort=_leaver(),
    )
    if resume:
        if dry_run:
            raise UsageError("--dry-run plans a new run, and cannot be given with --resume")
        for option, value in (
            ("--output", output),
            ("--vocab", vocab),
            ("--config", config),
            ("--init-from", init_from),
        ):
            if value is not None:
                raise UsageError(f"{option} cannot be given with --resume: a resumed run keeps its own")
        if sources and len(sources) > 1:
            raise UsageError(f"--resume goes on with one run, not with {len(sources)}: {' '.join(sources)}")
        run_path = Path(sources[0]) if sources else None
        events = iter_resumed_training(run_path, request, run_context=run_context, checkpoint_every=checkpoint_every)
    elif sources:
        events = iter_training(
            sources,
            request,
            output=output,
            vocabulary_path=vocab,
            run_context=run_context,
            checkpoint_every=checkpoint_every,
            config_from=config,
            init_from=init_from,
            dry_run=dry_run,
        )
    else:
        raise UsageError("no CORPUS: name a text file or a folder of them, or - for standard input; or --resume a run")
    if dry_run:
        _show_plan(events, as_json=as_json)
        return
    with second_signal_ends_at_once():
        finished = _watch(events, stop, display)
    if isinstance(finished, WorkerFinished):
        return
    if as_json:
        write_product(json.dumps(_summary(finished)) + "\n")
    elif not quiet:
        notify("\n".join(describe_end(finished)))


def _leaver() -> Callable[[QuickfoxError], None]:
    """What ends the process if its main thread waits for a lost peer in a call that does not return."""
    terminal = os.dup(2)
    return lambda error: end_at_once(error.exit_status, failure_line(str(error)), terminal)


def _watch(
    events: Generator[Event], stop: StopRequest, display: "PlainDisplay | LiveDisplay"
) -> RunFinished | WorkerFinished:
    """Shows the events of a run until its last, and returns that one; an interrupted run raises Stopped."""
    with closing(events), display:
        for event in events:
            if isinstance(event, RunStarted | WorkerStarted):
                stop.wait_for_saving()
            display.show(event)
            if isinstance(event, RunFinished | WorkerFinished):
                return event
            if isinstance(event, RunInterrupted):
                break
        else:
            raise AssertionError("a run ends with RunFinished or RunInterrupted")
    notify(f"stopped and saved at step {event.step:,}; go on with: llm train --resume {shlex.quote(str(event.run))}")
    raise stop.as_exception()


def _show_plan(events: Generator[Event], *, as_json: bool) -> None:
    """Prints what a run would be, of which nothing is done."""
    with second_signal_ends_at_once(), closing(events):
        for event in events:
            if isinstance(event, RunPlanned):
                write_product(json.dumps(_plan(event)) + "\n" if as_json else "\n".join(describe_plan(event)) + "\n")


def _plan(event: RunPlanned) -> dict[str, Any]:
    """What `--dry-run --json` prints."""
    return {
        "run": str(event.directory),
        **to_dict(event.cost),
        "validation_tokens": event.validation_tokens,
        "budget_seconds": event.budget_seconds,
        "workers": event.workers,
        "model": to_dict(event.model),
        "training": to_dict(event.training),
    }


def _open_display(quiet: bool) -> "PlainDisplay | LiveDisplay":
    if quiet or not can_show_progress():
        return PlainDisplay(quiet=quiet)
    from quickfox.cli.live_display import LiveDisplay  # Rich, only where it can be seen

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
        "workers": finished.workers,
    }
