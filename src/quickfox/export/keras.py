"""Export of a model to Keras, as a `.keras` file of stock layers and operations, loaded by `keras.models.load_model`.

The exported model maps token ids (B, T), from the start of their texts, to logits (B, T, V), computed as in `models/`.
It is stateless: to extend a text, the whole text is processed again.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.config.model import ModelConfig
from quickfox.errors import UnavailableError
from quickfox.export.tokenizer_json import format_tokenizer_definition
from quickfox.models.attention import RMS_NORM_EPSILON, rotary_frequencies
from quickfox.models.parameters import ATTENTION_PROJECTIONS, EMBEDDING, FEED_FORWARD_PROJECTIONS, recurrent_cell
from quickfox.system.stderr import quiet_stderr

FILE_NAME = "model.keras"

Tensor = Any
Parameters = Mapping[str, np.ndarray]


def write_keras(bundle: ModelBundle, directory: Path) -> None:
    """Write the file `FILE_NAME`, and a tokenizer.json for its token ids.

    Args:
        bundle: any model.
        directory: an empty directory.

    Raises:
        UnavailableError: Keras or its backend is not installed.
        OSError: writing failed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet_stderr():
            model = build_keras_model(bundle.config, bundle.parameters)
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"format keras requires {error.name}, which is not installed: pip install tensorflow (Python 3.11 to 3.13)"
        ) from None
    model.save(directory / FILE_NAME)
    (directory / "tokenizer.json").write_bytes(format_tokenizer_definition(bundle.tokenizer))


def build_keras_model(config: ModelConfig, parameters: Parameters) -> Any:
    """The equivalent keras.Model, (B, T) int32 -> (B, T, V) float32.

    Args:
        config: fixes the architecture and all shapes.
        parameters: name -> float32 array, as `parameters.parameter_shapes(config)` lists them.
    """
    import keras

    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    build = {"attention-rnn": _attention_rnn, "transformer": _transformer}.get(config.architecture, _recurrent)
    logits = build(config, parameters, token_ids)
    return keras.Model(token_ids, logits, name=config.architecture.replace("-", "_"))


def _recurrent(config: ModelConfig, parameters: Parameters, token_ids: Tensor) -> Tensor:
    x = _embed(parameters, token_ids)
    x = _recurrent_stack("recurrent", config, parameters, x)
    return _dense(x, "output", parameters["output.kernel"], parameters["output.bias"])


def _attention_rnn(config: ModelConfig, parameters: Parameters, token_ids: Tensor) -> Tensor:
    from keras import ops

    encoded = _recurrent_stack("encoder", config, parameters, _embed(parameters, token_ids))
    projected = _dense(encoded, "attention_input", parameters["attention.input_kernel"])
    queries, keys, values = _split_heads(config, projected)
    attended = _attend(queries, keys, values, _attention_mask(config, _positions(token_ids)))
    decoded = _recurrent_stack("decoder", config, parameters, ops.concatenate([encoded, attended], axis=-1))
    return _dense(decoded, "output", parameters["output.kernel"], parameters["output.bias"])


