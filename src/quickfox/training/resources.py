"""Whether the machine can hold a run: memory and disk, estimated before anything is spent on it."""

import math
import os
import shutil
from pathlib import Path

from quickfox.config import ModelConfig, TrainingConfig
from quickfox.durable import output_errors
from quickfox.errors import StorageError, UsageError
from quickfox.models.parameters import parameter_count
from quickfox.training.cost import checkpoints_size, training_memory


def check_memory(model: ModelConfig, training: TrainingConfig, workers: int = 1) -> None:
    """Refuses what the machine's memory cannot hold.

    Args:
        model, training: the settings.
        workers: processes that share each batch, taken to be on a machine each.

    Raises:
        UsageError: training would need more memory than the machine has.
    """
    needed = training_memory(model, training, workers)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise UsageError(
            f"a model of {parameter_count(model):,} parameters on batches of {training.batch_size} x "
            f"{training.window} tokens needs about {format_gibibytes(needed)} of memory, and this machine has "
            f"{format_gibibytes(available)}: choose a smaller --hidden-dim, --num-layers, --batch-size or --window"
        )


def check_disk_space(run: Path, model: ModelConfig, training: TrainingConfig) -> None:
    """Refuses a run whose checkpoints would not fit.

    Raises:
        StorageError: too little space is free where the folder `run` is.
    """
    needed = checkpoints_size(model, training)
    with output_errors(run):
        free = shutil.disk_usage(run).free
    if free < needed:
        raise StorageError(
            f"{run}: the checkpoints of this model need about {format_gibibytes(needed)}, and only "
            f"{format_gibibytes(free)} are free on that disk: make room, or name another folder with --output"
        )


def format_gibibytes(count: int) -> str:
    """Bytes as a person says them, rounded up."""
    return f"{math.ceil(count / 2**30 * 100) / 100:,.2f} GiB"
