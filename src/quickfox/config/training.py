"""Configurations of training: the settings a user requests, and those of a run.

`training/planning/auto_config.py` derives the explicit `TrainingConfig` of a run from a `TrainingRequest`.
"""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Literal

from quickfox.config.model import MAX_DIM, MAX_LAYERS, MAX_NGRAM_ORDER, Architecture, ModelConfig, TokenizerKind
from quickfox.config.schema import MAX_INTEGER, bounds_of, check_exclusive, check_settings, setting
from quickfox.errors import UsageError

Size = Literal["tiny", "small", "medium", "large"]
Precision = Literal["float32", "bfloat16"]
TrackerName = Literal["tensorboard", "trackio", "wandb", "csv"]
Replans = tuple[tuple[int, int], ...]

MAX_BATCH_SIZE = 2**16
MAX_WINDOW = 2**10  # the time loop is unrolled
MAX_STEPS = 2**40
MAX_COUNTED_TOKENS = 2**27  # of n-grams
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
        ngram_order: order of the n-gram tables; 0: none.
        ngram_tokens: tokens that are counted for them; of a longer text, segments at equal distances.
        no_augmentation: whether signals are read unchanged in training.
        tokens_per_row: mean length of the documents, if each is a row of its own; None: rows have `window` tokens.

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
    ngram_order: int = setting(default=0, bounds=(0, MAX_NGRAM_ORDER), added_later=True)
    ngram_tokens: int = setting(
        default=MAX_COUNTED_TOKENS, bounds=(1, MAX_COUNTED_TOKENS), added_later=True, omitted_by_default=True
    )
    no_augmentation: bool = setting(default=False, added_later=True, omitted_by_default=True)
    tokens_per_row: int | None = setting(
        default=None, bounds=(1, MAX_INTEGER), added_later=True, omitted_by_default=True
    )

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a batch; of documents, on average."""
        return self.batch_size * (self.tokens_per_row or self.window)

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


_corpus = partial(setting, group="Corpus and tokenizer")
_model = partial(setting, group="Model")
_optimization = partial(setting, group="Optimization")
_devices = partial(setting, group="Devices")


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """The settings a user requests; those that are None are chosen by `training/planning/auto_config.py`.

    `steps`, `epochs` and `budget` exclude each other. `size` sets `embedding_dim`, `hidden_dim` and `num_layers`, and
    excludes them. The fields are options of `llm train`.

    Raises:
        UsageError: a value is outside its range, or two exclude each other.
    """

    tokenizer: TokenizerKind | None = _corpus("Unit of a token: character, byte, word or subword. Default: char.", None)
    vocabulary_size: int | None = _corpus(
        "Maximum vocabulary size of a word or bpe tokenizer, in tokens. Default: 4096.", None
    )
    validation_split: float | None = _corpus(
        "Fraction held out for validation: the end of a text, or documents drawn at random; 0 disables validation. "
        "Default: 0.1.",
        None,
        (0.0, 0.9),
        "FRACTION",
    )
    architecture: Architecture | None = _model(
        "Network architecture; ngram: n-gram model alone, without a network. Default: lstm; for sound and pictures "
        "attention-rnn.",
        None,
    )
    size: Size | None = _model(
        "Preset of the hidden dimension and the number of layers. Default: chosen for the time budget.", None
    )
    embedding_dim: int | None = _model(
        "Embedding dimension. Default: for the vocabulary; of a transformer, that of the layers.", None, (1, MAX_DIM)
    )
    hidden_dim: int | None = _model("Units per layer. Default: chosen with the size.", None, (1, MAX_DIM))
    num_layers: int | None = _model("Number of layers. Default: chosen with the size.", None, (1, MAX_LAYERS))
    num_heads: int | None = _model(
        "Attention heads per layer. Default: chosen with the size.", None, bounds_of(ModelConfig, "num_heads")
    )
    ngram: Literal["auto", "off"] | int = _model(
        "Order of the n-gram model that is mixed with the network; off: network alone. Default: auto, by the text.",
        "auto",
        (1, MAX_NGRAM_ORDER),
        "ORDER|off|auto",
    )
    budget: float | None = _optimization(
        "Wall time of the whole command, such as 60s, 5m or 1h. Default: chosen for the length of the text.",
        None,
        (1e-3, MAX_SECONDS),
        "TIME",
    )
    epochs: float | None = _optimization(
        "Number of passes over the training text, instead of a budget.", None, (1e-3, 1e12)
    )
    steps: int | None = _optimization(
        "Number of optimizer steps, instead of a budget.", None, bounds_of(TrainingConfig, "steps")
    )
    batch_size: int | None = _optimization(
        "Sequences per batch, over all workers. Default: 64; transformer 8, signals 32; half of it in short runs.",
        None,
        bounds_of(TrainingConfig, "batch_size"),
    )
    window: int | None = _optimization(
        "Tokens of back-propagation through time; attention covers 1 or 2 windows. Default: 64; 128 for a transformer.",
        None,
        bounds_of(TrainingConfig, "window"),
    )
    learning_rate: float | None = _optimization(
        "Peak learning rate. Default: 0.01; 0.003 for rnn and transformer.", None, (1e-9, 10.0), "RATE"
    )
    dropout: float | None = _optimization(
        "Dropout rate of the layers' outputs. Default: chosen for the number of epochs.",
        None,
        bounds_of(TrainingConfig, "dropout"),
        "RATE",
    )
    patience: int | None = _optimization(
        "Validations without improvement before early stopping. Default: no early stopping.",
        None,
        bounds_of(TrainingConfig, "patience"),
    )
    random_seed: int | None = _optimization(
        "Seed of the initial weights, data order and dropout. Default: random, and shown.",
        None,
        bounds_of(TrainingConfig, "random_seed"),
    )
    freeze_embeddings: bool | None = _optimization("With --init-from, do not train the embedding.", None)
    no_augmentation: bool | None = _optimization(
        "Read sound and pictures unchanged in training, without small random changes.", None
    )
    precision: Literal["auto"] | Precision = _devices(
        "Data type of the matrix products. Default: auto, bfloat16 on processors with AMX and float32 elsewhere.",
        "auto",
    )
    threads: int | None = _devices(
        "Processor threads. Default: all that are available.", None, bounds_of(TrainingConfig, "threads")
    )

    def __post_init__(self) -> None:
        check_settings(self)
        check_exclusive(self, "steps", "epochs", "budget")
        for name in SIZED:
            check_exclusive(self, "size", name)
