"""The progress of a training run as lines of text, for a terminal or a log."""

import shlex
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from quickfox.cli import STARTED
from quickfox.cli.streams import escape_unprintable, notify, program_name
from quickfox.config.schema import to_dict
from quickfox.system.units import format_duration
from quickfox.training.engine.events import (
    Event,
    NgramsEstimated,
    RunFinished,
    RunPlanned,
    RunStarted,
    StepsCompleted,
    Validated,
)
from quickfox.training.planning.cost import format_gibibytes

MAX_SAMPLE_LINES = 4


class PlainDisplay:
    """Writes the settings of a run and then one line per validation to standard error; `quiet`: nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing to release."""

    def start_progress(self, stage: str, size: int) -> Callable[[int], None]:
        """A no-op callback: reading a text is not shown."""
        del stage, size
        return lambda _count: None

    def show(self, event: Event) -> None:
        """Writes the lines for an event."""
        if self._quiet:
            return
        match event:
            case RunStarted():
                notify("\n".join([*format_settings(event), *event.advice]))
            case NgramsEstimated():
                notify("\n".join(format_ngrams(event)))
            case Validated():
                notify(format_validation(event))


def format_settings(event: RunStarted) -> list[str]:
    """The settings of a run, in lines."""
    model, training = event.model, event.training
    layers = "1 layer" if model.num_layers == 1 else f"{model.num_layers} layers"
    text = f"{event.training_tokens:,} training tokens, {event.validation_tokens:,} validation tokens"
    if event.held_out_tokens > event.validation_tokens:
        text += f": the first of {event.held_out_tokens:,} held out; llm evaluate measures all"
    if event.validation_targets and event.validation_targets != event.validation_tokens - 1:
        text += f", of which {event.validation_targets:,} are predicted"
    if event.documents is not None and event.training_documents is not None:
        held_out = event.documents - event.training_documents
        text += f"; documents {event.documents:,}: {event.training_documents:,} to train on, {held_out:,} held out"
    if not model.has_network:
        return [
            f"run       {event.directory}",
            f"text      {text}",
            f"model     {training.ngram_order}-gram model, vocabulary {model.vocabulary_size:,}",
        ]
    epochs = training.planned_steps * training.tokens_per_step / event.training_tokens
    budget = "" if event.budget_seconds is None else f"ends after {format_duration(event.budget_seconds)}, about "
    threads = f"{training.threads} threads"
    if event.workers > 1:
        threads = f"{event.workers} workers, {threads} in total"
    ngram = f"; mixed with n-grams of order {training.ngram_order}" if training.ngram_order else ""
    patience = "" if training.patience is None else f", patience {training.patience}"
    return [
        f"run       {event.directory}",
        f"text      {text}",
        f"model     {model.architecture}, {layers} of {model.hidden_dim}, embedding {model.embedding_dim}, "
        f"vocabulary {model.vocabulary_size:,}: {event.parameters:,} parameters{ngram}",
        f"training  {budget}{training.planned_steps:,} steps of {training.batch_size} x {training.window} tokens "
        f"({epochs:.1f} epochs), learning rate {training.learning_rate:g}, dropout {training.dropout:g}{patience}",
        f"machine   {training.precision}, {threads}; random seed {training.random_seed}",
    ]


def format_plan(event: RunPlanned) -> list[str]:
    """The settings of a planned run and its estimated cost, in lines."""
    cost = event.cost
    per_worker = "" if event.settings.workers == 1 else f" per worker ({event.settings.workers} workers)"
    time = f"time      {format_duration(cost.seconds)} in total"
    speed = f"{cost.tokens_per_second:,.0f} tokens/s"
    if event.settings.model.has_network:
        time += f", {format_duration(cost.seconds_per_epoch)} per epoch of {cost.tokens_per_epoch:,} tokens"
        speed += f", {cost.operations_per_token / 1e6:,.2f} million operations per token"
    return [
        *format_settings(event.settings),
        f"memory    {format_gibibytes(cost.memory_bytes)}{per_worker}; disk {format_gibibytes(cost.disk_bytes)}",
        f"{time}; {speed}",
    ]


