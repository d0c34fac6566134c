"""Chooses the settings that a request leaves open: model size, batch size, number of steps, dropout and the like.

The choice depends on the corpus, the time and the machine. The rules are measured; for the experiments see
benchmarks/LOG.md.
"""

import dataclasses
import math
import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any

from quickfox.config.media import MediaConfig
from quickfox.config.model import ModelConfig, TokenizerKind
from quickfox.config.training import SIZED, Precision, Replans, TrainingConfig, TrainingRequest
from quickfox.errors import UsageError
from quickfox.models.parameters import parameter_count
from quickfox.training.planning.presets import (
    ARCHITECTURE_DEFAULTS,
    ArchitectureDefaults,
    choose_model,
    operations_per_token,
)

FEW_STEPS = 400  # below, twice the number of steps of half the batch size gives a lower loss
DEFAULT_VALIDATION_SPLIT = 0.1
RANDOM_SEED_BITS = 32  # of a seed that is not given; few enough to type it again
MAX_DROPOUT, MAX_DROPOUT_OF_SIGNALS = 0.5, 0.2
DOCUMENTS_PER_BATCH = 32  # with signals: each has few targets, and a step of few documents takes little time
EPOCHS_OF_SIGNALS = 10  # for which the time must suffice, or the model is smaller
WARMUP_STEPS = 50
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
PRETRAINED_RATE = 0.3  # learning rate from pretrained weights, as a fraction of that from random ones

STARTUP_SECONDS = 2.5  # compilation of the first step
EFFICIENCY = 0.55  # speed of training steps as a fraction of the speed of matrix products
VALIDATION_FRACTION = 0.02  # approximate upper limit of the time spent in validation
MIN_VALIDATION_INTERVAL = 100  # steps; applies if an epoch is shorter

BUDGET_FOR_A_MILLION_TOKENS = 150.0  # seconds
MIN_BUDGET, MAX_BUDGET = 30.0, 3600.0


@dataclass(frozen=True)
class Plan:
    """The decided settings of a run.

    Attributes:
        model: of the model.
        training: of its training.
        budget_seconds: wall time of the whole command; None: the number of steps is final.
    """

    model: ModelConfig
    training: TrainingConfig
    budget_seconds: float | None


def fill_from_run(request: TrainingRequest, model: ModelConfig, training: TrainingConfig) -> TrainingRequest:
    """Replaces the open settings of a request by those of an earlier run.

    Excepted are the number of steps, the vocabulary size, and the sizes if another size or architecture is requested.
    Of an n-gram model, only the architecture, the order and the random seed are taken.
    """
    if request.ngram == "auto" and (training.ngram_order or request.architecture != "ngram"):
        request = dataclasses.replace(request, ngram=training.ngram_order or "off")
    if not model.has_network:
        random_seed = training.random_seed if request.random_seed is None else request.random_seed
        architecture = request.architecture or model.architecture
        return dataclasses.replace(request, architecture=architecture, random_seed=random_seed)
    filled: dict[str, Any] = {}
    excepted = ["steps", "epochs", "budget", "vocabulary_size"]
    if request.size is not None:
        excepted += [*SIZED, "num_heads"]
    if request.architecture not in (None, model.architecture):
        excepted += [*SIZED, "num_heads"]
    if request.hidden_dim not in (None, model.hidden_dim):
        excepted += ["num_heads", *(["embedding_dim"] if model.architecture == "transformer" else [])]
    for field in dataclasses.fields(TrainingRequest):
        if getattr(request, field.name) is None and field.name not in excepted:
            filled[field.name] = getattr(training, field.name, getattr(model, field.name, None))
    if request.precision == "auto":
        filled["precision"] = training.precision
    return dataclasses.replace(request, **filled)


def fill_tokenizer_from_run(request: TrainingRequest, kind: TokenizerKind, vocabulary_size: int) -> TrainingRequest:
    """Replaces the open tokenizer settings of a request by those of an earlier run."""
    if request.tokenizer not in (None, kind):
        return request
    is_sized = kind in ("word", "bpe") and request.vocabulary_size is None
    return dataclasses.replace(
        request, tokenizer=kind, vocabulary_size=vocabulary_size if is_sized else request.vocabulary_size
    )


