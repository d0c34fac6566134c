"""What a transformer puts around its attention, trainable and fast: norms of the residual stream, and SwiGLU.

Element-wise arithmetic is one XLA-compiled cluster forward and one backward, so that it passes over memory once.
Sequences are batch-major: (B, T, features).
"""

from typing import Any

import tensorflow as tf

from quickfox.models.attention import RMS_NORM_EPSILON
from quickfox.training.products import sum_of_features

Tensor = Any


def add_and_norm(x: Tensor, update: Tensor, compute_dtype: Any) -> tuple[Tensor, Tensor]:
    """y = x + update, and its root-mean-square norm n = y / sqrt(mean(y^2) + epsilon), without weights.

    (Zhang & Sennrich 2019.) The norm's weights are those of the rows of the matrix that n is multiplied with, and
    cost less there. Backwards, with s = 1 / sqrt(mean(y^2) + epsilon) and means over the features, what arrives at both
    x and update is dy + s (dn - y s^2 mean(dn * y)).

    Args:
        x: (B, T, H) float32.
        update: (B, T, H), of any type.
        compute_dtype: of the second result.

    Returns:
        y float32, and n in compute_dtype, (B, T, H) each.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: Tensor, update: Tensor) -> tuple[Any, Any]:
        y, normed = _add_and_norm(x, update, compute_dtype)

        def gradient(d_y: Tensor, d_normed: Tensor) -> tuple[Tensor, Tensor]:
            d_x = _add_and_norm_gradient(y, d_y, d_normed)
            return d_x, tf.cast(d_x, update.dtype)

        return (y, normed), gradient

    y, normed = run(x, update)
    return y, normed


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _add_and_norm(x: Tensor, update: Tensor, compute_dtype: Any) -> tuple[Tensor, Tensor]:
    y = x + tf.cast(update, tf.float32)
    return y, tf.cast(y * _norm_scale(y), compute_dtype)


def _norm_scale(y: Tensor) -> Tensor:
    """1 / sqrt(mean(y^2) + epsilon): (B, T, H) -> (B, T, 1)."""
    return tf.math.rsqrt(sum_of_features(y * y) / y.shape[-1] + RMS_NORM_EPSILON)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _add_and_norm_gradient(y: Tensor, d_y: Tensor, d_normed: Tensor) -> Tensor:
    d_normed = tf.cast(d_normed, tf.float32)
    scale, mean = _norm_scale(y), sum_of_features(d_normed * y) / y.shape[-1]
    return d_y + scale * (d_normed - y * (scale * scale * mean))


def swiglu(gate_and_up: Tensor) -> Tensor:
    """silu(gate) * up, with silu(x) = x sigmoid(x): (B, T, 2F) -> (B, T, F) (Shazeer 2020, "GLU variants")."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(gate_and_up: Tensor) -> tuple[Tensor, Any]:
        return _swiglu(gate_and_up), lambda d_result: _swiglu_gradient(gate_and_up, d_result)

    return run(gate_and_up)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _swiglu(gate_and_up: Tensor) -> Tensor:
    gate, up = tf.split(tf.cast(gate_and_up, tf.float32), 2, axis=-1)
    return tf.cast(gate * (0.5 * tf.tanh(0.5 * gate) + 0.5) * up, gate_and_up.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _swiglu_gradient(gate_and_up: Tensor, d_result: Tensor) -> Tensor:
    gate, up = tf.split(tf.cast(gate_and_up, tf.float32), 2, axis=-1)
    sigmoid = 0.5 * tf.tanh(0.5 * gate) + 0.5
    d_result = tf.cast(d_result, tf.float32)
    d_gate = d_result * up * sigmoid * (1 + gate * (1 - sigmoid))
    d_parts = tf.stack([d_gate, d_result * gate * sigmoid], axis=2)  # half the time of a `concat`
    return tf.cast(tf.reshape(d_parts, gate_and_up.shape), gate_and_up.dtype)