def format_ngrams(event: NgramsEstimated) -> list[str]:
    """The size and the loss of the n-gram model alone, and what was left out of it, in lines."""
    order = len(event.ngrams)
    lines = [f"n-grams   {order}-gram model alone: validation {format_loss(event.loss)}; {sum(event.ngrams):,} n-grams"]
    pruned = [f"{k}-grams below {count}" for k, count in enumerate(event.min_counts, start=1) if count > 1]
    if pruned:
        lines.append(f"          left out for size: {', '.join(pruned)} occurrences")
    if event.counted_tokens < event.training_tokens:
        lines.append(f"          counted on {event.counted_tokens:,} of {event.training_tokens:,} training tokens")
    return lines


def format_validation(event: Validated) -> str:
    """The line for a validation; a star marks the best model so far."""
    return (
        f"epoch {event.epoch:6.2f}  step {event.step:,}/{event.total_steps:,}  "
        f"training {format_loss(event.train_loss)}  "
        f"validation {format_loss(event.validation_loss)}{_format_network_loss(event.network_loss)}  "
        f"best {format_loss(event.best_validation_loss)}  "
        f"{event.tokens_per_second:,.0f} tokens/s  {format_duration(event.seconds)}{' *' if event.is_best else ''}"
    )


def format_progress(event: StepsCompleted, last: Validated | None) -> str:
    """The current losses, speed and remaining time; `last` is the last validation."""
    validation = format_loss(last.validation_loss if last else None)
    best = format_loss(last.best_validation_loss if last else None)
    return (
        f"training {format_loss(event.train_loss)}  validation {validation}  best {best}  "
        f"{event.tokens_per_second:,.0f} tokens/s  {format_duration(event.seconds_left)} left"
    )


def format_result(event: RunFinished) -> list[str]:
    """Where the run is saved, its loss, and the next command to try."""
    saved = f"saved in {event.directory}"
    if event.parameters:  # an n-gram model has no steps
        early = " (stopped early: no improvement)" if event.stopped_early else ""
        saved += f" after {event.steps:,} steps{early}"
    kind, loss = "best validation", event.best_validation_loss
    if loss is None:  # without validation text
        kind, loss = "training", event.train_loss
    if loss is not None:
        saved += f"; {kind} loss {loss:.4f}{_format_network_loss(event.network_loss)} nats per token"
        if kind != "training" and event.validation_targets:
            saved += f" of {event.validation_targets:,}"
    return [
        saved,
        f"next: {program_name()} generate --model {shlex.quote(str(event.directory))}",
    ]


def format_sample(text: str) -> list[str]:
    """The first lines of a sample that are not blank, with control characters escaped."""
    lines = [escape_unprintable(line) for line in text.splitlines() if line.strip()]
    return lines[:MAX_SAMPLE_LINES]


def _format_network_loss(loss: float | None) -> str:
    return "" if loss is None else f" (network alone {loss:.4f})"


def format_loss(loss: float | None) -> str:
    """A loss in nats per token; `-` if it is not measured."""
    return "-" if loss is None else f"{loss:.4f}"


def format_resume_command(run: Path, trackers: Iterable[str] = ()) -> str:
    """How to resume a run, which is reported to these trackers."""
    options = [word for name in trackers for word in ("--report-to", name)]
    return f"resume with: {shlex.join([program_name(), 'train', '--resume', str(run), *options])}"


def plan_values(event: RunPlanned) -> dict[str, Any]:
    """The JSON object of `--dry-run --json`."""
    settings = event.settings
    return {
        "run": str(settings.directory),
        **to_dict(event.cost),
        "validation_tokens": settings.validation_tokens,
        "validation_targets": settings.validation_targets,
        "budget_seconds": settings.budget_seconds,
        "workers": settings.workers,
        "model": to_dict(settings.model),
        "training": to_dict(settings.training),
    }


def result_values(finished: RunFinished) -> dict[str, Any]:
    """The JSON object of `--json`."""
    return {
        "run": str(finished.directory),
        "checkpoint": str(finished.checkpoint),
        "epochs": finished.epochs,
        "steps": finished.steps,
        "tokens": finished.tokens,
        "seconds": round(time.monotonic() - STARTED, 3),  # of the whole command
        "tokens_per_second": finished.tokens_per_second,
        "train_loss": finished.train_loss,
        "validation_loss": finished.validation_loss,
        "best_validation_loss": finished.best_validation_loss,
        "validation_targets": finished.validation_targets,  # number of tokens whose loss it is
        "network_loss": finished.network_loss,  # of the best checkpoint, without the n-grams
        "parameters": finished.parameters,
        "workers": finished.workers,
    }
