"""Choosing what was not asked for: model size, batch, schedule, from the corpus, the time and the machine.

Every rule is a measured one; the experiments are in benchmarks/LOG.md.
"""

import dataclasses
import math
import secrets
from dataclasses import dataclass
from typing import Any

from quickfox.config.model import ModelConfig, TokenizerKind
from quickfox.config.training import SIZED, Precision, Replans, TrainingConfig, TrainingRequest
from quickfox.errors import UsageError
from quickfox.models.parameters import parameter_count
from quickfox.training.planning.presets import ARCHITECTURE_DEFAULTS, choose_model, operations_per_token

BATCH_SIZE, SMALL_BATCH_SIZE = 64, 32
FEW_STEPS = 400  # fewer than so many steps of BATCH_SIZE: twice as many of half the size learn more
DEFAULT_VALIDATION_SPLIT = 0.1
WARMUP_STEPS = 50
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
TRANSFER_RATE = 0.3  # of the learning rate, where training starts from a trained model

STARTUP_SECONDS = 2.5  # compiling the first step
EFFICIENCY = 0.55  # of the speed of bare matrix products, reached by whole training steps
VALIDATION_SHARE = 0.02  # of the training time, about
MIN_VALIDATION_INTERVAL = 100  # steps; for texts so short that an epoch is less

BUDGET_FOR_A_MILLION_TOKENS = 150.0  # seconds
SHORTEST_BUDGET, LONGEST_BUDGET = 30.0, 3600.0


@dataclass(frozen=True)
class Plan:
    """A decided run: the model, its training, and the wall time it may take (seconds; None: its steps decide)."""

    model: ModelConfig
    training: TrainingConfig
    budget_seconds: float | None


def fill_from_run(request: TrainingRequest, model: ModelConfig, training: TrainingConfig) -> TrainingRequest:
    """The request with all it leaves open as in an earlier run, but for the run's length, and sizes of another kind."""
    filled: dict[str, Any] = {}
    decided_otherwise = ["steps", "epochs", "budget", "vocabulary_size"]
    if request.size is not None:
        decided_otherwise += SIZED
    if request.architecture not in (None, model.architecture):
        decided_otherwise += [*SIZED, "num_heads"]
    for field in dataclasses.fields(TrainingRequest):
        if getattr(request, field.name) is None and field.name not in decided_otherwise:
            filled[field.name] = getattr(training, field.name, getattr(model, field.name, None))
    if request.precision == "auto":
        filled["precision"] = training.precision
    return dataclasses.replace(request, **filled)


def fill_tokenizer_from_run(request: TrainingRequest, kind: TokenizerKind, vocabulary_size: int) -> TrainingRequest:
    """The request with the tokenizer as in an earlier run, if it leaves it open."""
    if request.tokenizer not in (None, kind):
        return request
    is_sized = kind in ("word", "bpe") and request.vocabulary_size is None
    return dataclasses.replace(
        request, tokenizer=kind, vocabulary_size=vocabulary_size if is_sized else request.vocabulary_size
    )


def default_budget(training_tokens: int) -> float:
    """Seconds to train for when nothing is asked: 2.5 minutes for a million tokens, growing with the square root."""
    seconds = BUDGET_FOR_A_MILLION_TOKENS * math.sqrt(training_tokens / 1e6)
    return min(max(seconds, SHORTEST_BUDGET), LONGEST_BUDGET)


def choose_window(request: TrainingRequest) -> int:
    """Tokens of back-propagation through time: as asked, or what suits the architecture."""
    return request.window or ARCHITECTURE_DEFAULTS[request.architecture or "lstm"].window


def choose_batch_size(tokens: float, window: int, replicas: int = 1) -> int:
    """Streams side by side, for a training on so many tokens: a number that divides by the replicas."""
    defaults = SMALL_BATCH_SIZE if tokens < FEW_STEPS * BATCH_SIZE * window else BATCH_SIZE
    return math.ceil(defaults / replicas) * replicas


