"""`llm info`: shows a model, a run or a vocabulary; without a path, the runs under ./runs."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickfox.cli.formatting import format_table
from quickfox.cli.streams import escape_unprintable, notify, write_output
from quickfox.errors import DataError, NoInputError, QuickfoxError
from quickfox.files.errors import translate_read_errors

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
    """Show the settings of a model, run or vocabulary. Without PATH, list the runs under ./runs."""
    from quickfox.checkpoints.run_directory import RUN_FILE

    if path is None:
        rows = _tabulate_runs()
    else:
        with translate_read_errors(path):
            is_run, is_directory = (path / RUN_FILE).is_file(), path.is_dir()
        tabulate = _tabulate_run if is_run else _tabulate_model if is_directory else _tabulate_vocabulary
        rows = tabulate(path)
    write_output(format_table([escape_unprintable(cell) for cell in row] for row in rows))


def _tabulate_runs() -> Rows:
    from quickfox.checkpoints.run_directory import RUNS_DIRECTORY, list_checkpoints, list_runs, sort_by_loss

    unreadable: list[QuickfoxError] = []
    runs = list_runs(Path(RUNS_DIRECTORY), unreadable)
    for error in unreadable:
        notify(f"warning: {error}; this run is skipped")
    if not runs:
        raise NoInputError(f"no runs in ./{RUNS_DIRECTORY}: train a model with `llm train corpus.txt`")
    yield "run", "steps", "best validation loss", "saved"
    for run_directory in runs:
        if not (checkpoints := list_checkpoints(run_directory)):
            continue  # removed meanwhile
        last, best = checkpoints[-1], sort_by_loss(checkpoints)[0]
        saved = datetime.fromtimestamp(last.saved_ns / 1e9)
        loss = _format_loss(best.manifest.validation_loss)
        yield str(run_directory), f"{last.manifest.step:,}", loss, f"{saved:%Y-%m-%d %H:%M}"


def _tabulate_run(run_directory: Path) -> Rows:
    from quickfox.checkpoints.run_directory import RUN_FILE, list_checkpoints, sort_by_loss
    from quickfox.files.json import read_json

    yield "run", str(run_directory)
    try:
        rows = list(_flatten(read_json(run_directory / RUN_FILE, allow_surrogates=True)))
    except RecursionError:  # Python 3.13 parses deeper nesting than it can traverse
        raise DataError(f"{run_directory / RUN_FILE}: nested too deeply") from None
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
    from quickfox.checkpoints.checkpoint import NGRAM_SETTINGS

    return setting != "ngrams" and (has_network or setting in NGRAM_SETTINGS)


def _format_ngrams(ngrams: Sequence[int]) -> str:
    return f"{len(ngrams)}-gram model, {sum(ngrams):,} n-grams"


def _format_loss(loss: float | None) -> str:
    return "not measured" if loss is None else f"{loss:.4f}"


def _format_characters(characters: Sequence[str]) -> str:
    """The characters in one line, unprintable ones escaped; long lists are truncated."""
    more = f" and {len(characters) - MAX_CHARACTERS} more" if len(characters) > MAX_CHARACTERS else ""
    return "".join(map(escape_unprintable, characters[:MAX_CHARACTERS])) + more
