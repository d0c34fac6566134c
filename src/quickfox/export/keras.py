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


def write_keras(bundle: ModelBundle, directory: Path) -> None:
    """Write the file `FILE_NAME`, and a tokenizer.json for its token ids.

    Args:
        bundle: a model of a network alone.
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


def build_keras_model(config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> Any:
    """The equivalent keras.Model, (B, T) int32 -> (B, T, V) float32.

    Args:
        config: fixes the architecture and all shapes.
        parameters: name -> float32 array, as `parameters.parameter_shapes(config)` lists them.
    """
    import keras

    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    builder = _Builder(config, parameters)
    build = {"attention-rnn": builder.attention_rnn, "transformer": builder.transformer}.get(
        config.architecture, builder.recurrent
    )
    return keras.Model(token_ids, build(token_ids), name=config.architecture.replace("-", "_"))


class _Builder:
    """The layers of a model, each method with its parameters; `name` is that of a layer in the exported file."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> None:
        import keras

        self.layers, self.ops = keras.layers, keras.ops
        self.config = config
        self.parameters = dict(parameters)
        if config.tied_embeddings:
            self.parameters["output.kernel"] = parameters[EMBEDDING].T

    def recurrent(self, token_ids: Tensor) -> Tensor:
        x = self.recurrent_stack("recurrent", self.embed(token_ids))
        return self.dense(x, "output", "output.kernel", "output.bias")

    def attention_rnn(self, token_ids: Tensor) -> Tensor:
        encoded = self.recurrent_stack("encoder", self.embed(token_ids))
        queries, keys, values = self.split_heads(self.dense(encoded, "attention_input", "attention.input_kernel"))
        attended = self.attend(queries, keys, values, self.attention_mask(self.positions(token_ids)))
        decoded = self.recurrent_stack("decoder", self.ops.concatenate([encoded, attended], axis=-1))
        return self.dense(decoded, "output", "output.kernel", "output.bias")

    def transformer(self, token_ids: Tensor) -> Tensor:
        ops, positions = self.ops, self.positions(token_ids)
        mask = self.attention_mask(positions)
        frequencies = rotary_frequencies(self.config.hidden_dim // self.config.num_heads).astype(np.float32)
        angles = ops.cast(positions, "float32")[:, None, :, None] * frequencies  # (B, 1, T, d/2)
        cosine, sine = ops.cos(angles), ops.sin(angles)
        x = self.embed(token_ids)  # (B, T, H)
        for layer in range(self.config.num_layers):
            name, prefix = f"layer_{layer}", f"layers.{layer}"
            normalized = self.norm(x, f"{name}_attention_norm", f"{prefix}.attention_norm.weight")
            projected = self.dense(normalized, f"{name}_attention_input", f"{prefix}.attention.input_kernel")
            queries, keys, values = self.split_heads(projected)
            attended = self.attend(self.rotate(queries, cosine, sine), self.rotate(keys, cosine, sine), values, mask)
            x = x + self.dense(attended, f"{name}_attention_output", f"{prefix}.attention.output_kernel")
            normalized = self.norm(x, f"{name}_feed_forward_norm", f"{prefix}.feed_forward_norm.weight")
            projected = self.dense(normalized, f"{name}_feed_forward_input", f"{prefix}.feed_forward.input_kernel")
            gate, up = ops.split(projected, FEED_FORWARD_PROJECTIONS, axis=-1)
            activated = ops.silu(gate) * up
            x = x + self.dense(activated, f"{name}_feed_forward_output", f"{prefix}.feed_forward.output_kernel")
        return self.dense(self.norm(x, "norm", "norm.weight"), "output", "output.kernel")

    def recurrent_stack(self, name: str, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, H). The order of the gates is that of Keras, and the gru that with `reset_after`."""
        kinds = {"rnn": self.layers.SimpleRNN, "gru": self.layers.GRU, "lstm": self.layers.LSTM}
        kind = kinds[recurrent_cell(self.config)]
        for layer in range(self.config.num_layers):
            tensors = [f"{name}.{layer}.{tensor}" for tensor in ("input_kernel", "recurrent_kernel", "bias")]
            x = self.apply(kind(self.config.hidden_dim, return_sequences=True, name=f"{name}_{layer}"), x, *tensors)
        return x

    def embed(self, token_ids: Tensor) -> Tensor:
        shape = self.parameters[EMBEDDING].shape
        return self.apply(self.layers.Embedding(*shape, name="embedding"), token_ids, EMBEDDING)

    def dense(self, x: Tensor, name: str, *tensors: str) -> Tensor:
        """x W, or x W + b: `tensors` names the kernel W, and the bias b if there is one."""
        outputs = self.parameters[tensors[0]].shape[1]
        return self.apply(self.layers.Dense(outputs, use_bias=len(tensors) > 1, name=name), x, *tensors)

    def norm(self, x: Tensor, name: str, tensor: str) -> Tensor:
        return self.apply(self.layers.RMSNormalization(epsilon=RMS_NORM_EPSILON, name=name), x, tensor)

    def apply(self, layer: Any, x: Tensor, *tensors: str) -> Tensor:
        outputs = layer(x)  # creates the weights
        layer.set_weights([self.parameters[tensor] for tensor in tensors])
        return outputs

    def positions(self, token_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T): 0, 1, 2, ..., computed by operations because T is not fixed."""
        return self.ops.cumsum(self.ops.ones_like(token_ids), axis=1) - 1

    def attention_mask(self, positions: Tensor) -> Tensor:
        """Whether each position may attend to each other one, (B, T) -> (B, 1, T, T) bool: see `models.attention`."""
        distance = positions[:, None, :, None] - positions[:, None, None, :]
        return self.ops.logical_and(distance >= 0, distance < self.config.context)

    def split_heads(self, projected: Tensor) -> list[Tensor]:
        """Fused queries, keys and values, (B, T, 3H) -> each (B, heads, T, d)."""
        heads = (-1, self.config.num_heads, self.config.hidden_dim // self.config.num_heads)
        parts = self.ops.split(projected, ATTENTION_PROJECTIONS, axis=-1)
        return [self.layers.Permute((2, 1, 3))(self.layers.Reshape(heads)(part)) for part in parts]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Scaled dot-product attention: three times (B, heads, T, d), and (B, 1, T, T) -> (B, T, H)."""
        scaled = queries * queries.shape[3] ** -0.5
        scores = self.ops.matmul(scaled, self.ops.transpose(keys, (0, 1, 3, 2)))  # (B, heads, T, T)
        weights = self.layers.Softmax()(scores, mask=mask)
        attended = self.layers.Permute((2, 1, 3))(self.ops.matmul(weights, values))  # (B, T, heads, d)
        return self.layers.Reshape((-1, self.config.hidden_dim))(attended)

    def rotate(self, vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Rotary position embedding: see `models.attention.rotate`."""
        first, second = self.ops.split(vectors, 2, axis=-1)
        return self.ops.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
