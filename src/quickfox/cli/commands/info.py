"""`llm info`: what a model, a run or a vocabulary is; without a path, which runs are here."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickfox.cli.formatting import format_table
from quickfox.cli.streams import escape_unprintable, write_product
from quickfox.errors import NoInputError

if TYPE_CHECKING:
    from quickfox.tokenizers.base import Tokenizer

EXAMPLES = """\b
Examples:
  llm info
  llm info runs/corpus
  llm info vocab.json"""

Rows = Iterator[tuple[str, ...]]

LIST_ITEMS_SHOWN = 3
CHARACTERS_SHOWN = 100


def run(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="A run, a checkpoint, a model directory or a vocabulary file."),
    ] = None,
) -> None:
    """Show what a model, run or vocabulary is. Without PATH: a table of the runs under ./runs."""
    rows = _runs_here() if path is None else _describe(path)
    write_product(format_table([escape_unprintable(cell) for cell in row] for row in rows))


def _describe(path: Path) -> Rows:
    from quickfox.checkpoints.run_directory import RUN_FILE
    from quickfox.files.errors import translate_read_errors

    with translate_read_errors(path):
        is_run, is_folder = (path / RUN_FILE).is_file(), path.is_dir()
    if is_run:
        return _describe_run(path, RUN_FILE)
    return _describe_model(path) if is_folder else _describe_vocabulary(path)


def _runs_here() -> Rows:
    from quickfox.checkpoints.run_directory import RUNS_FOLDER, list_checkpoints, list_runs, sort_by_loss

    runs = list_runs(Path(RUNS_FOLDER))
    if not runs:
        raise NoInputError(f"no runs in ./{RUNS_FOLDER}: train a model with `llm train corpus.txt`")
    yield "run", "steps", "best validation loss", "saved"
    for run_directory in runs:
        checkpoints = list_checkpoints(run_directory)
        last, best = checkpoints[-1], sort_by_loss(checkpoints)[0]
        saved = datetime.fromtimestamp(last.directory.stat().st_mtime)
        yield (
            str(run_directory),
            f"{last.manifest.step:,}",
            _format_loss(best.manifest.validation_loss),
            f"{saved:%Y-%m-%d %H:%M}",
        )


def _describe_run(run_directory: Path, description: str) -> Rows:
    from quickfox.checkpoints.run_directory import list_checkpoints, sort_by_loss
    from quickfox.files.json import read_json

    yield "run", str(run_directory)
    yield from _flatten(read_json(run_directory / description))
    checkpoints = list_checkpoints(run_directory)
    for checkpoint in checkpoints:
        best = " (best)" if checkpoint is sort_by_loss(checkpoints)[0] else ""
        loss = _format_loss(checkpoint.manifest.validation_loss)
        yield "checkpoint", f"{checkpoint.directory}  validation loss {loss}{best}"
    if not checkpoints:
        yield "checkpoint", "none"


def _describe_model(directory: Path) -> Rows:
    from quickfox.checkpoints.checkpoint import load_model
    from quickfox.checkpoints.manifest import read_manifest
    from quickfox.config.schema import to_dict
    from quickfox.models.parameters import parameter_count

    bundle = load_model(directory)
    yield "model", str(directory)
    yield from _flatten(to_dict(bundle.config))
    yield "parameters", f"{parameter_count(bundle.config):,}"
    yield "trained for", f"{bundle.step:,} steps"
    yield "validation loss", _format_loss(bundle.validation_loss)
    yield "training state", "yes" if read_manifest(directory).training else "no"
    yield from _flatten(dict(bundle.sampling), "sampling")
    yield from _describe_tokenizer(bundle.tokenizer)


def _describe_vocabulary(path: Path) -> Rows:
    from quickfox.tokenizers.serialization import load_tokenizer

    tokenizer = load_tokenizer(path)
    yield "vocabulary", str(path)
    yield "size", f"{tokenizer.vocabulary_size:,}"
    yield from _describe_tokenizer(tokenizer)


def _describe_tokenizer(tokenizer: "Tokenizer") -> Rows:
    from quickfox.tokenizers.character import CharacterTokenizer

    yield "tokenizer", tokenizer.kind
    if isinstance(tokenizer, CharacterTokenizer):
        yield "min_count", str(tokenizer.vocabulary.min_count)
        yield "characters", _show_characters(tokenizer.vocabulary.characters)
    if tokenizer.end_of_text is not None:
        yield "end of text", f"token {tokenizer.end_of_text:,}"


def _flatten(value: Any, name: str = "") -> Rows:
    """A row for each value in nested objects, by its path; of a long list only the beginning."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _flatten(member, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        more = f" and {len(value) - LIST_ITEMS_SHOWN} more" if len(value) > LIST_ITEMS_SHOWN else ""
        yield name, ", ".join(map(str, value[:LIST_ITEMS_SHOWN])) + more
    else:
        yield name, "none" if value is None else str(value)


def _format_loss(loss: float | None) -> str:
    return "not measured" if loss is None else f"{loss:.4f}"


def _show_characters(characters: tuple[str, ...]) -> str:
    """The characters in one line, those that cannot be seen as escapes; of a long list only the beginning."""
    more = f" and {len(characters) - CHARACTERS_SHOWN} more" if len(characters) > CHARACTERS_SHOWN else ""
    return "".join(map(escape_unprintable, characters[:CHARACTERS_SHOWN])) + more
