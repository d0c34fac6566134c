"""The cost of a training run in memory, disk space and time, and checks that the machine can bear it.

The estimates are pure functions of decided settings and of a measured speed: what a run computes and stores is counted,
and each count has a constant that benchmarks/cost_model.py fitted to whole runs on a processor. For their accuracy see
docs/scaling.md.
"""

import os
import shutil
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.errors import StorageError, UsageError
from quickfox.files.errors import translate_write_errors
from quickfox.models.parameters import hidden_kernels, parameter_count, parameter_shapes
from quickfox.training.planning.auto_config import STARTUP_SECONDS
from quickfox.training.planning.ngram_cost import (
    counting_seconds,
    evaluation_seconds,
    ngram_memory,
    tables_size,
)
from quickfox.training.planning.presets import LOOKED_UP, count_layers, operations_per_token
from quickfox.training.planning.time_budget import (
    FINISH_SECONDS,
    VALIDATION_SPEED_UP,
    VALIDATION_TRACING_SECONDS,
    finish_seconds,
    max_validation_segments,
    mixture_seconds,
)

FLOAT_BYTES = 4
ORTHOGONALIZATION_STEPS = 2  # of Muon; the length of `optimizer.NEWTON_SCHULZ`

# Memory, in bytes or in float32 values.
BASE_BYTES = 690_000_000  # Python, TensorFlow, Keras
NGRAM_BASE_BYTES = 50_000_000  # Python, NumPy
_GRAPH_BYTES_PER_TIME_STEP = 500_000  # of a recurrent layer, whose time loop is unrolled and compiled
_GRAPH_BYTES_PER_TRANSFORMER_LAYER = 25_000_000
_COPIES_OF_PARAMETER = 9  # weight, slots, gradients and their sum, copies for a checkpoint
_ACTIVATIONS_PER_GATE = 3  # gates and their gradients; cell and output count as one more gate
_ACTIVATIONS_PER_ATTENTION_UNIT = 12  # queries, keys, values, outputs, norms, residual stream; their gradients
_ACTIVATIONS_PER_FEED_FORWARD_UNIT = 4  # gate, up, their product; their gradients
_ACTIVATIONS_PER_SCORE = 2  # a score, its softmax
_COPIES_OF_LOGIT = 1.5  # logits and their softmax, not all at the peak
_COPIES_OF_VALIDATION_LOGIT = 5  # of the network in two layouts, of the n-gram model twice, and of the mixture
_COPIES_OF_ONE_HOT = 1.5  # a token's one-hot vector, not all at the peak
_COPIES_OF_CACHE = 2  # old, new

# Disk.
_CHECKPOINTS = 4  # the best, the last two, and the one being written
_TENSORS_PER_PARAMETER_ON_DISK = 3  # the weight and two moments

# Time of what memory bandwidth limits, as the number of floating-point operations that take as long.
_OPERATIONS_PER_ACTIVATION = 190
_OPERATIONS_PER_LOGIT = 1200
_OPERATIONS_PER_UPDATE = 1800  # of a parameter
_OPERATIONS_PER_TIME_STEP = 4_000_000  # of a recurrent layer: overhead of its matrix products, whatever their size
PRODUCT_SPEED = 1.25  # of the matrix products in a step, as a multiple of `matmul_speed`


