"""What a training run costs: memory, disk and time, by a model of cost that is checked against measured runs.

Pure functions of decided settings and of a measured speed; whether the machine has as much is asked in `resources.py`.
What a run computes and keeps is counted, and each count has a constant that was fitted to whole runs on a processor by
benchmarks/cost_model.py. docs/scaling.md says the same in plain words, and how far off it is.
"""

import math
import os
import shutil
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.errors import StorageError, UsageError
from quickfox.files.errors import translate_write_errors
from quickfox.models.parameters import (
    RECURRENT_GATES,
    feed_forward_dim,
    hidden_kernels,
    parameter_count,
    parameter_shapes,
    recurrent_cell,
)
from quickfox.training.planning.auto_config import STARTUP_SECONDS
from quickfox.training.planning.presets import operations_per_token
from quickfox.training.planning.time_budget import FINISH_SECONDS, VALIDATION_SPEED_UP, VALIDATION_TRACING_SECONDS

FLOAT_BYTES = 4
ORTHOGONALISATION_STEPS = 2  # of Muon, see `optimization.NEWTON_SCHULZ`

# Memory, in bytes or in numbers of four bytes.
BASE_BYTES = 690_000_000  # Python, TensorFlow, Keras
_GRAPH_BYTES_PER_TIME_STEP = 500_000  # of a recurrent layer, whose time loop is unrolled and compiled
_GRAPH_BYTES_PER_TRANSFORMER_LAYER = 25_000_000
_COPIES_OF_PARAMETER = 9  # weight and slots, gradients and their sum, copies for a checkpoint
_ACTIVATIONS_PER_GATE = 3  # a token's gates, their gradients, and in the place of one more gate cell and output
_ACTIVATIONS_PER_UNIT_OF_ATTENTION = 12  # queries, keys, values, what is found, norms, the stream; their gradients
_ACTIVATIONS_PER_UNIT_OF_FEED_FORWARD = 4  # gate, up, their product; their gradients
_ACTIVATIONS_PER_SCORE = 2  # a score, its softmax
_COPIES_OF_LOGIT = 1.5  # logits and their softmax; not all of it is there at the peak
_COPIES_OF_LOOK_UP = 1.5  # a token's place in the vocabulary as a row of zeros and a one, of which the same is true
_COPIES_OF_CACHE = 2  # old, new

# Disk.
_CHECKPOINTS = 4  # the best, the last two, and the one being written
_TENSORS_PER_PARAMETER_ON_DISK = 3  # the weight and two moments

# Time, of what is slow for memory's sake, in floating-point operations that matrix products do meanwhile.
_OPERATIONS_PER_ACTIVATION = 190
_OPERATIONS_PER_LOGIT = 1200
_OPERATIONS_PER_UPDATE = 1800  # of a parameter
_OPERATIONS_PER_TIME_STEP = 4_000_000  # of a recurrent layer: calling its products, however small they are
PRODUCT_SPEED = 1.25  # of the products in a step, as a multiple of what `matmul_speed` measures


@dataclass(frozen=True)
class Cost:
    """What a run costs, about.

    Attributes:
        parameters: trained numbers.
        memory_bytes: resident at the peak, in each worker's process.
        disk_bytes: of the checkpoints that are there at a time.
        tokens_per_epoch: of the training text.
        epochs: passes over the training text.
        operations_per_token: floating-point operations of the matrix products, and what else takes as long.
        tokens_per_second: of all workers together.
        seconds_per_epoch: without validations.
        seconds: of the whole command, start-up, validations and saving included; at most, if it may stop early.
    """

    parameters: int
    memory_bytes: int
    disk_bytes: int
    tokens_per_epoch: int
    epochs: float
    operations_per_token: float
    tokens_per_second: float
    seconds_per_epoch: float
    seconds: float


def estimate_cost(
    model: ModelConfig,
    training: TrainingConfig,
    *,
    training_tokens: int,
    validation_tokens: int,
    flops: float,
    budget_seconds: float | None = None,
    elapsed_seconds: float = 0.0,
    workers: int = 1,
) -> Cost:
    """The cost of a run as decided.

    Args:
        model, training: the settings.
        training_tokens, validation_tokens: tokens of the training text and of the held-out text.
        flops: measured matrix-product speed of all workers together, floating-point operations per second.
        budget_seconds: what the whole command may take; None: what its steps take.
        elapsed_seconds: since the command started.
        workers: processes that share each batch.
    """
    batch_tokens = training.batch_size * training.window
    operations = operations_per_step(model, training, workers)
    tokens_per_second = batch_tokens * flops * PRODUCT_SPEED / operations
    validations = ceil(training.steps / training.validation_interval)
    seconds = elapsed_seconds + STARTUP_SECONDS + VALIDATION_TRACING_SECONDS + FINISH_SECONDS
    seconds += training.steps * batch_tokens / tokens_per_second
    seconds += validations * validation_tokens / (VALIDATION_SPEED_UP * tokens_per_second)
    return Cost(
        parameters=parameter_count(model),
        memory_bytes=training_memory(model, training, workers),
        disk_bytes=checkpoints_size(model, training),
        tokens_per_epoch=training_tokens,
        epochs=training.steps * batch_tokens / training_tokens,
        operations_per_token=operations / batch_tokens,
        tokens_per_second=tokens_per_second,
        seconds_per_epoch=training_tokens / tokens_per_second,
        seconds=seconds if budget_seconds is None else budget_seconds,
    )


