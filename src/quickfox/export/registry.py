"""Export of models to the formats of other programs: the formats, and the architectures that each supports."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from quickfox.errors import UsageError
from quickfox.files.atomic import new_directory

if TYPE_CHECKING:
    from quickfox.checkpoints.checkpoint import ModelBundle

ExportFormat = Literal["huggingface", "gguf", "keras"]
Writer = Callable[["ModelBundle", Path], None]


def export(bundle: "ModelBundle", export_format: ExportFormat, directory: Path) -> None:
    """Write a model as a new directory, completely or not at all; for its files see docs/export.md.

    Args:
        bundle: the model.
        export_format: all but keras support the architecture transformer only.
        directory: must not exist, or be an empty directory.

    Raises:
        UsageError: the format is unknown, or does not support the model.
        UnavailableError: a required library is not installed.
        CannotCreateError, StorageError: writing failed; no file is left.
    """
    write = _select_writer(bundle, export_format)
    with new_directory(directory) as temporary:
        write(bundle, temporary)


def _select_writer(bundle: "ModelBundle", export_format: ExportFormat) -> Writer:
    if export_format not in get_args(ExportFormat):
        raise UsageError(f"the format must be one of {', '.join(get_args(ExportFormat))}, not {export_format!r}")
    if export_format == "keras":
        from quickfox.export.keras import write_keras

        return write_keras
    architecture = bundle.config.architecture
    if architecture != "transformer":
        raise UsageError(
            f"{export_format} requires the architecture transformer, and the model has the architecture "
            f"{architecture}; keras takes every architecture"
        )
    if export_format == "huggingface":
        from quickfox.export.huggingface import write_huggingface

        return write_huggingface
    from quickfox.export.gguf import check_tokenizer, write_gguf

    check_tokenizer(bundle.tokenizer)
    return write_gguf
