"""A training run in plain lines of text: what is said on a terminal and in a log alike."""

import shlex
from collections.abc import Callable
from types import TracebackType
from typing import Self

from quickfox.cli.streams import notify, escape_unprintable
from quickfox.system.units import format_duration
from quickfox.training.engine.events import Event, RunFinished, RunPlanned, RunStarted, StepsCompleted, Validated
from quickfox.training.planning.cost import format_gibibytes

SAMPLE_LINES = 4


class PlainDisplay:
    """Shows a run where there is no terminal: its settings, then one line a validation; `quiet`: nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing was taken, nothing is given back."""

    def reading(self, stage: str, size: int) -> Callable[[int], None]:
        """Nobody watches."""
        del stage, size
        return lambda _read: None

    def show(self, event: Event) -> None:
        """Says what has happened, if it is worth a line that stays."""
        if self._quiet:
            return
        match event:
            case RunStarted():
                notify("\n".join(describe_start(event)))
            case Validated():
                notify(describe_validation(event))


def describe_start(event: RunStarted | RunPlanned) -> list[str]:
    """What was decided, in a few lines."""
    model, training = event.model, event.training
    layers = "1 layer" if model.num_layers == 1 else f"{model.num_layers} layers"
    passes = training.planned_steps * training.batch_size * training.window / event.training_tokens
    budget = "" if event.budget_seconds is None else f"ends after {format_duration(event.budget_seconds)}, about "
    threads = f"{training.threads} threads"
    if event.workers > 1:
        threads = f"{event.workers} workers with {threads} in all"
    patience = "" if training.patience is None else f", patience {training.patience}"
    return [
        f"run       {event.directory}",
        f"text      {event.training_tokens:,} tokens to learn from, {event.validation_tokens:,} held out",
        f"model     {model.architecture}, {layers} of {model.hidden_dim}, embedding {model.embedding_dim}, "
        f"vocabulary {model.vocabulary_size:,}: {event.parameters:,} parameters",
        f"training  {budget}{training.planned_steps:,} steps of {training.batch_size} x {training.window} tokens "
        f"({passes:.1f} epochs), learning rate {training.learning_rate:g}, dropout {training.dropout:g}{patience}",
        f"machine   {training.precision}, {threads}; random seed {training.random_seed}",
    ]


def describe_plan(event: RunPlanned) -> list[str]:
    """What would be decided, and what it would cost."""
    cost = event.cost
    each = "" if event.workers == 1 else f" for each of {event.workers} workers"
    return [
        *describe_start(event),
        f"memory    {format_gibibytes(cost.memory_bytes)}{each}; on disk {format_gibibytes(cost.disk_bytes)}",
        f"time      {format_duration(cost.seconds)} in all, {format_duration(cost.seconds_per_epoch)} an epoch of "
        f"{cost.tokens_per_epoch:,} tokens: {cost.tokens_per_second:,.0f} tokens/s, "
        f"{cost.operations_per_token / 1e6:,.2f} million operations each",
    ]


def describe_validation(event: Validated) -> str:
    """The line that a validation leaves; a star marks the best model so far."""
    return (
        f"epoch {event.epoch:6.2f}  step {event.step:,}/{event.total_steps:,}  training {event.train_loss:.4f}  "
        f"validation {format_loss(event.validation_loss)}  best {format_loss(event.best_validation_loss)}  "
        f"{event.tokens_per_second:,.0f} tokens/s  {format_duration(event.seconds)}{' *' if event.is_best else ''}"
    )


def describe_progress(event: StepsCompleted, last: Validated | None) -> str:
    """Where training stands between two validations."""
    validation = format_loss(last.validation_loss if last else None)
    best = format_loss(last.best_validation_loss if last else None)
    return (
        f"training {event.train_loss:.4f}  validation {validation}  best {best}  "
        f"{event.tokens_per_second:,.0f} tokens/s  {format_duration(event.seconds_left)} left"
    )


def describe_end(event: RunFinished) -> list[str]:
    """Where the result is, how good it is, and what to do next."""
    early = ", stopped early: no more progress" if event.stopped_early else ""
    kind, loss = "best validation", event.best_validation_loss
    if loss is None:  # no text was held out
        kind, loss = "training", event.train_loss
    return [
        f"saved in {event.run} after {event.steps:,} steps{early}; {kind} loss {format_loss(loss)} nats per token",
        f"next: llm generate --model {shlex.quote(str(event.run))}",
    ]


def sample_lines(text: str) -> list[str]:
    """The first lines of a model's own text that have anything on them, harmless to any terminal."""
    lines = [escape_unprintable(line) for line in text.splitlines() if line.strip()]
    return lines[:SAMPLE_LINES]


def format_loss(loss: float | None) -> str:
    """A loss in nats per token; a dash where there is none."""
    return "-" if loss is None else f"{loss:.4f}"