def _transformer(config: ModelConfig, parameters: Parameters, token_ids: Tensor) -> Tensor:
    from keras import ops

    positions = _positions(token_ids)
    mask = _attention_mask(config, positions)
    frequencies = rotary_frequencies(config.hidden_dim // config.num_heads).astype(np.float32)
    angles = ops.cast(positions, "float32")[:, None, :, None] * frequencies  # (B, 1, T, d/2)
    cosine, sine = ops.cos(angles), ops.sin(angles)
    x = _embed(parameters, token_ids)  # (B, T, H)
    for layer in range(config.num_layers):
        name, prefix = f"layer_{layer}", f"layers.{layer}"
        normalized = _norm(x, f"{name}_attention_norm", parameters[f"{prefix}.attention_norm.weight"])
        projected = _dense(normalized, f"{name}_attention_input", parameters[f"{prefix}.attention.input_kernel"])
        queries, keys, values = _split_heads(config, projected)
        attended = _attend(_rotate(queries, cosine, sine), _rotate(keys, cosine, sine), values, mask)
        x = x + _dense(attended, f"{name}_attention_output", parameters[f"{prefix}.attention.output_kernel"])
        normalized = _norm(x, f"{name}_feed_forward_norm", parameters[f"{prefix}.feed_forward_norm.weight"])
        projected = _dense(normalized, f"{name}_feed_forward_input", parameters[f"{prefix}.feed_forward.input_kernel"])
        gate, up = ops.split(projected, FEED_FORWARD_PROJECTIONS, axis=-1)
        x = x + _dense(
            ops.silu(gate) * up, f"{name}_feed_forward_output", parameters[f"{prefix}.feed_forward.output_kernel"]
        )
    x = _norm(x, "norm", parameters["norm.weight"])
    return _dense(x, "output", parameters[EMBEDDING].T if config.tied_embeddings else parameters["output.kernel"])


def _recurrent_stack(name: str, config: ModelConfig, parameters: Parameters, x: Tensor) -> Tensor:
    """(B, T, D) -> (B, T, H). The order of the gates is that of Keras, and the gru that with `reset_after`."""
    import keras

    kinds = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
    kind = kinds[recurrent_cell(config)]
    for layer in range(config.num_layers):
        tensors = [parameters[f"{name}.{layer}.{tensor}"] for tensor in ("input_kernel", "recurrent_kernel", "bias")]
        x = _apply(kind(config.hidden_dim, return_sequences=True, name=f"{name}_{layer}"), x, tensors)
    return x


def _embed(parameters: Parameters, token_ids: Tensor) -> Tensor:
    import keras

    weight = parameters[EMBEDDING]
    return _apply(keras.layers.Embedding(*weight.shape, name="embedding"), token_ids, [weight])


def _dense(x: Tensor, name: str, kernel: np.ndarray, bias: np.ndarray | None = None) -> Tensor:
    import keras

    layer = keras.layers.Dense(kernel.shape[1], use_bias=bias is not None, name=name)
    return _apply(layer, x, [kernel] if bias is None else [kernel, bias])


def _norm(x: Tensor, name: str, weight: np.ndarray) -> Tensor:
    import keras

    return _apply(keras.layers.RMSNormalization(epsilon=RMS_NORM_EPSILON, name=name), x, [weight])


def _apply(layer: Any, x: Tensor, weights: list[np.ndarray]) -> Tensor:
    outputs = layer(x)  # creates the weights
    layer.set_weights(weights)
    return outputs


def _positions(token_ids: Tensor) -> Tensor:
    """(B, T) -> (B, T): 0, 1, 2, ..., computed by operations because T is not fixed."""
    from keras import ops

    return ops.cumsum(ops.ones_like(token_ids), axis=1) - 1


def _attention_mask(config: ModelConfig, positions: Tensor) -> Tensor:
    """Whether each position may attend to each other one, (B, T) -> (B, 1, T, T) bool: see `models.attention`."""
    from keras import ops

    distance = positions[:, None, :, None] - positions[:, None, None, :]
    return ops.logical_and(distance >= 0, distance < config.context)


def _split_heads(config: ModelConfig, projected: Tensor) -> list[Tensor]:
    """Fused queries, keys and values, (B, T, 3H) -> each (B, heads, T, d)."""
    import keras

    heads = (-1, config.num_heads, config.hidden_dim // config.num_heads)
    parts = keras.ops.split(projected, ATTENTION_PROJECTIONS, axis=-1)
    return [keras.layers.Permute((2, 1, 3))(keras.layers.Reshape(heads)(part)) for part in parts]


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention: three times (B, heads, T, d), and (B, 1, T, T) -> (B, T, H)."""
    import keras
    from keras import ops

    heads, head_dim = queries.shape[1], queries.shape[3]
    scores = ops.matmul(queries * head_dim**-0.5, ops.transpose(keys, (0, 1, 3, 2)))  # (B, heads, T, T)
    weights = keras.layers.Softmax()(scores, mask=mask)
    attended = keras.layers.Permute((2, 1, 3))(ops.matmul(weights, values))  # (B, T, heads, d)
    return keras.layers.Reshape((-1, heads * head_dim))(attended)


def _rotate(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding: see `models.attention.rotate`."""
    from keras import ops

    first, second = ops.split(vectors, 2, axis=-1)
    return ops.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
