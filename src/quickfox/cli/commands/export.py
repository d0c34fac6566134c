"""`llm export`: a model in the format of another program."""

import os
from pathlib import Path
from typing import Annotated

import typer

from quickfox.cli.streams import notify
from quickfox.export.registry import ExportFormat

EXAMPLES = """\b
Examples:
  llm export runs/corpus --format huggingface -o fox-hf
  llm export runs/corpus --format gguf -o fox-gguf
  llm export runs/corpus --format keras -o fox-keras"""


def run(
    model: Annotated[
        str, typer.Argument(metavar="RUN", help="A run (its best checkpoint), a checkpoint or a model directory.")
    ],
    export_format: Annotated[
        ExportFormat,
        typer.Option(
            "--format", help="For Hugging Face or llama.cpp, which take --architecture transformer only, or for Keras."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to make.")],
) -> None:
    """Write a model for other programs, as a new folder: see docs/export.md."""
    from quickfox.checkpoints.run_directory import find_model
    from quickfox.model import load_directory

    directory, note = find_model(model, os.environ, Path())
    if note:
        notify(note)
    load_directory(directory).export(output, export_format)
    files = ", ".join(sorted(path.name for path in output.iterdir()))
    notify(f"wrote {output}: {files}")