@dataclass(frozen=True)
class Cost:
    """The approximate cost of a run.

    Attributes:
        parameters: number of trained parameters; those of the network.
        memory_bytes: peak resident memory of each worker.
        disk_bytes: of all checkpoints that exist at a time.
        tokens_per_epoch: of the training text.
        epochs: passes over the training text.
        operations_per_token: floating-point operations of the matrix products, and the equivalent of all other work; 0
            without a network.
        tokens_per_second: of all workers in total.
        seconds_per_epoch: without validation.
        seconds: of the whole command, including start-up, validation and saving; an upper limit with early stopping.
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
    """Estimates the cost of a run.

    Args:
        model, training: the decided settings.
        training_tokens, validation_tokens: tokens of the training text and of the validation text.
        flops: measured speed of matrix products of all workers in total, floating-point operations per second; not used
            without a network.
        budget_seconds: wall time of the whole command; None: determined by the number of steps.
        elapsed_seconds: time since the command started.
        workers: number of processes that each batch is divided among.
    """
    if not model.has_network:
        return _estimate_ngram_cost(model, training, training_tokens, validation_tokens, elapsed_seconds)
    batch_tokens = training.tokens_per_step
    operations = operations_per_step(model, training, workers)
    tokens_per_second = batch_tokens * flops * PRODUCT_SPEED / operations
    validations = ceil(training.steps / training.validation_interval)
    seconds = elapsed_seconds + STARTUP_SECONDS + VALIDATION_TRACING_SECONDS + finish_seconds(model)
    seconds += training.steps * batch_tokens / tokens_per_second
    mixing = mixture_seconds(model.vocabulary_size, training.ngram_order)
    seconds += validations * validation_tokens * (1 / (VALIDATION_SPEED_UP * tokens_per_second) + mixing)
    return Cost(
        parameters=parameter_count(model),
        memory_bytes=training_memory(model, training, training_tokens=training_tokens, workers=workers),
        disk_bytes=checkpoints_size(model, training, training_tokens=training_tokens),
        tokens_per_epoch=training_tokens,
        epochs=training.steps * batch_tokens / training_tokens,
        operations_per_token=operations / batch_tokens,
        tokens_per_second=tokens_per_second,
        seconds_per_epoch=training_tokens / tokens_per_second,
        seconds=seconds if budget_seconds is None else budget_seconds,
    )


def _estimate_ngram_cost(
    model: ModelConfig, training: TrainingConfig, training_tokens: int, validation_tokens: int, elapsed_seconds: float
) -> Cost:
    """The cost of a run without a network: the text is counted once, and a validation text is evaluated once."""
    seconds = counting_seconds(training.ngram_order, min(training_tokens, training.ngram_tokens))
    evaluation = evaluation_seconds(training.ngram_order, validation_tokens)
    return Cost(
        parameters=0,
        memory_bytes=training_memory(model, training, training_tokens=training_tokens),
        disk_bytes=checkpoints_size(model, training, training_tokens=training_tokens),
        tokens_per_epoch=training_tokens,
        epochs=1.0,
        operations_per_token=0.0,
        tokens_per_second=training_tokens / seconds,
        seconds_per_epoch=seconds,
        seconds=elapsed_seconds + seconds + evaluation + FINISH_SECONDS,
    )


def training_memory(model: ModelConfig, training: TrainingConfig, *, training_tokens: int, workers: int = 1) -> int:
    """Peak resident memory of each worker, in bytes; that of the n-gram tables is the chief's."""
    ngrams = ngram_memory(model, training, training_tokens)
    if not model.has_network:
        return NGRAM_BASE_BYTES + ngrams
    rows = training.batch_size // workers
    per_token = _activations_per_token(model, training.window) + _COPIES_OF_LOGIT * model.vocabulary_size
    if _uses_lookup(model, training, workers):
        per_token += _COPIES_OF_ONE_HOT * model.vocabulary_size
    segments = max_validation_segments(training.window, model.vocabulary_size)
    of_validation = segments * training.window * _COPIES_OF_VALIDATION_LOGIT * model.vocabulary_size
    floats: float = _COPIES_OF_PARAMETER * parameter_count(model)
    floats += max(rows * training.window * per_token, of_validation) + _COPIES_OF_CACHE * _cache_floats(model, rows)
    return round(BASE_BYTES + _graph_bytes(model, training.window) + FLOAT_BYTES * floats) + ngrams


def checkpoints_size(model: ModelConfig, training: TrainingConfig, *, training_tokens: int) -> int:
    """Bytes of all checkpoints that exist at a time; an n-gram model alone has one."""
    tables = tables_size(model, training, training_tokens)
    if not model.has_network:
        return tables
    floats = _TENSORS_PER_PARAMETER_ON_DISK * parameter_count(model) + _cache_floats(model, training.batch_size)
    return _CHECKPOINTS * (FLOAT_BYTES * floats + tables)


def _graph_bytes(model: ModelConfig, window: int) -> int:
    """Bytes of the compiled step."""
    recurrent = _GRAPH_BYTES_PER_TIME_STEP * window * count_layers(model, "recurrent_kernel")
    return recurrent + _GRAPH_BYTES_PER_TRANSFORMER_LAYER * count_layers(model, "feed_forward.input_kernel")


def _activations_per_token(model: ModelConfig, window: int) -> int:
    """Number of values stored for the backward pass per token of a batch, without logits."""
    units, count = model.hidden_dim, 0
    for name, (rows, *columns) in parameter_shapes(model).items():
        if name.endswith("recurrent_kernel"):
            count += _ACTIVATIONS_PER_GATE * (columns[0] + units)
        elif name.endswith("attention.input_kernel"):
            count += _ACTIVATIONS_PER_ATTENTION_UNIT * units
            count += _ACTIVATIONS_PER_SCORE * model.num_heads * ((model.context or 0) + window)
        elif name.endswith("feed_forward.output_kernel"):
            count += _ACTIVATIONS_PER_FEED_FORWARD_UNIT * rows
    return count


