"""Whether the machine can hold a run: memory and disk, estimated before anything is spent on it."""

import math
import os
import shutil
from pathlib import Path

from quickfox.config import ModelConfig, TrainingConfig
from quickfox.durable import output_errors
from quickfox.errors import StorageError, UsageError
from quickfox.models.parameters import RECURRENT_GATES, feed_forward_dim, parameter_count, recurrent_cell

_FLOAT_BYTES = 4
_CHECKPOINTS_ON_DISK = 4  # the best, the last two, and the one being written
_TENSORS_PER_PARAMETER_ON_DISK = 3  # the weight and two moments
_TENSORS_PER_PARAMETER = 12  # measured at the peak, where gradients are added up or a checkpoint is written
_ACTIVATIONS_PER_GATE = 3  # a token's gates, their gradients, cell and output
_ACTIVATIONS_PER_UNIT_OF_ATTENTION = 12  # queries, keys, values, what is found, norms, the stream; their gradients
_ACTIVATIONS_PER_SCORE = 4  # a score, its softmax, their gradients
_ACTIVATIONS_PER_UNIT_OF_FEED_FORWARD = 6  # gate, up, their product; their gradients
_COPIES_OF_CACHE = 6  # old, new, those of lanes
_LOGITS_PER_TOKEN = 3  # the logits, their softmax, its gradient


def check_memory(model: ModelConfig, training: TrainingConfig) -> None:
    """Refuses what the machine's memory cannot hold.

    Raises:
        UsageError: training would need more memory than the machine has.
    """
    tokens = training.batch_size * training.window
    per_token = _activations_per_token(model, training.window) + _LOGITS_PER_TOKEN * model.vocabulary_size
    floats = _TENSORS_PER_PARAMETER * parameter_count(model) + tokens * per_token
    needed = _FLOAT_BYTES * (floats + _COPIES_OF_CACHE * _cache_floats(model, training.batch_size))
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise UsageError(
            f"a model of {parameter_count(model):,} parameters on batches of {training.batch_size} x "
            f"{training.window} tokens needs about {_gibibytes(needed)} of memory, and this machine has "
            f"{_gibibytes(available)}: choose a smaller --hidden-dim, --num-layers, --batch-size or --window"
        )


def _activations_per_token(model: ModelConfig, window: int) -> int:
    """Numbers that training keeps for each token of a batch, below the logits."""
    layers, units = model.num_layers, model.hidden_dim
    attention = _ACTIVATIONS_PER_UNIT_OF_ATTENTION * units
    attention += _ACTIVATIONS_PER_SCORE * model.num_heads * ((model.context or 0) + window)
    if model.architecture == "transformer":
        return layers * (attention + _ACTIVATIONS_PER_UNIT_OF_FEED_FORWARD * feed_forward_dim(units))
    recurrent = _ACTIVATIONS_PER_GATE * RECURRENT_GATES[recurrent_cell(model)] * units * layers
    return 2 * recurrent + attention if model.architecture == "attention-rnn" else recurrent


def _cache_floats(model: ModelConfig, batch_size: int) -> int:
    """Numbers of the keys and values that are carried from window to window."""
    attentions = model.num_layers if model.architecture == "transformer" else 1
    return 2 * attentions * batch_size * (model.context or 0) * model.hidden_dim


def check_disk_space(run: Path, model: ModelConfig, training: TrainingConfig) -> None:
    """Refuses a run whose checkpoints would not fit.

    Raises:
        StorageError: too little space is free where the folder `run` is.
    """
    floats = _TENSORS_PER_PARAMETER_ON_DISK * parameter_count(model) + _cache_floats(model, training.batch_size)
    needed = _CHECKPOINTS_ON_DISK * _FLOAT_BYTES * floats
    with output_errors(run):
        free = shutil.disk_usage(run).free
    if free < needed:
        raise StorageError(
            f"{run}: the checkpoints of this model need about {_gibibytes(needed)}, and only {_gibibytes(free)} "
            f"are free on that disk: make room, or name another folder with --output"
        )


def _gibibytes(count: int) -> str:
    return f"{math.ceil(count / 2**30 * 100) / 100:,.2f} GiB"