# Memory and disk ------------------------------------------------------------------------------------------


def training_memory(model: ModelConfig, training: TrainingConfig, workers: int = 1) -> int:
    """Bytes of memory that a process has resident at its peak: of each worker, if several share the batch."""
    rows = training.batch_size // workers
    per_token = _activations_per_token(model, training.window) + _COPIES_OF_LOGIT * model.vocabulary_size
    if _is_looked_up(model, training, workers):
        per_token += _COPIES_OF_LOOK_UP * model.vocabulary_size
    floats: float = _COPIES_OF_PARAMETER * parameter_count(model)
    floats += rows * training.window * per_token + _COPIES_OF_CACHE * _cache_floats(model, rows)
    return round(BASE_BYTES + _graph_bytes(model, training.window) + FLOAT_BYTES * floats)


def checkpoints_size(model: ModelConfig, training: TrainingConfig) -> int:
    """Bytes of all checkpoints that are on the disk at a time."""
    floats = _TENSORS_PER_PARAMETER_ON_DISK * parameter_count(model) + _cache_floats(model, training.batch_size)
    return _CHECKPOINTS * FLOAT_BYTES * floats


def _graph_bytes(model: ModelConfig, window: int) -> int:
    """What TensorFlow needs for the compiled step itself."""
    if model.architecture == "transformer":
        return _GRAPH_BYTES_PER_TRANSFORMER_LAYER * model.num_layers
    return _GRAPH_BYTES_PER_TIME_STEP * window * _recurrent_layers(model)


def _activations_per_token(model: ModelConfig, window: int) -> int:
    """Numbers that training keeps for each token of a batch, below the logits."""
    units = model.hidden_dim
    attention = _ACTIVATIONS_PER_UNIT_OF_ATTENTION * units
    attention += _ACTIVATIONS_PER_SCORE * model.num_heads * ((model.context or 0) + window)
    if model.architecture == "transformer":
        return model.num_layers * (attention + _ACTIVATIONS_PER_UNIT_OF_FEED_FORWARD * feed_forward_dim(units))
    gates = RECURRENT_GATES[recurrent_cell(model)] + 1
    recurrent = _ACTIVATIONS_PER_GATE * gates * units * _recurrent_layers(model)
    return recurrent + attention if model.architecture == "attention-rnn" else recurrent


def _recurrent_layers(model: ModelConfig) -> int:
    """Of all stacks together."""
    return {"attention-rnn": 2, "transformer": 0}.get(model.architecture, 1) * model.num_layers


def _cache_floats(model: ModelConfig, rows: int) -> int:
    """Numbers of the keys and values that are carried from window to window."""
    attentions = model.num_layers if model.architecture == "transformer" else 1
    return 2 * attentions * rows * (model.context or 0) * model.hidden_dim


# Time -----------------------------------------------------------------------------------------------------


def operations_per_step(model: ModelConfig, training: TrainingConfig, workers: int = 1) -> float:
    """Floating-point operations of an optimizer step, of all workers together, and what else takes as long.

    Every worker reads through time and updates all parameters; the tokens are shared.
    """
    operations = operations_per_token(model)
    operations += _OPERATIONS_PER_ACTIVATION * _activations_per_token(model, training.window)
    operations += _OPERATIONS_PER_LOGIT * model.vocabulary_size
    if _is_looked_up(model, training, workers):
        operations += 2 * model.vocabulary_size * _looked_up_dim(model)  # the gradient, a product with ones and zeros
    time_steps = training.window * _recurrent_layers(model)
    per_worker = _OPERATIONS_PER_TIME_STEP * time_steps + update_operations(model)
    return training.batch_size * training.window * operations + workers * per_worker


def update_operations(model: ModelConfig) -> float:
    """Floating-point operations of the optimizer, and what else takes as long: see `optimization`."""
    shapes = parameter_shapes(model)
    operations = float(_OPERATIONS_PER_UPDATE * parameter_count(model))
    for name, maps in hidden_kernels(model).items():
        rows, columns = shapes[name]
        short, long = sorted((rows, columns // maps))
        operations += maps * ORTHOGONALISATION_STEPS * (4 * short**2 * long + 2 * short**3)
    return operations


def _is_looked_up(model: ModelConfig, training: TrainingConfig, workers: int) -> bool:
    """Whether the first layer's products of embedded tokens are looked up in a table of all tokens (`products`)."""
    lane_tokens = training.batch_size * training.window // max(workers, training.threads)
    return model.vocabulary_size <= lane_tokens


def _looked_up_dim(model: ModelConfig) -> int:
    """Numbers in a row of that table."""
    if model.architecture == "transformer":
        return model.hidden_dim
    return RECURRENT_GATES[recurrent_cell(model)] * model.hidden_dim


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
    with translate_write_errors(run):
        free = shutil.disk_usage(run).free
    if free < needed:
        raise StorageError(
            f"{run}: the checkpoints of this model need about {format_gibibytes(needed)}, and only "
            f"{format_gibibytes(free)} are free on that disk: make room, or name another folder with --output"
        )


def format_gibibytes(count: int) -> str:
    """Bytes as a person says them, rounded up."""
    return f"{math.ceil(count / 2**30 * 100) / 100:,.2f} GiB"