def default_budget(training_tokens: int) -> float:
    """Seconds of training by default: 150 for a million tokens, proportional to the square root of their number."""
    seconds = BUDGET_FOR_A_MILLION_TOKENS * math.sqrt(training_tokens / 1e6)
    return min(max(seconds, MIN_BUDGET), MAX_BUDGET)


def choose_window(request: TrainingRequest) -> int:
    """Tokens of back-propagation through time, as requested or by architecture; 1 for an n-gram model."""
    if request.architecture == "ngram":
        return 1
    return request.window or ARCHITECTURE_DEFAULTS[request.architecture or "lstm"].window


def choose_batch_size(tokens: float, defaults: ArchitectureDefaults, window: int, replicas: int = 1) -> int:
    """Sequences per batch for training on `tokens` tokens in all: a multiple of `replicas`."""
    batch_size = defaults.batch_size
    if tokens < FEW_STEPS * batch_size * window:
        batch_size //= 2
    return math.ceil(batch_size / replicas) * replicas


def choose_dropout(epochs: float, parameters_per_token: float, *, has_signals: bool = False) -> float:
    """Dropout rate: 0 for few epochs, and increasing with their number.

    A model with many parameters per token of the text overfits in fewer epochs. Signals are changed in each epoch, and
    a high rate delays what attention learns of them.
    """
    effective_epochs = epochs * max(1.0, parameters_per_token) ** 0.25
    highest = MAX_DROPOUT_OF_SIGNALS if has_signals else MAX_DROPOUT
    return round(min(0.2 * math.sqrt(max(0.0, effective_epochs - 4.0)), highest), 2)


def choose_settings(
    request: TrainingRequest,
    *,
    vocabulary_size: int,
    training_tokens: int,
    validation_tokens: int,
    threads: int,
    precision: Precision,
    flops: float,
    elapsed_seconds: float,
    is_pretrained: bool = False,
    earlier_config: TrainingConfig | None = None,
    replicas: int = 1,
    ngram_order: int = 0,
    max_gate_epochs: float = 0.0,
    media: MediaConfig | None = None,
    tokens_per_row: int | None = None,
) -> Plan:
    """Decides all settings that `request` leaves open.

    Args:
        request: the requested settings, all of which are kept.
        vocabulary_size: number of distinct tokens.
        training_tokens, validation_tokens: tokens of the training text and of the validation text.
        threads: processor threads.
        precision: of the matrix products, decided.
        flops: measured speed of matrix products on this machine, floating-point operations per second.
        elapsed_seconds: time since the command started, part of the budget.
        is_pretrained: whether training starts from pretrained weights, which need a lower learning rate.
        earlier_config: settings of an earlier run, the source of the values that cannot be requested, and of the
            number of steps unless `request` determines it.
        replicas: number of devices that each batch is divided among.
        ngram_order: order of the n-gram tables; 0: none.
        max_gate_epochs: number of epochs up to which the network gets an n-gram gate.
        media: how the model reads signals; None: it reads text only.
        tokens_per_row: as in `TrainingConfig`.

    Raises:
        UsageError: a value is out of range, or the batch size is not divisible by the number of replicas.
    """
    window = choose_window(request)
    row = tokens_per_row or window
    defaults = _defaults(request, media)
    batch_size = _checked_batch_size(request, (request.epochs or math.inf) * training_tokens, defaults, row, replicas)
    steps, replans = _requested_steps(request, training_tokens, batch_size * row, earlier_config)
    choose = partial(choose_model, request, vocabulary_size, window=window, media=media)
    if steps is not None:
        budget = None
        model = choose(steps * batch_size * row / defaults.tokens_per_parameter)
    else:
        budget = default_budget(training_tokens) if request.budget is None else request.budget
        operations = flops * EFFICIENCY * max(1.0, budget - elapsed_seconds - STARTUP_SECONDS)
        model = choose(_affordable_weights(operations, defaults, training_tokens if media else 0))
        tokens = operations / operations_per_token(model)
        batch_size = _checked_batch_size(request, tokens, defaults, row, replicas)
        steps = max(1, round(tokens / (batch_size * row)))
    epochs = steps * (batch_size * row) / training_tokens
    model = dataclasses.replace(model, ngram_gate=ngram_order if 0 < epochs <= max_gate_epochs else 0)
    dropout = choose_dropout(epochs, parameter_count(model) / training_tokens, has_signals=media is not None)
    training = TrainingConfig(
        steps=steps,
        replans=replans,
        batch_size=batch_size,
        window=window,
        precision=precision,
        threads=threads,
        ngram_order=ngram_order,
        tokens_per_row=tokens_per_row,
        **_requested_settings(request, dropout, is_pretrained=is_pretrained),
        **_fixed_settings(training_tokens, validation_tokens, batch_size * row, earlier_config, ngram_order),
    )
    return Plan(model, training, budget)