def _cache_floats(model: ModelConfig, rows: int) -> int:
    """Number of values in the key/value caches that are carried between windows."""
    return 2 * count_layers(model, "attention.input_kernel") * rows * (model.context or 0) * model.hidden_dim


def operations_per_step(model: ModelConfig, training: TrainingConfig, workers: int = 1) -> float:
    """Floating-point operations of an optimizer step by all workers, and the equivalent of all other work.

    The tokens are divided among the workers; each worker runs every time step and updates all parameters.
    """
    operations = operations_per_token(model)
    operations += _OPERATIONS_PER_ACTIVATION * _activations_per_token(model, training.window)
    operations += _OPERATIONS_PER_LOGIT * model.vocabulary_size
    if _uses_lookup(model, training, workers):
        shapes = parameter_shapes(model)
        *_, table = (shapes[name] for name in LOOKED_UP if name in shapes)  # the last one is looked up (matmul.py)
        operations += 2 * model.vocabulary_size * table[1]  # the gradient, a product with one-hot vectors
    time_steps = (training.tokens_per_row or training.window) * count_layers(model, "recurrent_kernel")
    per_worker = _OPERATIONS_PER_TIME_STEP * time_steps + update_operations(model)
    return training.tokens_per_step * operations + workers * per_worker


def update_operations(model: ModelConfig) -> float:
    """Floating-point operations of the optimizer (see `engine/optimizer.py`), and the equivalent of its other work."""
    shapes = parameter_shapes(model)
    operations = float(_OPERATIONS_PER_UPDATE * parameter_count(model))
    for name, projections in hidden_kernels(model).items():
        rows, columns = shapes[name]
        short, long = sorted((rows, columns // projections))
        operations += projections * ORTHOGONALIZATION_STEPS * (4 * short**2 * long + 2 * short**3)
    return operations


def _uses_lookup(model: ModelConfig, training: TrainingConfig, workers: int) -> bool:
    """Whether the embedded tokens' first products are looked up in a table (see `matmul.embedding_lookup`)."""
    microbatch_tokens = training.batch_size * training.window // max(workers, training.threads)
    return model.vocabulary_size <= microbatch_tokens


def check_memory(model: ModelConfig, training: TrainingConfig, *, training_tokens: int, workers: int = 1) -> None:
    """Checks that the machine has enough memory.

    Args:
        model, training: the decided settings.
        training_tokens: tokens of the training text.
        workers: number of processes that each batch is divided among, assumed to be on a machine each.

    Raises:
        UsageError: training would need more memory than the machine has.
    """
    needed = training_memory(model, training, training_tokens=training_tokens, workers=workers)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed <= available:
        return
    parts, settings = [], []
    if model.has_network:
        batch = f"{training.batch_size} x {training.window} tokens"
        parts.append(f"{parameter_count(model):,} parameters on batches of {batch}")
        settings += ["hidden_dim", "num_layers", "batch_size", "window"]
    if training.ngram_order:
        parts.append(f"{training.ngram_order}-grams of {min(training_tokens, training.ngram_tokens):,} tokens")
        settings.append("ngram")
    choices = " or ".join(filter(None, [", ".join(settings[:-1]), settings[-1]]))
    raise UsageError(
        f"training needs about {format_gibibytes(needed)} of memory for {' and '.join(parts)}, and this machine has "
        f"{format_gibibytes(available)}: choose a smaller {choices}",
        *settings,
    )


def check_disk_space(run: Path, model: ModelConfig, training: TrainingConfig, *, training_tokens: int) -> None:
    """Checks that the disk of the directory `run` has enough free space for the checkpoints.

    Raises:
        StorageError: there is too little.
    """
    needed = checkpoints_size(model, training, training_tokens=training_tokens)
    with translate_write_errors(run):
        free = shutil.disk_usage(run).free
    if free < needed:
        raise StorageError(
            f"{run}: the checkpoints of this model need about {format_gibibytes(needed)}, and the disk has only "
            f"{format_gibibytes(free)} free: free some space, or choose a run directory on another disk"
        )


def format_gibibytes(count: int) -> str:
    """Bytes as GiB, rounded up to two decimals."""
    return f"{ceil(count / 2**30 * 100) / 100:,.2f} GiB"
