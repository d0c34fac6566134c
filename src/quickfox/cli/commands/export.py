"""`llm export`: writes a model in the format of another program."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickfox.cli.options import load_selected_model, option
from quickfox.cli.streams import notify
from quickfox.export.registry import ExportFormat

if TYPE_CHECKING:
    from quickfox.checkpoints.checkpoint import ModelBundle

EXAMPLES = """\b
Examples:
  llm export runs/corpus --format huggingface -o fox-hf
  llm export runs/corpus --format gguf -o fox-gguf
  llm export runs/corpus --format keras -o fox-keras"""


def run(
    model: Annotated[
        str, typer.Argument(metavar="RUN", help="Run (its best checkpoint), checkpoint or model directory.")
    ],
    export_format: Annotated[
        ExportFormat, option("--format", "File format; huggingface and gguf require --architecture transformer.")
    ],
    output: Annotated[Path, option("--output -o", "The directory to create.", metavar="DIR")],
) -> None:
    """Write a model for Hugging Face transformers, llama.cpp or Keras. See docs/export.md."""
    loaded = load_selected_model(model)
    loaded.export(output, export_format)
    if loaded.bundle.config.ngrams:
        notify(_describe_network(loaded.bundle))
    files = ", ".join(sorted(path.name for path in output.iterdir()))
    notify(f"wrote {output}: {files}")


def _describe_network(bundle: "ModelBundle") -> str:
    """What the export of a model with n-gram tables lacks, with the loss of the network and that of the model."""
    if bundle.network_loss is None or bundle.validation_loss is None:
        return "the export is the network alone, without the n-gram model"
    return (
        f"the export is the network alone: validation loss {bundle.network_loss:.4f}, with the n-gram model "
        f"{bundle.validation_loss:.4f}"
    )
