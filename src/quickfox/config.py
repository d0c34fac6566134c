"""The three configurations: of the model, of its training, of sampling. Frozen, validated, explicit.

A configuration holds decided values only; "choose for me" is not one of them (see training/settings.py for how
training settings are chosen). Nothing here knows files, TensorFlow or the command line.
"""

import dataclasses
import itertools
import math
import reprlib
import sys
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from quickfox.errors import DataError, UsageError

Architecture = Literal["lstm", "gru", "rnn", "attention-rnn", "transformer"]
Size = Literal["tiny", "small", "medium", "large"]
Precision = Literal["float32", "bfloat16"]
TokenizerKind = Literal["char", "byte", "word", "bpe"]
Replans = tuple[tuple[int, int], ...]

MAX_VOCABULARY_SIZE = 2**24
MAX_DIM = 2**16
MAX_LAYERS = 64
MAX_BATCH_SIZE = 2**16
MAX_WINDOW = 2**10  # the time loop is unrolled
MAX_CONTEXT = 2**16
MAX_INTEGER = 2**63 - 1
MAX_RANDOM_SEED = MAX_INTEGER
MAX_SAMPLES = 2**20
"""Bounds that no model of this program needs to pass; a file that claims more is damaged or hostile."""

Config = TypeVar("Config")

SIZED = ("embedding_dim", "hidden_dim", "num_layers")
"""The settings that a `Size` stands for."""

