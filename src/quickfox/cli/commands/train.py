"""`llm train`: train a model on a corpus, and show its progress."""

import json
import os
import sys
from collections.abc import Generator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from quickfox.cli import STARTED
from quickfox.cli.options import CORPUS_HELP, JsonOption, option, options_from, with_corpus_options
from quickfox.cli.signals import StopRequest, set_stop_message
from quickfox.cli.streams import can_show_progress, notify, write_output
from quickfox.cli.training_log import (
    PlainDisplay,
    format_plan,
    format_result,
    format_resume_command,
    plan_values,
    result_values,
)
from quickfox.config.corpus import CorpusOptions
from quickfox.config.schema import Group
from quickfox.config.training import TrackerName, TrainingRequest
from quickfox.errors import UsageError
from quickfox.system.threads import pin_numpy_threads
from quickfox.training.distributed.cluster_spec import read_cluster_spec
from quickfox.training.engine.events import (
    Event,
    RunContext,
    RunFinished,
    RunInterrupted,
    RunPlanned,
    RunRequest,
    RunStarted,
    StepsCompleted,
    WorkerFinished,
    WorkerStarted,
)

if TYPE_CHECKING:
    from quickfox.cli.live_display import LiveDisplay
    from quickfox.training.run.trackers import Trackers

EXAMPLES = """\b
Examples:
  llm train corpus.txt
  llm train books/ --budget 10m --output runs/books
  llm train names.txt --lines --budget 30s
  llm train reviews.csv --column review
  llm train corpus.txt --epochs 5 --hidden-dim 256 --random-seed 1
  zcat logs.gz | llm train - --quiet --json | jq .best_validation_loss
  llm train --resume runs/books
  llm train letters.txt --init-from runs/books"""

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CORPUS... | RUN",
        help=f"{CORPUS_HELP} With --resume: the run to resume.",
        show_default=False,
    ),
]
VocabOption = Annotated[
    Path | None,
    option(
        "--vocab",
        "Vocabulary file made by `llm build-vocab`. Default: built from the training text.",
        "Corpus and tokenizer",
        metavar="FILE",
    ),
]
InitFromOption = Annotated[
    Path | None,
    option(
        "--init-from",
        "Run or model that provides the initial weights and the vocabulary. Default: random weights.",
        "Model",
        metavar="DIR",
    ),
]
RUN: Group = "Run and checkpoints"
ResumeOption = Annotated[
    bool, option("--resume", "Resume RUN, or the newest run if none is named, from its last checkpoint.", RUN)
]
OutputOption = Annotated[
    Path | None,
    option("--output", "Run directory, new or empty. Default: runs/NAME, named after the corpus.", RUN, metavar="DIR"),
]
ValidationOption = Annotated[
    list[str] | None,
    option("--validation", "Text to validate on; repeatable. Default: a part of CORPUS.", RUN, metavar="FILE"),
]
CheckpointEveryOption = Annotated[
    str | None,
    option("--checkpoint-every", "Steps (500) or time (5m) between checkpoints. Default: 3m.", RUN, metavar="N|TIME"),
]
ConfigOption = Annotated[
    Path | None,
    option(
        "--config", "run.json whose settings are used for options not given here. Default: none.", RUN, metavar="FILE"
    ),
]
KeepTokensOption = Annotated[
    bool, option("--keep-tokens", "Keep the encoded text in the run directory after training.", RUN)
]
TrustNetworkOption = Annotated[
    bool, option("--trust-network", "Allow public addresses of workers, on whose ports anyone can run code.", "Devices")
]
TRACKERS = get_args(TrackerName)
ReportToOption = Annotated[
    list[str] | None,
    option("--report-to", "Experiment tracker; may be repeated. Default: none.", RUN, metavar="|".join(TRACKERS)),
]
ProjectNameOption = Annotated[
    str, option("--project-name", "Project of the run in trackio and wandb. Default: quickfox.", RUN, metavar="NAME")
]
DryRunOption = Annotated[
    bool, option("--dry-run", "Print the settings and estimated cost of the run, without training.")
]
QuietOption = Annotated[bool, option("--quiet -q", "Show no progress.")]


