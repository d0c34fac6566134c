"""What suits each architecture: how large a model, how fast it learns, how far back it looks.

The lstm's figures are measured, see benchmarks/LOG.md; the others' are first choices that reach what was asked of them.
"""

import math
from dataclasses import dataclass

from quickfox.config.model import ATTENTION_ARCHITECTURES, Architecture, ModelConfig
from quickfox.config.training import Size, TrainingRequest
from quickfox.models.parameters import hidden_kernels, parameter_shapes

SMALLEST_EMBEDDING_DIM, LARGEST_EMBEDDING_DIM = 64, 512
HIDDEN_DIM_STEP, SMALLEST_HIDDEN_DIM, LARGEST_HIDDEN_DIM = 64, 64, 1024
SMALL_HEAD_DIM, HEAD_DIM, HIDDEN_DIM_OF_LARGE_HEADS = 32, 64, 256
TIED_VOCABULARY_SIZE = 1024  # from so many tokens on, a transformer's embedding is its output kernel too


@dataclass(frozen=True)
class ArchitectureDefaults:
    """What suits an architecture where nothing is asked.

    Attributes:
        learning_rate: the schedule's peak.
        window: tokens of back-propagation through time.
        contexts: how many windows a token attends to.
        num_layers: layers where the time or the text decides on the size.
        tokens_per_parameter: of training, the best trade between a larger model and more training.
        sizes: layers and hidden units of each `--size`.
    """

    learning_rate: float
    window: int
    num_layers: int
    tokens_per_parameter: float
    sizes: dict[Size, tuple[int, int]]
    contexts: int = 1


_RECURRENT_SIZES: dict[Size, tuple[int, int]] = {
    "tiny": (1, 128),
    "small": (1, 256),
    "medium": (1, 512),
    "large": (2, 768),
}
ARCHITECTURE_DEFAULTS: dict[Architecture, ArchitectureDefaults] = {
    "rnn": ArchitectureDefaults(3e-3, 64, 1, 6.0, _RECURRENT_SIZES),
    "gru": ArchitectureDefaults(1e-2, 64, 1, 6.0, _RECURRENT_SIZES),
    "lstm": ArchitectureDefaults(1e-2, 64, 1, 6.0, _RECURRENT_SIZES),
    "attention-rnn": ArchitectureDefaults(
        1e-2, 64, 1, 6.0, {"tiny": (1, 64), "small": (1, 128), "medium": (1, 256), "large": (2, 512)}, contexts=2
    ),
    "transformer": ArchitectureDefaults(
        3e-3, 128, 4, 6.0, {"tiny": (2, 64), "small": (4, 128), "medium": (4, 256), "large": (8, 512)}
    ),
}


def choose_model(request: TrainingRequest, vocabulary_size: int, weights: float, window: int) -> ModelConfig:
    """The model that is asked for, completed by what suits.

    Args:
        request: what the person asked for; every value given is kept.
        vocabulary_size: distinct tokens.
        weights: hidden weights that the time or the text can train, where no size is asked for.
        window: tokens of back-propagation through time.

    Raises:
        UsageError: a value is out of range, or does not fit the architecture.
    """
    architecture = request.architecture or "lstm"
    defaults = ARCHITECTURE_DEFAULTS[architecture]
    if request.size is not None:
        num_layers, hidden_dim = defaults.sizes[request.size]
    else:
        num_layers = request.num_layers or defaults.num_layers
        hidden_dim = request.hidden_dim or choose_hidden_dim(architecture, num_layers, weights)
    has_attention, is_transformer = architecture in ATTENTION_ARCHITECTURES, architecture == "transformer"
    embedding_dim = hidden_dim if is_transformer else choose_embedding_dim(vocabulary_size)
    return ModelConfig(
        architecture=architecture,
        vocabulary_size=vocabulary_size,
        embedding_dim=request.embedding_dim or embedding_dim,
        hidden_dim=hidden_dim,
        num_layers=num_layers,
        num_heads=request.num_heads or (choose_num_heads(hidden_dim) if has_attention else 1),
        context=defaults.contexts * window if has_attention else None,
        tied_embeddings=is_transformer and vocabulary_size >= TIED_VOCABULARY_SIZE,
    )


def choose_hidden_dim(architecture: Architecture, num_layers: int, weights: float) -> int:
    """Hidden units of a model with about so many hidden weights, which grow with their square."""
    hidden_dim = math.sqrt(weights / _hidden_weights_per_square(architecture, num_layers))
    rounded = HIDDEN_DIM_STEP * round(hidden_dim / HIDDEN_DIM_STEP)
    return min(max(rounded, SMALLEST_HIDDEN_DIM), LARGEST_HIDDEN_DIM)


def _hidden_weights_per_square(architecture: Architecture, num_layers: int) -> float:
    """Weights of the hidden matrices, less the embedding's projection, over hidden_dim squared: of an lstm 4."""
    dim = LARGEST_HIDDEN_DIM
    context = 1 if architecture in ATTENTION_ARCHITECTURES else None
    model = ModelConfig(
        architecture=architecture,
        vocabulary_size=1,
        embedding_dim=dim,
        hidden_dim=dim,
        num_layers=num_layers,
        context=context,
    )
    return hidden_weights(model) / dim**2


def hidden_weights(model: ModelConfig) -> int:
    """Weights of the hidden matrices, less the first layer's input projection, which is looked up."""
    shapes = parameter_shapes(model)
    return sum(math.prod(shapes[name]) for name in hidden_kernels(model) if name not in LOOKED_UP)


LOOKED_UP = ("embedding.weight", "recurrent.0.input_kernel", "encoder.0.input_kernel")
"""Matrices that take part in no product for every token (see `products.look_up`)."""


def choose_embedding_dim(vocabulary_size: int) -> int:
    """Numbers that stand for a token: 64 for the characters of an alphabet, 256 for some thousand signs."""
    power = round(math.log2(max(1.0, vocabulary_size / 64)) / 3)
    return min(SMALLEST_EMBEDDING_DIM << power, LARGEST_EMBEDDING_DIM)


def choose_num_heads(hidden_dim: int) -> int:
    """As many heads as can share the hidden units in even numbers, not fewer than 32 each; 64 in large models."""
    head_dim = HEAD_DIM if hidden_dim >= HIDDEN_DIM_OF_LARGE_HEADS else SMALL_HEAD_DIM
    for num_heads in range(max(1, hidden_dim // head_dim), 1, -1):
        if hidden_dim % (2 * num_heads) == 0:
            return num_heads
    return 1


def operations_per_token(model: ModelConfig) -> float:
    """Floating-point operations of a training step for one token, about.

    6 for each weight in a matrix product (Kaplan et al. 2020), 2 forward and 4 backward; and as many for each of the
    hidden numbers of each position attended to, twice: for the scores, and for what is found.
    """
    shapes = parameter_shapes(model)
    weights = sum(math.prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name not in LOOKED_UP)
    if model.tied_embeddings:
        weights += math.prod(shapes["embedding.weight"])
    attentions = model.num_layers if model.architecture == "transformer" else 1
    return 6.0 * (weights + attentions * 2 * (model.context or 0) * model.hidden_dim)
