"""Sizes and default settings of each architecture, and the choice of a model's sizes.

The lstm's figures are measured (benchmarks/LOG.md); those of the other architectures are first choices.
"""

import math
from dataclasses import dataclass

from quickfox.config.media import MediaConfig
from quickfox.config.model import ATTENTION_ARCHITECTURES, Architecture, ModelConfig
from quickfox.config.training import Size, TrainingRequest
from quickfox.models.parameters import hidden_kernels, parameter_shapes

MIN_EMBEDDING_DIM, MAX_EMBEDDING_DIM = 64, 512
MAX_EMBEDDING_DIM_OF_FRAMES = 128
HIDDEN_DIM_STEP, MIN_HIDDEN_DIM, MAX_HIDDEN_DIM = 64, 64, 1024
MAX_HIDDEN_DIM_OF_SIGNALS = 256  # there are thousands of examples, not millions of characters: steps matter more
SMALL_HEAD_DIM, HEAD_DIM, MIN_HIDDEN_DIM_OF_LARGE_HEADS = 32, 64, 256
TIED_VOCABULARY_SIZE = 1024  # from this vocabulary size on, a transformer's embeddings are tied

Sizes = dict[Size, tuple[int, int]]

LOOKED_UP = ("embedding.weight", "recurrent.0.input_kernel", "encoder.0.input_kernel")
"""Matrices that are not multiplied once per token (see `networks.matmul.embedding_lookup`)."""


@dataclass(frozen=True)
class ArchitectureDefaults:
    """The settings of an architecture that are used unless others are requested.

    Attributes:
        learning_rate: peak learning rate.
        window: tokens of back-propagation through time.
        num_layers: number of layers, if the sizes are chosen by the time or the text.
        tokens_per_parameter: number of training tokens per parameter at which the loss is lowest for given compute.
        sizes: number of layers and hidden units of each `Size`.
        batch_size: sequences per batch of a run that is not very short. A recurrent network computes one token of all
            sequences at a time and needs many of them; a transformer has the tokens of a window for that, and learns
            more from more steps.
        context_windows: number of windows that a token attends to.
    """

    learning_rate: float
    window: int
    num_layers: int
    tokens_per_parameter: float
    sizes: Sizes
    batch_size: int = 64
    context_windows: int = 1


_RECURRENT_SIZES: Sizes = {"tiny": (1, 128), "small": (1, 256), "medium": (1, 512), "large": (2, 768)}
_ATTENTION_RNN_SIZES: Sizes = {"tiny": (1, 64), "small": (1, 128), "medium": (1, 256), "large": (2, 512)}
_TRANSFORMER_SIZES: Sizes = {"tiny": (2, 64), "small": (4, 128), "medium": (4, 256), "large": (8, 512)}
ARCHITECTURE_DEFAULTS: dict[Architecture, ArchitectureDefaults] = {
    "rnn": ArchitectureDefaults(3e-3, 64, 1, 6.0, _RECURRENT_SIZES),
    "gru": ArchitectureDefaults(1e-2, 64, 1, 6.0, _RECURRENT_SIZES),
    "lstm": ArchitectureDefaults(1e-2, 64, 1, 6.0, _RECURRENT_SIZES),
    "attention-rnn": ArchitectureDefaults(1e-2, 64, 1, 6.0, _ATTENTION_RNN_SIZES, context_windows=2),
    "transformer": ArchitectureDefaults(3e-3, 128, 4, 6.0, _TRANSFORMER_SIZES, batch_size=8),
}


