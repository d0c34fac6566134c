"""Whether the machine can hold a run: memory and disk, estimated before anything is spent on it."""

import math
import os
import shutil
from pathlib import Path

from quickfox.config import ModelConfig, TrainingConfig
from quickfox.durable import output_errors
from quickfox.errors import StorageError, UsageError
from quickfox.models.parameters import parameter_count

_FLOAT_BYTES = 4
_CHECKPOINTS_ON_DISK = 4  # the best, the last two, and the one being written
_TENSORS_PER_PARAMETER_ON_DISK = 3  # the weight and two moments
_TENSORS_PER_PARAMETER = 12  # measured at the peak, where gradients are added up or a checkpoint is written
_ACTIVATIONS_PER_UNIT = 3 * 4  # a token's gates, their gradients, cell and output
_LOGITS_PER_TOKEN = 3  # the logits, their softmax, its gradient


def check_memory(model: ModelConfig, training: TrainingConfig) -> None:
    """Refuses what the machine's memory cannot hold.

    Raises:
        UsageError: training would need more memory than the machine has.
    """
    tokens = training.batch_size * training.window
    per_token = _ACTIVATIONS_PER_UNIT * model.hidden_dim * model.num_layers + _LOGITS_PER_TOKEN * model.vocabulary_size
    needed = _FLOAT_BYTES * (_TENSORS_PER_PARAMETER * parameter_count(model) + tokens * per_token)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise UsageError(
            f"a model of {parameter_count(model):,} parameters on batches of {training.batch_size} x "
            f"{training.window} tokens needs about {_gibibytes(needed)} of memory, and this machine has "
            f"{_gibibytes(available)}: choose a smaller --hidden-dim, --num-layers, --batch-size or --window"
        )


def check_disk_space(run: Path, model: ModelConfig) -> None:
    """Refuses a run whose checkpoints would not fit.

    Raises:
        StorageError: too little space is free where the folder `run` is.
    """
    parameter_bytes = _FLOAT_BYTES * parameter_count(model)
    needed = _CHECKPOINTS_ON_DISK * _TENSORS_PER_PARAMETER_ON_DISK * parameter_bytes
    with output_errors(run):
        free = shutil.disk_usage(run).free
    if free < needed:
        raise StorageError(
            f"{run}: the checkpoints of this model need about {_gibibytes(needed)}, and only {_gibibytes(free)} "
            f"are free on that disk: make room, or name another folder with --output"
        )


def _gibibytes(count: int) -> str:
    return f"{math.ceil(count / 2**30 * 100) / 100:,.2f} GiB"