@options_from(TrainingRequest)
@with_corpus_options
def run(
    sources: Sources = None,
    *,
    corpus_options: CorpusOptions,
    validation: ValidationOption = None,
    vocab: VocabOption = None,
    init_from: InitFromOption = None,
    resume: ResumeOption = False,
    output: OutputOption = None,
    checkpoint_every: CheckpointEveryOption = None,
    config: ConfigOption = None,
    keep_tokens: KeepTokensOption = False,
    trust_network: TrustNetworkOption = False,
    report_to: ReportToOption = None,
    project_name: ProjectNameOption = "quickfox",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    **settings: Any,
) -> None:
    """Train a language model on a text. Settings that are not given are chosen for the text, time and machine."""
    request = RunRequest(
        training=TrainingRequest(**settings),
        corpus=corpus_options,
        output=output,
        validation=tuple(validation or ()),
        vocabulary_path=vocab,
        config_from=config,
        init_from=init_from,
        checkpoint_every=checkpoint_every,
        dry_run=dry_run,
    )
    pin_numpy_threads(1)  # NumPy only samples here; TensorFlow has threads of its own
    if not report_to:  # some trackers need them
        _leave_out_imports_of_keras()
    stop = StopRequest()
    cluster = read_cluster_spec(os.environ)
    display = _open_display(quiet or dry_run or not cluster.is_chief)  # only the chief shows progress
    run_context = RunContext(
        **_callbacks(stop, display), keep_tokens=keep_tokens, cluster=cluster, trust_network=trust_network
    )
    trackers = _open_trackers(report_to or [] if cluster.is_chief else [], project_name)
    events = (_resume if resume else _start)(sources or [], request, run_context)
    if dry_run:
        _print_plan(events, as_json=as_json)
        return
    finished = _show_events(events, stop, display, trackers)
    if isinstance(finished, RunFinished):  # not a worker
        _show_result(finished, as_json=as_json, quiet=quiet)
    if stop.is_set():  # during the last step
        raise stop.to_exception()


def _show_result(finished: RunFinished, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        write_output(json.dumps(result_values(finished)) + "\n")
    elif not quiet:
        notify("\n".join(format_result(finished)))


def _callbacks(stop: StopRequest, display: "PlainDisplay | LiveDisplay") -> dict[str, Any]:
    """The members of the run's context by which it communicates, and its clock."""
    return {
        "notify": notify,
        "started": STARTED,
        "stop_requested": stop.is_set,
        "start_progress": display.start_progress,
    }


def _open_display(quiet: bool) -> "PlainDisplay | LiveDisplay":
    if quiet or not can_show_progress():
        return PlainDisplay(quiet=quiet)
    from quickfox.cli.live_display import LiveDisplay  # imports Rich

    return LiveDisplay()


def _leave_out_imports_of_keras() -> None:
    """Makes Keras do without the modules that it imports only if they are installed, each in up to half a second."""
    for name in ("cv2", "matplotlib", "pandas", "sklearn"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # an import then fails as if it were not there


def _open_trackers(names: list[str], project: str) -> "Trackers | None":
    if not names:
        return None
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"report_to must be one of {', '.join(TRACKERS)}, not {name!r}", "report_to")
    from quickfox.training.run.trackers import Trackers, check_installed

    trackers = cast(list[TrackerName], names)
    check_installed(trackers)
    return Trackers(trackers, project, notify)


def _start(sources: list[str], request: RunRequest, run_context: RunContext) -> Generator[Event]:
    from quickfox.api import iter_training

    if not sources:
        raise UsageError("no CORPUS: name a text file or a folder of them, or - for standard input; or --resume a run")
    return iter_training(sources, request, run_context=run_context)


def _resume(sources: list[str], request: RunRequest, run_context: RunContext) -> Generator[Event]:
    from quickfox.api import iter_resumed_training

    if request.dry_run:
        raise UsageError("--dry-run plans a new run, and cannot be given with --resume")
    given = {
        "output": request.output,
        "validation": request.validation or None,
        "vocab": request.vocabulary_path,
        "config": request.config_from,
        "init_from": request.init_from,
        **request.corpus.given,
    }
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name} cannot be given with --resume: a resumed run keeps its own", name)
    if len(sources) > 1:
        raise UsageError(f"--resume takes one run, not {len(sources)}: {' '.join(sources)}")
    return iter_resumed_training(
        Path(sources[0]) if sources else None,
        request.training,
        run_context=run_context,
        checkpoint_every=request.checkpoint_every,
    )


def _show_events(
    events: Generator[Event], stop: StopRequest, display: "PlainDisplay | LiveDisplay", trackers: "Trackers | None"
) -> RunFinished | WorkerFinished:
    """Shows the events of a run, and returns the last.

    Raises:
        Stopped: the run was interrupted.
    """
    with closing(events), display, trackers or nullcontext():
        for event in events:
            if isinstance(event, RunStarted):
                command = format_resume_command(event.directory, trackers.names if trackers else ())
                set_stop_message(f"stopped at step {event.step:,}; {command}")
            if isinstance(event, StepsCompleted | WorkerStarted):  # before, there is nothing to save
                stop.record_signals()
            display.show(event)
            if trackers:
                trackers.report(event)
            if isinstance(event, RunFinished | WorkerFinished):
                return event
            if isinstance(event, RunInterrupted):
                break
        else:
            raise AssertionError("a run ends with RunFinished or RunInterrupted")
    command = format_resume_command(event.directory, trackers.names if trackers else ())
    notify(f"stopped and saved at step {event.step:,}; {command}")
    raise stop.to_exception()


def _print_plan(events: Generator[Event], *, as_json: bool) -> None:
    with closing(events):
        for event in events:
            if isinstance(event, RunPlanned):
                write_output(json.dumps(plan_values(event)) + "\n" if as_json else "\n".join(format_plan(event)) + "\n")