ATTENTION_ARCHITECTURES: tuple[Architecture, ...] = ("attention-rnn", "transformer")
ADDED_LATER = {"added_later": True}
"""Marks a setting that older files do not have: where it is missing, its default is what they meant."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes the model: its tensors, and the function they stand for.

    Attributes:
        architecture: the kind of network.
        vocabulary_size: distinct tokens.
        embedding_dim: numbers that stand for a token; of a transformer, `hidden_dim`.
        hidden_dim: units of a layer.
        num_layers: layers, one upon the other; of an attention-rnn, in its encoder and again in its decoder.
        num_heads: attentions side by side, which share `hidden_dim` equally; 1 without attention.
        context: how many positions a token attends to at most, its own and those before it; None without attention.
        tied_embeddings: whether a transformer's output layer is its embedding, transposed.

    Raises:
        UsageError: a value is outside its range, or does not fit the architecture.
    """

    architecture: Architecture = "lstm"
    vocabulary_size: int
    embedding_dim: int
    hidden_dim: int
    num_layers: int = 1
    num_heads: int = field(default=1, metadata=ADDED_LATER)
    context: int | None = field(default=None, metadata=ADDED_LATER)
    tied_embeddings: bool = field(default=False, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        _check_choice(self, "architecture", get_args(Architecture))
        check_range(self, "vocabulary_size", 1, MAX_VOCABULARY_SIZE)
        check_range(self, "embedding_dim", 1, MAX_DIM)
        check_range(self, "hidden_dim", 1, MAX_DIM)
        check_range(self, "num_layers", 1, MAX_LAYERS)
        check_range(self, "num_heads", 1, MAX_DIM)
        if self.architecture in ATTENTION_ARCHITECTURES:
            self._check_attention()
        elif self.num_heads != 1:
            raise UsageError(f"num-heads is for {' and '.join(ATTENTION_ARCHITECTURES)}, not for {self.architecture}")
        elif self.context is not None:
            raise UsageError(f"context must be left out of a {self.architecture}, which has no attention")
        if self.tied_embeddings and self.architecture != "transformer":
            raise UsageError(f"tied-embeddings is for transformer, not for {self.architecture}")

    def _check_attention(self) -> None:
        if self.context is None:
            raise UsageError(f"context is missing: how many positions the {self.architecture} attends to")
        check_range(self, "context", 1, MAX_CONTEXT)
        if self.hidden_dim % self.num_heads:
            raise UsageError(f"num-heads must divide hidden-dim {self.hidden_dim}, and {self.num_heads} does not")
        if self.architecture == "transformer":
            if self.embedding_dim != self.hidden_dim:
                raise UsageError(
                    f"embedding-dim of a transformer is its hidden-dim, {self.hidden_dim}, not {self.embedding_dim}"
                )
            if self.hidden_dim // self.num_heads % 2:
                raise UsageError(
                    f"hidden-dim must be an even number for each of a transformer's heads, not "
                    f"{self.hidden_dim} / {self.num_heads}"
                )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that, with the corpus and the machine, fixes a training run.

    Attributes:
        steps: optimizer steps in all, as first planned.
        replans: corrections of that plan, (step, total steps from there on), by step.
        batch_size: streams of text trained side by side.
        window: tokens of back-propagation through time.
        learning_rate: the peak, reached after `warmup_steps` and then lowered linearly to 0 at `steps`.
        weight_decay: decoupled decay of the weight matrices (AdamW), as a share of the learning rate.
        clip_norm: the gradient's global norm is cut to this.
        dropout: share of the layers' outputs that is dropped, in [0, 1).
        validation_interval: steps from one validation to the next.
        patience: validations without improvement before training stops early; None: never.
        random_seed: fixes the initial weights, the data's phase and the dropout masks.
        precision: of the matrix products; everything else is float32.
        threads: processor threads; part of the run's identity, as sums depend on how work is split.
        freeze_embeddings: whether the embedding keeps the weights that it starts with.

    Raises:
        UsageError: a value is outside its range.
    """

    steps: int
    replans: Replans = ()
    batch_size: int
    window: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    dropout: float
    validation_interval: int
    patience: int | None
    random_seed: int
    precision: Precision
    threads: int
    freeze_embeddings: bool = field(default=False, metadata=ADDED_LATER)

    @property
    def planned_steps(self) -> int:
        """Optimizer steps in all, by the last plan."""
        return self.replans[-1][1] if self.replans else self.steps

    def __post_init__(self) -> None:
        check_range(self, "steps", 1, 2**40)
        _check_replans(self.replans)
        check_range(self, "batch_size", 1, MAX_BATCH_SIZE)
        check_range(self, "window", 1, MAX_WINDOW)
        check_range(self, "learning_rate", 0.0, 10.0)
        check_range(self, "warmup_steps", 0, 2**40)
        check_range(self, "weight_decay", 0.0, 10.0)
        check_range(self, "clip_norm", 1e-6, 1e6)
        check_range(self, "dropout", 0.0, 0.99)
        check_range(self, "validation_interval", 1, 2**40)
        if self.patience is not None:
            check_range(self, "patience", 1, 2**40)
        check_range(self, "random_seed", 0, MAX_RANDOM_SEED)
        _check_choice(self, "precision", get_args(Precision))
        check_range(self, "threads", 1, 1024)


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What a person asks of a training run; None leaves the choice to `training/settings.py`.

    At most one of `steps`, `epochs` and `budget` (seconds of wall time, start-up included) is given. `size` stands for
    `embedding_dim`, `hidden_dim` and `num_layers`, and excludes them.
    """

    architecture: Architecture | None = None
    size: Size | None = None
    embedding_dim: int | None = None
    hidden_dim: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    dropout: float | None = None
    batch_size: int | None = None
    window: int | None = None
    learning_rate: float | None = None
    steps: int | None = None
    epochs: float | None = None
    budget: float | None = None
    patience: int | None = None
    validation_split: float | None = None
    random_seed: int | None = None
    precision: Precision | Literal["auto"] = "auto"
    threads: int | None = None
    tokenizer: TokenizerKind | None = None
    vocabulary_size: int | None = None
    freeze_embeddings: bool | None = None

    def __post_init__(self) -> None:
        named = [name for name in ("steps", "epochs", "budget") if getattr(self, name) is not None]
        if len(named) > 1:
            raise UsageError(f"--{named[0]} and --{named[1]} exclude each other: give one")
        if self.architecture is not None:
            _check_choice(self, "architecture", get_args(Architecture))
        if self.tokenizer is not None:
            _check_choice(self, "tokenizer", get_args(TokenizerKind))
        if self.size is not None:
            _check_choice(self, "size", get_args(Size))
            for name in SIZED:
                if getattr(self, name) is not None:
                    raise UsageError(f"--size and --{name.replace('_', '-')} exclude each other: give one")
        for name, low, high in (
            ("epochs", 1e-3, 1e12),
            ("budget", 1e-3, 1e12),
            ("steps", 1, 2**40),
            ("embedding_dim", 1, MAX_DIM),
            ("hidden_dim", 1, MAX_DIM),
            ("num_layers", 1, MAX_LAYERS),
            ("num_heads", 1, MAX_DIM),
            ("dropout", 0.0, 0.99),
            ("batch_size", 1, MAX_BATCH_SIZE),
            ("window", 1, MAX_WINDOW),
            ("learning_rate", 1e-9, 10.0),
            ("patience", 1, 2**40),
            ("validation_split", 0.0, 0.9),
            ("random_seed", 0, MAX_RANDOM_SEED),
            ("threads", 1, 1024),
        ):
            if getattr(self, name) is not None:
                check_range(self, name, low, high)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How text is drawn from a model.

    Attributes:
        length: new tokens to draw at most, >= 0.
        temperature: divides the logits; 0 is greedy, 1 the model's own distribution; finite, >= 0.
        top_k: draw among the k likeliest tokens only, >= 1; None or more than the vocabulary: among all.
        top_p: among the likeliest that have this probability together, in (0, 1]; 1: among all.
        min_p: among those at least this times as probable as the likeliest, in [0, 1]; 0: among all.
        typical_p: among the most typical that have this probability together, in (0, 1]; 1: among all.
        repetition_penalty: makes tokens of the text so far less likely, > 0; 1: as likely as they are.
        presence_penalty: subtracted from the logits of tokens of the text so far.
        frequency_penalty: subtracted from a token's logit for each time it is in the text so far.
        penalty_window: the three penalties look back so many tokens, >= 1; None: to the start.
        no_repeat_ngram: no sequence of so many tokens comes twice, >= 1; None: any may.
        logit_bias: (text of a token, what is added to its logit), different texts.
        stop: texts that end the continuation and are not a part of it.
        max_seconds: wall time after which drawing ends, > 0; None: no limit.
        random_seed: with the number of the sample, fixes every draw.
        num_samples: how many texts to give, >= 1.
        best_of: how many to draw, of which those most probable by the model are given; None: as many as given.
        num_beams: > 1: nothing is drawn, the most probable continuation is searched for with so many beams.
        logprobs: for each token report its log-probability and those of so many likeliest; None: none.

    Raises:
        UsageError: a value is outside its range, or two exclude each other.
    """

    length: int = 500
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int | None = 64
    no_repeat_ngram: int | None = None
    logit_bias: tuple[tuple[str, float], ...] = ()
    stop: tuple[str, ...] = ()
    max_seconds: float | None = None
    random_seed: int = 0
    num_samples: int = 1
    best_of: int | None = None
    num_beams: int = 1
    logprobs: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("length", 0, 2**40),
            ("temperature", 0.0, math.inf),
            ("top_k", 1, 2**40),
            ("top_p", sys.float_info.min, 1.0),
            ("min_p", 0.0, 1.0),
            ("typical_p", sys.float_info.min, 1.0),
            ("repetition_penalty", 1e-6, 1e6),
            ("presence_penalty", -1e6, 1e6),
            ("frequency_penalty", -1e6, 1e6),
            ("penalty_window", 1, 2**40),
            ("no_repeat_ngram", 1, 2**20),
            ("max_seconds", 1e-3, 1e9),
            ("random_seed", 0, MAX_RANDOM_SEED),
            ("num_samples", 1, MAX_SAMPLES),
            ("best_of", 1, MAX_SAMPLES),
            ("num_beams", 1, 2**10),
            ("logprobs", 0, MAX_VOCABULARY_SIZE),
        ):
            if getattr(self, name) is not None:
                check_range(self, name, low, high)
        if not all(self.stop):
            raise UsageError("stop must not be empty: every text ends with nothing")
        for text, bias in self.logit_bias:
            if math.isnan(bias) or bias == math.inf:
                raise UsageError(f"logit-bias of {text!r} must be a number below infinity, not {bias}")
        if self.num_beams > 1 and self.best_of is not None:
            raise UsageError("num-beams and best-of exclude each other: give one")
        most = self.best_of or (self.num_beams if self.num_beams > 1 else self.num_samples)
        if self.num_samples > most:
            name = "best-of" if self.best_of else "num-beams"
            raise UsageError(f"num-samples must be at most {name}, which is {most}, not {self.num_samples}")


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a configuration, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], values: Any, where: str) -> Config:
    """The configuration of type `kind` that `values`, read from JSON, describes; nothing is guessed or ignored.

    Only settings that were ADDED_LATER may be missing.

    Args:
        kind: one of the configuration classes.
        values: a decoded JSON value.
        where: the file it came from, for the message.

    Raises:
        DataError: not an object; a field missing, unknown, of another type (a bool is no integer) or out of range.
    """
    if not isinstance(values, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(values).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - fields.keys()):
        raise DataError(f"{where}: unknown setting {reprlib.repr(unknown[0])}")
    needed = {name for name, field in fields.items() if not field.metadata.get("added_later")}
    if missing := sorted(needed - values.keys()):
        raise DataError(f"{where}: setting {missing[0]!r} is missing")
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not _has_type(value, hints[name]):
            raise DataError(f"{where}: setting {name!r} cannot be {reprlib.repr(value)}")
    try:
        return kind(**{name: _frozen(value) for name, value in values.items()})
    except UsageError as error:
        raise DataError(f"{where}: {error}") from None


def _has_type(value: Any, hint: Any) -> bool:
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return False  # for floats too: Python would fail to convert it
    if get_origin(hint) is Literal:
        return value in get_args(hint) and isinstance(value, str)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and _have_types(value, get_args(hint))
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_has_type(member, get_args(hint)[1]) for member in value.values())
    if args := get_args(hint):  # a union such as int | None
        return any(_has_type(value, arg) for arg in args)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)


def _have_types(values: Any, hints: Any) -> bool:
    """Whether the items are of the types of a tuple; `(int, ...)` stands for any number of integers."""
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = hints[:1] * len(values)
    return len(values) == len(hints) and all(map(_has_type, values, hints))


def _frozen(value: Any) -> Any:
    """Lists of JSON as tuples, at any depth."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _check_replans(replans: Replans) -> None:
    steps = [0, *(step for step, _ in replans)]
    if any(step >= later for step, later in itertools.pairwise(steps)) or any(total < step for step, total in replans):
        raise UsageError("replans must be (step, total steps) in order, no total below its step")


def check_range(config: Any, name: str, low: float, high: float) -> None:
    """Raises UsageError unless low <= value <= high and the value is finite; names the option."""
    value = getattr(config, name)
    is_finite = abs(value) <= sys.float_info.max  # math.isfinite fails for an integer beyond that
    if not (low <= value <= high and is_finite):
        bound = f"at least {low}" if high == math.inf or value < low else f"at most {high}"
        finite = "" if is_finite else " and finite"
        raise UsageError(f"{name.replace('_', '-')} must be {bound}{finite}, not {reprlib.repr(value)}")


def _check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise UsageError(f"{name.replace('_', '-')} must be one of {', '.join(choices)}, not {value!r}")
