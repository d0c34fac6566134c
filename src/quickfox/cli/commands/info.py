"""`llm info`: shows a model, a run or a vocabulary; without a path, the runs under ./runs."""

import math
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickfox.cli.formatting import format_table
from quickfox.cli.streams import escape_unprintable, notify, write_output
from quickfox.errors import DataError, NoInputError, QuickfoxError
from quickfox.files.errors import translate_read_errors
from quickfox.system.units import format_duration

if TYPE_CHECKING:
    from quickfox.checkpoints.run_directory import Checkpoint

EXAMPLES = """\b
Examples:
  llm info
  llm info runs/corpus
  llm info vocab.json"""

Rows = Iterator[tuple[str, ...]]

MAX_LIST_ITEMS = 3
MAX_CHARACTERS = 100

MIN_CURVE_WIDTH, MAX_CURVE_WIDTH, CURVE_HEIGHT = 24, 90, 12
MAX_VALIDATIONS = 20
"""Of more validations, some at equal distances are shown, the first and the last among them."""


def run(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="Run, checkpoint, model directory or vocabulary file. Default: the runs under ./runs.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the settings of a model, run or vocabulary, and the losses of a run.

    Without PATH, list the runs under ./runs, the fewest bits per byte first.
    """
    from quickfox.checkpoints.run_directory import RUN_FILE

    if path is None:
        rows = _tabulate_runs()
    else:
        with translate_read_errors(path):
            is_run, is_directory = (path / RUN_FILE).is_file(), path.is_dir()
        tabulate = _tabulate_run if is_run else _tabulate_model if is_directory else _tabulate_vocabulary
        rows = tabulate(path)
    write_output(format_table([escape_unprintable(cell) for cell in row] for row in rows))
    if path is not None and is_run:
        write_output(_show_history(path))


def _tabulate_runs() -> Rows:
    from quickfox.checkpoints.run_directory import RUNS_DIRECTORY, list_checkpoints, list_runs, sort_by_loss

    unreadable: list[QuickfoxError] = []
    runs = list_runs(Path(RUNS_DIRECTORY), unreadable)
    for error in unreadable:
        notify(f"warning: {error}; this run is skipped")
    if not runs:
        raise NoInputError(f"no runs in ./{RUNS_DIRECTORY}: train a model with `llm train corpus.txt`")
    yield "run", "model", "tokenizer", "parameters", "steps", "time", "validation loss", "bits per byte", "saved"
    rows: list[tuple[float, tuple[str, ...]]] = []
    for run_directory in runs:
        if not (checkpoints := list_checkpoints(run_directory)):
            continue  # removed meanwhile
        try:
            rows.append(_describe_run(run_directory, checkpoints[-1], sort_by_loss(checkpoints)[0]))
        except QuickfoxError as error:
            notify(f"warning: {error}; this run is skipped")
    yield from (row for _, row in sorted(rows, key=itemgetter(0)))


def _describe_run(run_directory: Path, last: "Checkpoint", best: "Checkpoint") -> tuple[float, tuple[str, ...]]:
    """The row of a run, and the number by which it is sorted: bits per byte, or infinity."""
    from quickfox.models.parameters import parameter_count
    from quickfox.training.run.history import read_history
    from quickfox.training.run.record import read_record

    record, history = read_record(run_directory), read_history(run_directory)
    loss = best.manifest.validation_loss
    bits = record.corpus.bits_per_byte(loss)
    ends = [step.seconds for step in history.steps[-1:]] + [each.seconds for each in history.validations[-1:]]
    saved = datetime.fromtimestamp(last.saved_ns / 1e9)
    return math.inf if bits is None else bits, (
        str(run_directory),
        record.model.architecture,
        record.tokenizer,
        f"{parameter_count(record.model):,}" if record.model.has_network else "-",
        f"{last.manifest.step:,}",
        format_duration(max(ends)) if ends else "-",
        _format_loss(loss),
        "-" if bits is None else f"{bits:.4f}",
        f"{saved:%Y-%m-%d %H:%M}",
    )


def _tabulate_run(run_directory: Path) -> Rows:
    from quickfox.checkpoints.run_directory import RUN_FILE, list_checkpoints, sort_by_loss
    from quickfox.files.json import read_json
    from quickfox.training.run.record import read_record

    yield "run", str(run_directory)
    try:
        rows = list(_flatten(read_json(run_directory / RUN_FILE, allow_surrogates=True)))
    except RecursionError:  # Python 3.13 parses deeper nesting than it can traverse
        raise DataError(f"{run_directory / RUN_FILE}: nested too deeply") from None
    try:
        read_record(run_directory)
    except DataError as error:  # what it says is shown all the same
        notify(f"warning: {error}")
    has_network = ("model.architecture", "ngram") not in rows
    for path, value in rows:
        section, _, name = path.partition(".")
        is_shown = section not in ("model", "training") or _is_shown(name, has_network=has_network)
        if value and is_shown:  # an empty list has no row
            yield path, value
    checkpoints = list_checkpoints(run_directory)
    by_loss = sort_by_loss(checkpoints)
    if ngrams := _find_ngrams(by_loss):
        yield "n-grams", _format_ngrams(ngrams)
    for checkpoint in checkpoints:
        best = " (best)" if checkpoint is by_loss[0] else ""
        loss, network_loss = checkpoint.manifest.validation_loss, checkpoint.manifest.network_loss
        network = "" if network_loss is None else f", network alone {_format_loss(network_loss)}"
        yield "checkpoint", f"{checkpoint.directory}  validation loss {_format_loss(loss)}{network}{best}"
    if not checkpoints:
        yield "checkpoint", "none"


def _show_history(run_directory: Path) -> str:
    """The curve of the losses of a run and the table of its validations, of many the first and some others."""
    from quickfox.cli.curves import draw_losses
    from quickfox.training.run.history import read_history, sparse

    try:
        history = read_history(run_directory)
    except DataError as error:
        notify(f"warning: {error}")
        return ""
    training = [(each.step, each.train_loss) for each in history.steps]
    validation = [(each.step, each.validation_loss) for each in history.validations if each.validation_loss is not None]
    width = min(shutil.get_terminal_size().columns, MAX_CURVE_WIDTH)
    lines = draw_losses(training, validation, max(width, MIN_CURVE_WIDTH), CURVE_HEIGHT)
    curve = "".join(
        f"{line}\n" for line in ["", "loss in nats per token, of training (dots) and validation (o)", *lines]
    )
    rows: list[tuple[str, ...]] = [("step", "epoch", "training", "validation", "learning rate", "time")]
    for index in sparse(history.validations, MAX_VALIDATIONS):
        each = history.validations[index]
        losses = [_format_loss(loss) for loss in (each.train_loss, each.validation_loss)]
        time = format_duration(each.seconds)
        rows.append((f"{each.step:,}", f"{each.epoch:.2f}", *losses, f"{each.learning_rate:.2g}", time))
    table = "\n" + format_table(rows) if history.validations else ""
    return (curve if lines else "") + table


def _find_ngrams(checkpoints: "list[Checkpoint]") -> tuple[int, ...]:
    """The numbers of n-grams of the first checkpoint that has them; empty if none has."""
    from quickfox.checkpoints.checkpoint import load_config

    for checkpoint in checkpoints:
        try:
            ngrams = load_config(checkpoint.directory).ngrams
        except (NoInputError, DataError):  # pruned meanwhile, or damaged: reported by the commands that use the model
            continue
        if ngrams:
            return ngrams
    return ()


def _tabulate_model(directory: Path) -> Rows:
    from quickfox.checkpoints.checkpoint import describe_model, load_model
    from quickfox.checkpoints.manifest import read_manifest

    description = describe_model(load_model(directory))
    yield "model", str(directory)
    yield from _flatten(description["settings"])
    if description["ngrams"]:
        yield "n-grams", _format_ngrams(description["ngrams"])
    if description["parameters"] is not None:
        yield "parameters", f"{description['parameters']:,}"
        yield "trained for", f"{description['steps']:,} steps"
    yield "validation loss", _format_loss(description["validation_loss"])
    if description["ngrams"] and description["parameters"] is not None:
        yield "network alone", _format_loss(description["network_loss"])
    if description["is_chat"]:
        yield "trained on", "conversations"
    yield "training state", "yes" if read_manifest(directory).training else "no"
    yield from _flatten(description["sampling"], "sampling")
    yield from _tabulate_tokenizer(description["tokenizer"])


def _tabulate_vocabulary(path: Path) -> Rows:
    from quickfox.tokenizers.serialization import describe_tokenizer, load_tokenizer

    tokenizer = load_tokenizer(path)
    yield "vocabulary", str(path)
    yield "size", f"{tokenizer.vocabulary_size:,}"
    yield from _tabulate_tokenizer(describe_tokenizer(tokenizer))


def _tabulate_tokenizer(description: dict[str, Any]) -> Rows:
    yield "tokenizer", description["kind"]
    if "characters" in description:
        yield "min_count", str(description["min_count"])
        yield "characters", _format_characters(description["characters"])
    if description["end_of_text"] is not None:
        yield "end of text", f"token {description['end_of_text']:,}"


def _flatten(value: Any, name: str = "") -> Rows:
    """A row per value of nested objects, named by its path; long lists are truncated."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _flatten(member, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        more = f" and {len(value) - MAX_LIST_ITEMS} more" if len(value) > MAX_LIST_ITEMS else ""
        yield name, ", ".join(map(str, value[:MAX_LIST_ITEMS])) + more if value else "none"
    else:
        yield name, "none" if value is None else str(value)


def _is_shown(setting: str, *, has_network: bool) -> bool:
    """Whether a setting of a model or of its training has a row; the numbers of n-grams have one of their own."""
    from quickfox.checkpoints.checkpoint import NGRAM_SETTINGS, SETTINGS_OF_TEXT

    return setting not in SETTINGS_OF_TEXT and (has_network or setting in NGRAM_SETTINGS)


def _format_ngrams(ngrams: Sequence[int]) -> str:
    return f"{len(ngrams)}-gram model, {sum(ngrams):,} n-grams"


def _format_loss(loss: float | None) -> str:
    return "not measured" if loss is None else f"{loss:.4f}"


def _format_characters(characters: Sequence[str]) -> str:
    """The characters in one line, unprintable ones escaped; long lists are truncated."""
    more = f" and {len(characters) - MAX_CHARACTERS} more" if len(characters) > MAX_CHARACTERS else ""
    return "".join(map(escape_unprintable, characters[:MAX_CHARACTERS])) + more
