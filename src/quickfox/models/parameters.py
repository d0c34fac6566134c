"""The parameter schema: name, shape and dtype of every tensor of a model, derived from the configuration only.

The trainable networks, the NumPy models, the checkpoint loader, parameter counts and memory estimates all read it.
The parameters of a network are float32; matrices are (inputs, outputs). A name ending in `_kernel` is a hidden matrix;
several projections of one input are fused in it, concatenated along the columns.

Shapes, with V = vocabulary_size, D = embedding_dim, H = hidden_dim, F = feed_forward_dim(H), and G gates:

    rnn (G = 1), gru (G = 3: update, reset, candidate), lstm (G = 4: input, forget, cell, output)
        embedding.weight                (V, D)
        recurrent.0.input_kernel        (D, GH)
        recurrent.0.recurrent_kernel    (H, GH)
        recurrent.0.bias                (GH,)      of a gru (2, GH): input bias, recurrent bias
        recurrent.k.*                   as above with D = H, for each further layer k
        output.kernel                   (H, V)
        output.bias                     (V,)

    attention-rnn
        embedding.weight                (V, D)
        encoder.k.*                     as the lstm's recurrent.k.*
        attention.input_kernel          (H, 3H)    query, key, value
        decoder.k.*                     as the lstm's recurrent.k.*, with D = 2H: encoder output and attention output
        output.kernel, output.bias      as above

    transformer (D = H), without biases
        embedding.weight                      (V, H)
        layers.k.attention_norm.weight        (H,)
        layers.k.attention.input_kernel       (H, 3H)    query, key, value; each with its heads concatenated
        layers.k.attention.output_kernel      (H, H)
        layers.k.feed_forward_norm.weight     (H,)
        layers.k.feed_forward.input_kernel    (H, 2F)    gate, up
        layers.k.feed_forward.output_kernel   (F, H)     down
        norm.weight                           (H,)
        output.kernel                         (H, V)     absent if the embeddings are tied

    ngram
        no network

A network of one of these architectures whose output layer reads an n-gram model of order K = ngram_gate has at the end

        ngram_gate.kernel         (H,)      u
        ngram_gate.length_bias    (K,)      e

With h (H,) the input of its output layer, p_ngram (V,) the n-gram model's distribution after the text so far, and
m from 0 to K - 1 the length of the longest context found in the tables, it adds to the logits of the output layer

    s log p_ngram,    s = 1 + h . u + e[m]

A network that reads signals, with F numbers in a frame and P kinds of frames (see `config/media.py`), has at the end

        media.embedding           (2 + P, D)    begin and end of a signal, and what is added to each kind of frame
        media.kernel              (F, D)

    The input at a frame x of kind p is  x media.kernel + media.embedding[2 + p].

The n-gram tables, which are not trained by gradients, are tensors too. With ngrams = (n_1 = V, n_2, ...) and k >= 2:

    ngram.1.probs      (V,)              float32     probability of each token without context
    ngram.k.offsets    (n_{k-1} + 1,)    uint32      offsets[i] <= j < offsets[i + 1]: the k-grams j that extend the
                                                     (k - 1)-gram i by a token
    ngram.k.tokens     (n_k,)            unsigned    last token of each k-gram, increasing among those of the same first
                                                     k - 1 tokens; of the smallest dtype that holds V - 1
    ngram.k.probs      (n_k,)            float32     discounted probability of the last token, before the share of the
                                                     lower orders is added
"""

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from quickfox.config.media import num_media_inputs
from quickfox.config.model import ModelConfig

if TYPE_CHECKING:
    import numpy as np

Shapes = dict[str, tuple[int, ...]]


class TensorSpec(NamedTuple):
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


EMBEDDING = "embedding.weight"
MEDIA_EMBEDDING, MEDIA_KERNEL = "media.embedding", "media.kernel"

RECURRENT_GATES: dict[str, int] = {"rnn": 1, "gru": 3, "lstm": 4}
"""Projections fused in the kernels of each recurrent cell."""

ATTENTION_PROJECTIONS = 3  # query, key, value
FEED_FORWARD_PROJECTIONS = 2  # gate, up
_FEED_FORWARD_MULTIPLE = 16