def _defaults(request: TrainingRequest, media: MediaConfig | None) -> ArchitectureDefaults:
    """The defaults of the architecture; with signals, batches are small."""
    defaults = ARCHITECTURE_DEFAULTS[request.architecture or "lstm"]
    return dataclasses.replace(defaults, batch_size=DOCUMENTS_PER_BATCH) if media else defaults


def _affordable_weights(operations: float, defaults: ArchitectureDefaults, tokens_of_signals: int) -> float:
    """Number of hidden weights for these operations of training, which read signals EPOCHS_OF_SIGNALS times."""
    weights = math.sqrt(operations / (6 * defaults.tokens_per_parameter))  # 6 operations per weight and token
    return min(weights, operations / (6 * EPOCHS_OF_SIGNALS * tokens_of_signals)) if tokens_of_signals else weights


def _checked_batch_size(
    request: TrainingRequest, tokens: float, defaults: ArchitectureDefaults, row: int, replicas: int
) -> int:
    """The requested batch size, or as `choose_batch_size`."""
    batch_size = request.batch_size or choose_batch_size(tokens, defaults, row, replicas)
    if batch_size % replicas:
        raise UsageError(
            f"batch_size {batch_size} is not divisible by {replicas} devices: choose a multiple", "batch_size"
        )
    return batch_size


def _requested_steps(
    request: TrainingRequest, training_tokens: int, tokens_per_step: int, earlier_config: TrainingConfig | None
) -> tuple[int | None, Replans]:
    """The number of steps and its recorded changes, if requested as steps or epochs or given by an earlier run."""
    if request.steps is not None:
        return request.steps, ()
    if request.epochs is not None:
        return max(1, round(request.epochs * training_tokens / tokens_per_step)), ()
    if request.budget is None and earlier_config is not None:
        return earlier_config.steps, earlier_config.replans
    return None, ()


def _requested_settings(request: TrainingRequest, dropout: float, *, is_pretrained: bool) -> dict[str, Any]:
    """The settings that depend on the request only, by name; `dropout` is the rate unless another is requested."""
    default_rate = ARCHITECTURE_DEFAULTS[request.architecture or "lstm"].learning_rate
    return {
        "learning_rate": request.learning_rate or default_rate * (PRETRAINED_RATE if is_pretrained else 1.0),
        "dropout": dropout if request.dropout is None else request.dropout,
        "patience": request.patience,
        "random_seed": secrets.randbits(RANDOM_SEED_BITS) if request.random_seed is None else request.random_seed,
        "freeze_embeddings": bool(request.freeze_embeddings),
        "no_augmentation": bool(request.no_augmentation),
    }


def _fixed_settings(
    training_tokens: int,
    validation_tokens: int,
    tokens_per_step: int,
    earlier_config: TrainingConfig | None,
    ngram_order: int,
) -> dict[str, Any]:
    """The settings that cannot be requested, by name.

    The steps between validations are an epoch, or more if validation would take too large a fraction of the time.
    """
    relative_cost = 2 / 3 if ngram_order else 1 / 3  # of validating a token over training on it
    affordable = validation_tokens * relative_cost / VALIDATION_FRACTION
    settings = {
        "warmup_steps": WARMUP_STEPS,
        "weight_decay": WEIGHT_DECAY,
        "clip_norm": CLIP_NORM,
        "validation_interval": max(MIN_VALIDATION_INTERVAL, round(max(training_tokens, affordable) / tokens_per_step)),
    }
    return settings if earlier_config is None else {name: getattr(earlier_config, name) for name in settings}
