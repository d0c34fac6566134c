"""Configurations of training: the settings a user requests, and those of a run.

`training/planning/auto_config.py` derives the explicit `TrainingConfig` of a run from a `TrainingRequest`.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

from quickfox.config.model import Architecture, ModelConfig, TokenizerKind
from quickfox.config.schema import (
    MAX_INTEGER,
    check_exclusive,
    check_settings,
    requested,
    setting,
)
from quickfox.errors import UsageError

Size = Literal["tiny", "small", "medium", "large"]
Precision = Literal["float32", "bfloat16"]
Replans = tuple[tuple[int, int], ...]

MAX_BATCH_SIZE = 2**16
MAX_WINDOW = 2**10  # the time loop is unrolled
MAX_STEPS = 2**40
MAX_SECONDS = 1e12

SIZED = ("embedding_dim", "hidden_dim", "num_layers")
"""The settings that a `Size` determines."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All settings that, with the corpus and the machine, determine a training run.

    Attributes:
        steps: total optimizer steps, as first planned.
        replans: corrections of that plan, (step, new total steps), in order of the step.
        batch_size: sequences per batch, over all workers.
        window: tokens of back-propagation through time.
        learning_rate: peak learning rate, reached after `warmup_steps`, then decayed linearly to 0 at the last step.
        weight_decay: decoupled weight decay of the matrices (AdamW), as a fraction of the learning rate.
        clip_norm: maximum global gradient norm.
        dropout: dropout rate of the layers' outputs, in [0, 1).
        validation_interval: optimizer steps between validations.
        patience: validations without improvement before early stopping; None: no early stopping.
        random_seed: determines the initial weights, the offset of the data and the dropout masks.
        precision: of the matrix products; everything else is float32.
        threads: processor threads; part of the run's identity, because the order of sums depends on it.
        freeze_embeddings: whether the embedding is not trained.

    Raises:
        UsageError: a value is outside its range.
    """

    steps: int = setting(bounds=(1, MAX_STEPS))
    replans: Replans = ()
    batch_size: int = setting(bounds=(1, MAX_BATCH_SIZE))
    window: int = setting(bounds=(1, MAX_WINDOW))
    learning_rate: float = setting(bounds=(0.0, 10.0))
    warmup_steps: int = setting(bounds=(0, MAX_STEPS))
    weight_decay: float = setting(bounds=(0.0, 10.0))
    clip_norm: float = setting(bounds=(1e-6, 1e6))
    dropout: float = setting(bounds=(0.0, 0.99))
    validation_interval: int = setting(bounds=(1, MAX_STEPS))
    patience: int | None = setting(bounds=(1, MAX_STEPS))
    random_seed: int = setting(bounds=(0, MAX_INTEGER))
    precision: Precision
    threads: int = setting(bounds=(1, 1024))
    freeze_embeddings: bool = setting(default=False, added_later=True)

    @property
    def planned_steps(self) -> int:
        """Total optimizer steps by the last plan."""
        return self.replans[-1][1] if self.replans else self.steps

    def __post_init__(self) -> None:
        check_settings(self)
        steps = [0, *(step for step, _ in self.replans)]
        is_ordered = all(step < later for step, later in itertools.pairwise(steps))
        if not is_ordered or any(total < step for step, total in self.replans):
            raise UsageError("replans must be (step, total steps) in order, no total below its step", "replans")


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """The settings a user requests; those that are None are chosen by `training/planning/auto_config.py`.

    `steps`, `epochs` and `budget` exclude each other. `size` sets `embedding_dim`, `hidden_dim` and `num_layers`, and
    excludes them. The fields are options of `llm train`.

    Raises:
        UsageError: a value is outside its range, or two exclude each other.
    """

    tokenizer: TokenizerKind | None = setting(
        "Unit of a token: character, byte, word or subword. Default: char.", default=None, group="Corpus and tokenizer"
    )
    vocabulary_size: int | None = setting(
        "Maximum vocabulary size of a word or bpe tokenizer, in tokens. Default: 4096.",
        default=None,
        group="Corpus and tokenizer",
    )
    validation_split: float | None = setting(
        "Fraction of the text, taken from its end, held out for validation; 0 disables validation. Default: 0.1.",
        default=None,
        bounds=(0.0, 0.9),
        group="Corpus and tokenizer",
        metavar="FRACTION",
    )
    architecture: Architecture | None = setting("Network architecture. Default: lstm.", default=None, group="Model")
    size: Size | None = setting(
        "Preset of embedding dimension, hidden dimension and layers. Default: chosen for the time budget.",
        default=None,
        group="Model",
    )
    embedding_dim: int | None = requested(
        ModelConfig, "embedding_dim", "Embedding dimension. Default: chosen with the size.", group="Model"
    )
    hidden_dim: int | None = requested(
        ModelConfig, "hidden_dim", "Units per layer. Default: chosen with the size.", group="Model"
    )
    num_layers: int | None = requested(
        ModelConfig, "num_layers", "Number of layers. Default: chosen with the size.", group="Model"
    )
    num_heads: int | None = requested(
        ModelConfig, "num_heads", "Attention heads per layer. Default: chosen with the size.", group="Model"
    )
    budget: float | None = setting(
        "Wall time of the whole command, such as 60s, 5m or 1h. Default: chosen for the length of the text.",
        default=None,
        bounds=(1e-3, MAX_SECONDS),
        group="Optimization",
        metavar="TIME",
    )
    epochs: float | None = setting(
        "Number of passes over the training text, instead of a budget.",
        default=None,
        bounds=(1e-3, 1e12),
        group="Optimization",
    )
    steps: int | None = requested(
        TrainingConfig, "steps", "Number of optimizer steps, instead of a budget.", group="Optimization"
    )
    batch_size: int | None = requested(
        TrainingConfig,
        "batch_size",
        "Sequences per batch, over all workers. Default: 64, or 32 for a short training.",
        group="Optimization",
    )
    window: int | None = requested(
        TrainingConfig,
        "window",
        "Tokens of back-propagation through time; attention covers 1 or 2 windows. Default: 64; 128 for a transformer.",
        group="Optimization",
    )
    learning_rate: float | None = setting(
        "Peak learning rate. Default: 0.01; 0.003 for rnn and transformer.",
        default=None,
        bounds=(1e-9, 10.0),
        group="Optimization",
        metavar="RATE",
    )
    dropout: float | None = requested(
        TrainingConfig,
        "dropout",
        "Dropout rate of the layers' outputs. Default: chosen for the number of epochs.",
        group="Optimization",
        metavar="RATE",
    )
    patience: int | None = requested(
        TrainingConfig,
        "patience",
        "Validations without improvement before early stopping. Default: no early stopping.",
        group="Optimization",
    )
    random_seed: int | None = requested(
        TrainingConfig,
        "random_seed",
        "Seed of the initial weights, data order and dropout. Default: random, and shown.",
        group="Optimization",
    )
    freeze_embeddings: bool | None = setting(
        "With --init-from, do not train the embedding.", default=None, group="Optimization"
    )
    precision: Literal["auto"] | Precision = setting(
        "Data type of the matrix products. Default: auto, bfloat16 on processors with AMX and float32 elsewhere.",
        default="auto",
        group="Devices",
    )
    threads: int | None = requested(
        TrainingConfig, "threads", "Processor threads. Default: all that are available.", group="Devices"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        check_exclusive(self, "steps", "epochs", "budget")
        for name in SIZED:
            check_exclusive(self, "size", name)