def choose_dropout(passes: float, parameters_per_token: float) -> float:
    """Dropout for that many passes over the training text: none while all is new, more the more is repeated.

    A model with many parameters for each token of the text learns it by heart in fewer passes.
    """
    effective_passes = passes * max(1.0, parameters_per_token) ** 0.25
    return round(min(0.2 * math.sqrt(max(0.0, effective_passes - 4.0)), 0.5), 2)


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
) -> Plan:
    """Decides everything that `request` leaves open.

    Args:
        request: what the person asked for; every value given is kept.
        vocabulary_size: distinct tokens.
        training_tokens, validation_tokens: tokens of the training text and of the held-out text.
        threads: processor threads.
        precision: of the matrix products, decided.
        flops: measured matrix-product speed of the machine, floating-point operations per second.
        elapsed_seconds: of the budget, since the command started.
        is_pretrained: whether it starts from a trained model, to which smaller steps are due.
        earlier_config: the training of an earlier run: its values that have no option are taken over, and its length too
            unless `request` names one.
        replicas: devices that share each batch.

    Raises:
        UsageError: a value is out of range, or the batch does not divide by the replicas.
    """
    defaults = ARCHITECTURE_DEFAULTS[request.architecture or "lstm"]
    window = choose_window(request)
    batch_size = request.batch_size or choose_batch_size(math.inf, window, replicas)
    if batch_size % replicas:
        raise UsageError(f"--batch-size {batch_size} does not divide by {replicas} devices: choose a multiple")
    steps, replans = _asked_steps(request, training_tokens, batch_size * window, earlier_config)
    budget, compute = None, 0.0
    if steps is not None:
        weights = steps * batch_size * window / defaults.tokens_per_parameter
    else:
        budget = default_budget(training_tokens) if request.budget is None else request.budget
        compute = flops * EFFICIENCY * max(1.0, budget - elapsed_seconds - STARTUP_SECONDS)
        weights = math.sqrt(compute / (6 * defaults.tokens_per_parameter))  # 6 operations a weight and token
    model = choose_model(request, vocabulary_size, weights, window)
    if steps is None:
        tokens = compute / operations_per_token(model)
        batch_size = request.batch_size or choose_batch_size(tokens, window, replicas)
        steps = max(1, round(tokens / (batch_size * window)))
    tokens_per_step = batch_size * window
    dropout = request.dropout
    if dropout is None:
        passes = steps * tokens_per_step / training_tokens
        dropout = choose_dropout(passes, parameter_count(model) / training_tokens)
    training = TrainingConfig(
        steps=steps,
        replans=replans,
        batch_size=batch_size,
        window=window,
        learning_rate=request.learning_rate or defaults.learning_rate * (TRANSFER_RATE if is_pretrained else 1.0),
        warmup_steps=WARMUP_STEPS,
        weight_decay=WEIGHT_DECAY,
        clip_norm=CLIP_NORM,
        dropout=dropout,
        validation_interval=choose_validation_interval(training_tokens, validation_tokens, tokens_per_step),
        patience=request.patience,
        random_seed=secrets.randbits(32) if request.random_seed is None else request.random_seed,
        precision=precision,
        threads=threads,
        freeze_embeddings=bool(request.freeze_embeddings),
    )
    if earlier_config is not None:
        without_option = ("warmup_steps", "weight_decay", "clip_norm", "validation_interval")
        training = dataclasses.replace(training, **{name: getattr(earlier_config, name) for name in without_option})
    return Plan(model, training, budget)


def _asked_steps(
    request: TrainingRequest, training_tokens: int, tokens_per_step: int, earlier_config: TrainingConfig | None
) -> tuple[int | None, Replans]:
    """The steps that are asked for, if any are: by number, by epochs, or as in the run to repeat."""
    if request.steps is not None:
        return request.steps, ()
    if request.epochs is not None:
        return max(1, round(request.epochs * training_tokens / tokens_per_step)), ()
    if request.budget is None and earlier_config is not None:
        return earlier_config.steps, earlier_config.replans
    return None, ()


def choose_validation_interval(training_tokens: int, validation_tokens: int, tokens_per_step: int) -> int:
    """Steps from one validation to the next: an epoch, or more where validating would cost too much time.

    To read a token costs a third of training on it.
    """
    affordable = validation_tokens / 3 / VALIDATION_SHARE
    return max(MIN_VALIDATION_INTERVAL, round(max(training_tokens, affordable) / tokens_per_step))
