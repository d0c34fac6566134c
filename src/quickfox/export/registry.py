"""A model in the format of another program, in a folder of its own. Which formats there are, and for which models."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quickfox.errors import UsageError
from quickfox.files.atomic import new_directory

if TYPE_CHECKING:
    from quickfox.checkpoints.checkpoint import ModelBundle

ExportFormat = Literal["huggingface", "gguf", "keras"]
Writer = Callable[["ModelBundle", Path], None]


def export(bundle: "ModelBundle", export_format: ExportFormat, directory: Path) -> None:
    """Write a model as the folder `directory`, whole or not at all; docs/export.md says what is in it.

    Args:
        bundle: the model.
        export_format: which program's format. All but keras are of one architecture only, the transformer.
        directory: must not exist, or be an empty folder.

    Raises:
        UsageError: the format has no place for such a model.
        UnavailableError: a library that is needed is not installed.
        CannotCreateError, StorageError: writing failed; nothing is left behind.
    """
    writer = _writer(bundle, export_format)
    with new_directory(directory) as temporary:
        writer(bundle, temporary)


def _writer(bundle: "ModelBundle", export_format: ExportFormat) -> Writer:
    if export_format == "keras":
        from quickfox.export.keras import write_keras

        return write_keras
    architecture = bundle.config.architecture
    if architecture != "transformer":
        raise UsageError(
            f"{export_format} cannot hold this model: what reads it runs transformers (Llama's kind), and this is "
            f"{_an(architecture)}; export it with --format keras"
        )
    if export_format == "huggingface":
        from quickfox.export.huggingface import write_huggingface

        return write_huggingface
    from quickfox.export.gguf import check_tokenizer, write_gguf

    check_tokenizer(bundle.tokenizer)
    return write_gguf


def _an(architecture: str) -> str:
    return f"an {architecture}" if architecture in ("rnn", "lstm", "attention-rnn") else f"a {architecture}"
