"""THE CONTRACT: for each architecture, the name and shape of every tensor, from the configuration alone.

The trainable network, the NumPy runtime, the checkpoint's loader, parameter counts and memory estimates all read
it. All tensors are float32. Names are ours, never a library's paths; matrices are (inputs, outputs), and what is
named `*_kernel` is a hidden matrix, which may hold several maps side by side.

Shapes, with V = vocabulary_size, D = embedding_dim, H = hidden_dim, F = feed_forward_dim(H), and G maps:

    rnn (G = 1), gru (G = 3: update, reset, candidate), lstm (G = 4: input, forget, cell, output)
        embedding.weight                (V, D)
        recurrent.0.input_kernel        (D, GH)
        recurrent.0.recurrent_kernel    (H, GH)
        recurrent.0.bias                (GH,)      of a gru (2, GH): with the input, with the state
        recurrent.k.*                   as above with D = H, for each further layer k
        output.kernel                   (H, V)
        output.bias                     (V,)

    attention-rnn
        embedding.weight                (V, D)
        encoder.k.*                     as the lstm's recurrent.k.*
        attention.input_kernel          (H, 3H)    query, key, value
        decoder.k.*                     as the lstm's recurrent.k.*, with D = 2H: state and context, joined
        output.kernel, output.bias      as above

    transformer (D = H), all of it without biases
        embedding.weight                      (V, H)
        layers.k.attention_norm.weight        (H,)
        layers.k.attention.input_kernel       (H, 3H)    query, key, value; of each, the heads side by side
        layers.k.attention.output_kernel      (H, H)
        layers.k.feed_forward_norm.weight     (H,)
        layers.k.feed_forward.input_kernel    (H, 2F)    gate, up
        layers.k.feed_forward.output_kernel   (F, H)     down
        norm.weight                           (H,)
        output.kernel                         (H, V)     not there with tied embeddings
"""

from collections.abc import Callable
from math import prod

from quickfox.config.model import Architecture, ModelConfig

Shapes = dict[str, tuple[int, ...]]

EMBEDDING = "embedding.weight"

RECURRENT_GATES: dict[str, int] = {"rnn": 1, "gru": 3, "lstm": 4}
"""Maps side by side in the kernels of each recurrent cell."""

ATTENTION_MAPS = 3  # query, key, value
FEED_FORWARD_MAPS = 2  # gate, up
_FEED_FORWARD_MULTIPLE = 16


def feed_forward_dim(hidden_dim: int) -> int:
    """Units of a transformer's feed-forward layers: 8/3 of its hidden units, rounded up to a multiple of 16.

    With three matrices instead of two, 8/3 gives as many weights as the usual 4 (Shazeer 2020; Touvron et al. 2023).
    """
    return -(-8 * hidden_dim // (3 * _FEED_FORWARD_MULTIPLE)) * _FEED_FORWARD_MULTIPLE


def kernel_maps(config: ModelConfig) -> dict[str, int]:
    """The hidden matrices by name, and how many maps stand side by side in each."""
    maps = {"attention.input_kernel": ATTENTION_MAPS, "feed_forward.input_kernel": FEED_FORWARD_MAPS}
    maps |= {"attention.output_kernel": 1, "feed_forward.output_kernel": 1}
    gates = RECURRENT_GATES[recurrent_cell(config)] if config.architecture != "transformer" else 1
    names = [name for name in parameter_shapes(config) if name.endswith("_kernel")]
    return {name: maps.get(".".join(name.split(".")[-2:]), gates) for name in names}


def recurrent_cell(config: ModelConfig) -> str:
    """The kind of recurrent layers in a model that has some."""
    return "lstm" if config.architecture == "attention-rnn" else config.architecture


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Name and shape of every tensor of the model that `config` describes, in a fixed order."""
    return _SHAPES[config.architecture](config)


def parameter_count(config: ModelConfig) -> int:
    """Number of trained scalars of the model that `config` describes."""
    return sum(prod(shape) for shape in parameter_shapes(config).values())


def _recurrent_shapes(config: ModelConfig) -> Shapes:
    return {
        EMBEDDING: (config.vocabulary_size, config.embedding_dim),
        **_stack_shapes("recurrent", config, config.embedding_dim),
        **_output_shapes(config),
    }


def _attention_rnn_shapes(config: ModelConfig) -> Shapes:
    return {
        EMBEDDING: (config.vocabulary_size, config.embedding_dim),
        **_stack_shapes("encoder", config, config.embedding_dim),
        "attention.input_kernel": (config.hidden_dim, ATTENTION_MAPS * config.hidden_dim),
        **_stack_shapes("decoder", config, 2 * config.hidden_dim),
        **_output_shapes(config),
    }


def _transformer_shapes(config: ModelConfig) -> Shapes:
    hidden, feed_forward = config.hidden_dim, feed_forward_dim(config.hidden_dim)
    shapes: Shapes = {EMBEDDING: (config.vocabulary_size, hidden)}
    for layer in range(config.num_layers):
        shapes |= {
            f"layers.{layer}.attention_norm.weight": (hidden,),
            f"layers.{layer}.attention.input_kernel": (hidden, ATTENTION_MAPS * hidden),
            f"layers.{layer}.attention.output_kernel": (hidden, hidden),
            f"layers.{layer}.feed_forward_norm.weight": (hidden,),
            f"layers.{layer}.feed_forward.input_kernel": (hidden, FEED_FORWARD_MAPS * feed_forward),
            f"layers.{layer}.feed_forward.output_kernel": (feed_forward, hidden),
        }
    shapes["norm.weight"] = (hidden,)
    if not config.tied_embeddings:
        shapes["output.kernel"] = (hidden, config.vocabulary_size)
    return shapes


def _stack_shapes(name: str, config: ModelConfig, input_dim: int) -> Shapes:
    """Of a stack of recurrent layers, the lowest of which reads `input_dim` numbers."""
    cell = recurrent_cell(config)
    columns = RECURRENT_GATES[cell] * config.hidden_dim
    shapes: Shapes = {}
    for layer in range(config.num_layers):
        shapes[f"{name}.{layer}.input_kernel"] = (input_dim if layer == 0 else config.hidden_dim, columns)
        shapes[f"{name}.{layer}.recurrent_kernel"] = (config.hidden_dim, columns)
        shapes[f"{name}.{layer}.bias"] = (2, columns) if cell == "gru" else (columns,)
    return shapes


def _output_shapes(config: ModelConfig) -> Shapes:
    return {"output.kernel": (config.hidden_dim, config.vocabulary_size), "output.bias": (config.vocabulary_size,)}


_SHAPES: dict[Architecture, Callable[[ModelConfig], Shapes]] = {
    "rnn": _recurrent_shapes,
    "gru": _recurrent_shapes,
    "lstm": _recurrent_shapes,
    "attention-rnn": _attention_rnn_shapes,
    "transformer": _transformer_shapes,
}
