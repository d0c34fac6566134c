"""THE CONTRACT: for each architecture, the name and shape of every tensor, from the configuration alone.

The Keras network, the NumPy runtime, the checkpoint's loader, parameter counts and memory estimates all read
it. All tensors are float32. Names are ours, never a library's paths.

Shapes, with V = vocabulary_size, D = embedding_dim, H = hidden_dim:

    embedding.weight                (V, D)
    recurrent.0.input_kernel        (D, 4H)      columns in the order of the gates: input, forget, cell, output
    recurrent.0.recurrent_kernel    (H, 4H)
    recurrent.0.bias                (4H,)
    recurrent.k.*                   as above with D = H, for each further layer k
    output.kernel                   (H, V)
    output.bias                     (V,)
"""

from collections.abc import Callable
from math import prod

from quickfox.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]

LSTM_GATES = 4


def lstm_shapes(config: ModelConfig) -> Shapes:
    """Shapes of the LSTM language model: embedding, a stack of LSTM layers, a dense output layer."""
    shapes: Shapes = {"embedding.weight": (config.vocabulary_size, config.embedding_dim)}
    gates = LSTM_GATES * config.hidden_dim
    for layer in range(config.num_layers):
        input_dim = config.embedding_dim if layer == 0 else config.hidden_dim
        shapes[f"recurrent.{layer}.input_kernel"] = (input_dim, gates)
        shapes[f"recurrent.{layer}.recurrent_kernel"] = (config.hidden_dim, gates)
        shapes[f"recurrent.{layer}.bias"] = (gates,)
    shapes["output.kernel"] = (config.hidden_dim, config.vocabulary_size)
    shapes["output.bias"] = (config.vocabulary_size,)
    return shapes


_SHAPES: dict[str, Callable[[ModelConfig], Shapes]] = {"lstm": lstm_shapes}


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Name and shape of every tensor of the model that `config` describes, in a fixed order."""
    return _SHAPES[config.architecture](config)


def parameter_count(config: ModelConfig) -> int:
    """Number of trained scalars of the model that `config` describes."""
    return sum(prod(shape) for shape in parameter_shapes(config).values())