def choose_model(
    request: TrainingRequest, vocabulary_size: int, weights: float, window: int, media: MediaConfig | None = None
) -> ModelConfig:
    """Chooses the model's sizes that `request` leaves open.

    Args:
        request: the requested settings, all of which are kept.
        vocabulary_size: number of distinct tokens.
        weights: number of hidden weights that the time or the text suffices to train; used if no size is requested.
        window: tokens of back-propagation through time.
        media: how the model reads signals, before which it has no other text to attend to; None: it reads text only.

    Raises:
        UsageError: a value is out of range, or does not fit the architecture.
    """
    architecture = request.architecture or "lstm"
    defaults = ARCHITECTURE_DEFAULTS[architecture]
    if request.size is not None:
        num_layers, hidden_dim = defaults.sizes[request.size]
    else:
        num_layers = request.num_layers or defaults.num_layers
        largest = MAX_HIDDEN_DIM_OF_SIGNALS if media else MAX_HIDDEN_DIM
        hidden_dim = request.hidden_dim or min(choose_hidden_dim(architecture, num_layers, weights), largest)
    has_attention, is_transformer = architecture in ATTENTION_ARCHITECTURES, architecture == "transformer"
    embedding_dim = hidden_dim if is_transformer else choose_embedding_dim(vocabulary_size, media)
    return ModelConfig(
        architecture=architecture,
        vocabulary_size=vocabulary_size,
        embedding_dim=request.embedding_dim or embedding_dim,
        hidden_dim=hidden_dim,
        num_layers=num_layers,
        num_heads=request.num_heads or (choose_num_heads(hidden_dim) if has_attention else 1),
        context=(1 if media else defaults.context_windows) * window if has_attention else None,
        tied_embeddings=is_transformer and vocabulary_size >= TIED_VOCABULARY_SIZE,
        **({media.kind: media} if media else {}),  # type: ignore[arg-type]
    )


def choose_hidden_dim(architecture: Architecture, num_layers: int, weights: float) -> int:
    """Number of hidden units of a model with about `weights` hidden weights, which are proportional to its square."""
    model = ModelConfig(
        architecture=architecture,
        vocabulary_size=1,
        embedding_dim=MAX_HIDDEN_DIM,
        hidden_dim=MAX_HIDDEN_DIM,
        num_layers=num_layers,
        context=1 if architecture in ATTENTION_ARCHITECTURES else None,
    )
    shapes = parameter_shapes(model)
    largest = sum(math.prod(shapes[name]) for name in hidden_kernels(model) if name not in LOOKED_UP)
    hidden_dim = math.sqrt(weights / (largest / MAX_HIDDEN_DIM**2))
    rounded = HIDDEN_DIM_STEP * round(hidden_dim / HIDDEN_DIM_STEP)
    return min(max(rounded, MIN_HIDDEN_DIM), MAX_HIDDEN_DIM)


def choose_embedding_dim(vocabulary_size: int, media: MediaConfig | None = None) -> int:
    """Embedding dimension: 64 for the characters of an alphabet, 256 for several thousand tokens.

    It is a power of 2, or half the numbers of a frame of signals, if that is more, but at most 128.
    """
    power = round(math.log2(max(1.0, vocabulary_size / 64)) / 3)
    of_frames = min(media.frame_dim // 2, MAX_EMBEDDING_DIM_OF_FRAMES) if media else 0
    return max(min(MIN_EMBEDDING_DIM << power, MAX_EMBEDDING_DIM), of_frames)


def choose_num_heads(hidden_dim: int) -> int:
    """Number of heads, at least 32 units each, in large models 64; the number of units per head is even."""
    head_dim = HEAD_DIM if hidden_dim >= MIN_HIDDEN_DIM_OF_LARGE_HEADS else SMALL_HEAD_DIM
    for num_heads in range(max(1, hidden_dim // head_dim), 1, -1):
        if hidden_dim % (2 * num_heads) == 0:
            return num_heads
    return 1


def operations_per_token(model: ModelConfig) -> float:
    """Approximate floating-point operations of a training step per token.

    6 for each weight of a matrix product, 2 forward and 4 backward (Kaplan et al. 2020, "Scaling laws for neural
    language models"); and 12 for each hidden unit of each position attended to: 6 for the scores, 6 for the weighted
    sum.
    """
    shapes = parameter_shapes(model)
    weights = sum(math.prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name not in LOOKED_UP)
    if model.tied_embeddings:
        weights += math.prod(shapes["embedding.weight"])
    attention_layers = count_layers(model, "attention.input_kernel")
    return 6.0 * (weights + attention_layers * 2 * (model.context or 0) * model.hidden_dim)


def count_layers(model: ModelConfig, kernel: str) -> int:
    """Number of layers of a kind: those with a parameter whose name ends in `kernel`."""
    return sum(name.endswith(kernel) for name in parameter_shapes(model))
