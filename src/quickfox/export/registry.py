"""Export of models to the formats of other programs: the formats, and the architectures that each supports.

No format has a place for n-gram tables, so an export is the network of a model alone.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from quickfox.config.media import KIND_NAMES
from quickfox.errors import UsageError
from quickfox.files.atomic import new_directory
from quickfox.models.parameters import parameter_shapes

if TYPE_CHECKING:
    from quickfox.checkpoints.checkpoint import ModelBundle

ExportFormat = Literal["huggingface", "gguf", "keras"]
Writer = Callable[["ModelBundle", Path], None]


def export(bundle: "ModelBundle", export_format: ExportFormat, directory: Path) -> None:
    """Write the network of a model as a new directory, completely or not at all; for its files see docs/export.md.

    Args:
        bundle: the model; its n-gram tables are left out.
        export_format: all but keras support the architecture transformer only.
        directory: must not exist, or be an empty directory.

    Raises:
        UsageError: the format is unknown, or does not support the model; or the model has no network.
        UnavailableError: a required library is not installed.
        CannotCreateError, StorageError: writing failed; no file is left.
    """
    network = extract_network(bundle)
    write = _select_writer(network, export_format)
    with new_directory(directory) as temporary:
        write(network, temporary)


def extract_network(bundle: "ModelBundle") -> "ModelBundle":
    """A model of the network of `bundle` alone, without n-gram tables: itself if it has none.

    Raises:
        UsageError: it has no network, or reads signals.
    """
    config = bundle.config
    if not config.has_network:
        raise UsageError(
            f"the model has the architecture {config.architecture}, which has no network to export: train a model with "
            "another architecture"
        )
    if config.media is not None:
        raise UsageError(f"the model reads {KIND_NAMES[config.media.kind]}, for which no format has a place")
    if not config.ngrams and not config.ngram_gate:
        return bundle
    network = dataclasses.replace(config, ngrams=(), ngram_gate=0)
    return dataclasses.replace(
        bundle,
        config=network,
        parameters={name: bundle.parameters[name] for name in parameter_shapes(network)},
        validation_loss=bundle.network_loss,
        network_loss=None,
    )


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
            f"{architecture}; keras takes every network"
        )
    if export_format == "huggingface":
        from quickfox.export.huggingface import write_huggingface

        return write_huggingface
    from quickfox.export.gguf import check_tokenizer, write_gguf

    check_tokenizer(bundle.tokenizer)
    return write_gguf