def feed_forward_dim(hidden_dim: int) -> int:
    """Units of a transformer's feed-forward layers: 8/3 of its hidden units, rounded up to a multiple of 16.

    The three matrices of SwiGLU then have as many weights as the usual two with a factor of 4 (Shazeer 2020, "GLU
    variants improve transformer"; Touvron et al. 2023, "LLaMA").
    """
    return -(-8 * hidden_dim // (3 * _FEED_FORWARD_MULTIPLE)) * _FEED_FORWARD_MULTIPLE


def hidden_kernels(config: ModelConfig) -> dict[str, int]:
    """Name of each hidden matrix -> number of projections fused in it."""
    projections = {
        "attention.input_kernel": ATTENTION_PROJECTIONS,
        "feed_forward.input_kernel": FEED_FORWARD_PROJECTIONS,
    }
    gates = RECURRENT_GATES.get(recurrent_cell(config), 1)
    names = [name for name in parameter_shapes(config) if name.endswith("_kernel")]  # not media.kernel: of an input
    return {name: projections.get(".".join(name.split(".")[-2:]), gates) for name in names}


def recurrent_cell(config: ModelConfig) -> str:
    """The cell of the recurrent layers of a model: a key of `RECURRENT_GATES`, unless it has no recurrent layers."""
    return "lstm" if config.architecture == "attention-rnn" else config.architecture


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Name and shape of every trainable parameter of the model that `config` describes, all float32, in a fixed order.

    These are the tensors of its network; without a network there are none.
    """
    if not config.has_network:
        return {}
    shapes = _transformer_shapes(config) if config.architecture == "transformer" else _recurrent_shapes(config)
    if config.ngram_gate:
        shapes["ngram_gate.kernel"] = (config.hidden_dim,)
        shapes["ngram_gate.length_bias"] = (config.ngram_gate,)
    if config.media is not None:
        shapes[MEDIA_EMBEDDING] = (num_media_inputs(config.media), config.embedding_dim)
        shapes[MEDIA_KERNEL] = (config.media.frame_dim, config.embedding_dim)
    return shapes


def parameter_count(config: ModelConfig) -> int:
    """Number of trainable scalars of the model that `config` describes."""
    return sum(prod(shape) for shape in parameter_shapes(config).values())


def tensor_specs(config: ModelConfig) -> dict[str, TensorSpec]:
    """Every tensor of the model that `config` describes: the parameters of its network, then its n-gram tables."""
    import numpy as np  # slow to import, and not needed for a help text

    network = {name: TensorSpec(shape, np.dtype(np.float32)) for name, shape in parameter_shapes(config).items()}
    return network | ngram_specs(config)


def ngram_specs(config: ModelConfig) -> dict[str, TensorSpec]:
    """The tensors of the n-gram tables by name; empty if the model has none."""
    import numpy as np

    specs: dict[str, TensorSpec] = {}
    for order, count in enumerate(config.ngrams, start=1):
        if order > 1:
            num_contexts = config.ngrams[order - 2]
            specs[f"ngram.{order}.offsets"] = TensorSpec((num_contexts + 1,), np.dtype(np.uint32))
            specs[f"ngram.{order}.tokens"] = TensorSpec((count,), token_dtype(config.vocabulary_size))
        specs[f"ngram.{order}.probs"] = TensorSpec((count,), np.dtype(np.float32))
    return specs


def token_dtype(vocabulary_size: int) -> "np.dtype[Any]":
    """The smallest unsigned dtype that holds every token id of a vocabulary."""
    import numpy as np

    return np.min_scalar_type(vocabulary_size - 1)


def _recurrent_shapes(config: ModelConfig) -> Shapes:
    shapes: Shapes = {EMBEDDING: (config.vocabulary_size, config.embedding_dim)}
    if config.architecture == "attention-rnn":
        shapes |= _stack_shapes("encoder", config, config.embedding_dim)
        shapes["attention.input_kernel"] = (config.hidden_dim, ATTENTION_PROJECTIONS * config.hidden_dim)
        shapes |= _stack_shapes("decoder", config, 2 * config.hidden_dim)
    else:
        shapes |= _stack_shapes("recurrent", config, config.embedding_dim)
    shapes["output.kernel"] = (config.hidden_dim, config.vocabulary_size)
    shapes["output.bias"] = (config.vocabulary_size,)
    return shapes


def _transformer_shapes(config: ModelConfig) -> Shapes:
    hidden, feed_forward = config.hidden_dim, feed_forward_dim(config.hidden_dim)
    shapes: Shapes = {EMBEDDING: (config.vocabulary_size, hidden)}
    for layer in range(config.num_layers):
        shapes |= {
            f"layers.{layer}.attention_norm.weight": (hidden,),
            f"layers.{layer}.attention.input_kernel": (hidden, ATTENTION_PROJECTIONS * hidden),
            f"layers.{layer}.attention.output_kernel": (hidden, hidden),
            f"layers.{layer}.feed_forward_norm.weight": (hidden,),
            f"layers.{layer}.feed_forward.input_kernel": (hidden, FEED_FORWARD_PROJECTIONS * feed_forward),
            f"layers.{layer}.feed_forward.output_kernel": (feed_forward, hidden),
        }
    shapes["norm.weight"] = (hidden,)
    if not config.tied_embeddings:
        shapes["output.kernel"] = (hidden, config.vocabulary_size)
    return shapes


def _stack_shapes(name: str, config: ModelConfig, input_dim: int) -> Shapes:
    """The tensors of a stack of recurrent layers, the lowest of which has `input_dim` inputs."""
    cell = recurrent_cell(config)
    columns = RECURRENT_GATES[cell] * config.hidden_dim
    shapes: Shapes = {}
    for layer in range(config.num_layers):
        shapes[f"{name}.{layer}.input_kernel"] = (input_dim if layer == 0 else config.hidden_dim, columns)
        shapes[f"{name}.{layer}.recurrent_kernel"] = (config.hidden_dim, columns)
        shapes[f"{name}.{layer}.bias"] = (2, columns) if cell == "gru" else (columns,)
    return shapes
