"""Causal self-attention with a bounded cache, and what a transformer puts around it, trainable and fast.

The rule of which positions a token attends to, and the papers, stand in `models/attention.py`. Element-wise arithmetic
between matrix products is one XLA-compiled cluster forward and one backward, so that it passes over memory once; the
products themselves stay outside XLA, in oneDNN. Sequences are batch-major here: (B, T, features).
"""

from typing import Any

import numpy as np
import tensorflow as tf

from quickfox.models.attention import RMS_NORM_EPSILON, rotary_angles
from quickfox.models.parameters import ATTENTION_MAPS

Tensor = Any
Cache = tuple[Tensor, Tensor, Tensor]


def empty_cache(batch_size: int, num_heads: int, context: int, head_dim: int) -> Cache:
    """The cache before any token: keys and values (B, heads, C, d) float32, and how many of them are real (B,) int32.

    Keys are kept as they are before any rotation: rotated anew for each window, relative to its start, they need no
    positions that grow with the text.
    """
    zeros = tf.zeros([batch_size, num_heads, context, head_dim])
    return zeros, zeros, tf.zeros([batch_size], tf.int32)


def attention(projected: Tensor, cache: Cache, compute_dtype: Any, *, rotary: bool) -> tuple[Tensor, Cache]:
    """What each position of a window finds, in the cache and in the window itself.

    With Q, K, V of one head, the cached keys and values before those of the window, and P = softmax(Q K^T / sqrt(d)),
    masked, what is found is P V. Backwards, with dO the gradient that arrives there:

        dV = P^T dO        dP = dO V^T        dS = P * (dP - sum over keys of dP * P)        dQ = dS K    dK = dS^T Q

    Args:
        projected: (B, T, 3H) in compute_dtype, static: queries, keys, values, of each the heads side by side.
        cache: as `empty_cache`; no gradient flows into it.
        compute_dtype: tf.float32 or tf.bfloat16, of the matrix products.
        rotary: whether queries and keys are turned by their positions.

    Returns:
        (B, T, H) in compute_dtype, and the cache after the window.
    """
    keys, values, count = cache
    window, context = projected.shape[1], keys.shape[2]
    angles = _angles(context + window, keys.shape[3]) if rotary else None

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(projected: Tensor) -> tuple[Any, Any]:
        queries, all_keys, all_values, new_keys, new_values = _split_heads(projected, keys, values, angles)
        weights = _softmax(tf.matmul(queries, all_keys, transpose_b=True), count)  # (B, heads, T, C + T)
        found = _merge_heads(tf.matmul(weights, all_values))

        def gradient(d_found: Tensor, *_: Tensor) -> Tensor:
            d_output = _heads_apart(d_found, queries.shape[1])  # (B, heads, T, d)
            d_values = tf.matmul(weights[..., context:], d_output, transpose_a=True)
            d_scores = _softmax_gradient(weights, tf.matmul(d_output, all_values, transpose_b=True))
            d_queries = tf.matmul(d_scores, all_keys)
            d_keys = tf.matmul(d_scores[..., context:], queries, transpose_a=True)
            return _split_heads_gradient(d_queries, d_keys, d_values, angles)

        return (found, new_keys, new_values), gradient

    found, new_keys, new_values = run(projected)
    return found, (tf.stop_gradient(new_keys), tf.stop_gradient(new_values), tf.minimum(count + window, context))


def _angles(length: int, head_dim: int) -> Any:
    """Cosine and sine, each (S, d/2), of the positions from the cache's first on."""
    return tuple(map(tf.constant, rotary_angles(np.arange(length), head_dim)))


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _split_heads(projected: Tensor, keys: Tensor, values: Tensor, angles: Any) -> tuple[Tensor, ...]:
    """Queries (B, heads, T, d), scaled; keys and values of cache and window (B, heads, S, d); the new cache's two."""
    batch_size, heads, context, head_dim = keys.shape
    window = projected.shape[1]
    parts = tf.reshape(tf.cast(projected, tf.float32), [batch_size, window, ATTENTION_MAPS, heads, head_dim])
    queries, new_keys, new_values = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))  # (B, heads, T, d) each
    all_keys = tf.concat([keys, new_keys], axis=2)
    all_values = tf.concat([values, new_values], axis=2)
    kept_keys, kept_values = all_keys[:, :, window:], all_values[:, :, window:]
    if angles is not None:
        cosine, sine = angles
        queries = _rotated(queries, cosine[context:], sine[context:])
        all_keys = _rotated(all_keys, cosine, sine)
    low_precision = (tf.cast(tensor, projected.dtype) for tensor in (queries * head_dim**-0.5, all_keys, all_values))
    return (*low_precision, kept_keys, kept_values)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _split_heads_gradient(d_queries: Tensor, d_keys: Tensor, d_values: Tensor, angles: Any) -> Tensor:
    """(B, T, 3H) from the three (B, heads, T, d)."""
    batch_size, heads, window, head_dim = d_queries.shape
    dtype = d_queries.dtype
    d_queries, d_keys, d_values = (tf.cast(tensor, tf.float32) for tensor in (d_queries, d_keys, d_values))
    d_queries = d_queries * head_dim**-0.5
    if angles is not None:
        cosine, sine = (angle[-window:] for angle in angles)
        d_queries, d_keys = _rotated(d_queries, cosine, -sine), _rotated(d_keys, cosine, -sine)
    parts = tf.transpose(tf.stack([d_queries, d_keys, d_values]), [1, 3, 0, 2, 4])  # (B, T, 3, heads, d)
    return tf.cast(tf.reshape(parts, [batch_size, window, ATTENTION_MAPS * heads * head_dim]), dtype)


def _rotated(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = tf.split(vectors, 2, axis=-1)
    return tf.concat([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _softmax(scores: Tensor, count: Tensor) -> Tensor:
    """Over what each query may see, of (B, heads, T, C + T) with `count` (B,) real positions in the cache."""
    _, _, window, length = scores.shape
    context = length - window
    query, key = tf.range(window)[:, None], tf.range(length)
    in_reach = (key <= query + context) & (key > query)  # (T, S)
    exists = key >= context - count[:, None]  # (B, S)
    shown = (in_reach & exists[:, None, :])[:, None]
    masked = tf.where(shown, tf.cast(scores, tf.float32), -1e30)
    weights = tf.exp(masked - tf.reduce_max(masked, axis=-1, keepdims=True))
    return tf.cast(weights / tf.reduce_sum(weights, axis=-1, keepdims=True), scores.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _softmax_gradient(weights: Tensor, d_weights: Tensor) -> Tensor:
    weights_, d_weights_ = tf.cast(weights, tf.float32), tf.cast(d_weights, tf.float32)
    mean = tf.reduce_sum(weights_ * d_weights_, axis=-1, keepdims=True)
    return tf.cast(weights_ * (d_weights_ - mean), weights.dtype)


def _merge_heads(found: Tensor) -> Tensor:
    """(B, heads, T, d) -> (B, T, H)."""
    batch_size, heads, window, head_dim = found.shape
    return tf.reshape(tf.transpose(found, [0, 2, 1, 3]), [batch_size, window, heads * head_dim])


def _heads_apart(merged: Tensor, heads: int) -> Tensor:
    """(B, T, H) -> (B, heads, T, d)."""
    batch_size, window, hidden_dim = merged.shape
    return tf.transpose(tf.reshape(merged, [batch_size, window, heads, hidden_dim // heads]), [0, 2, 1, 3])


def add_and_norm(x: Tensor, update: Tensor, weight: Tensor, compute_dtype: Any) -> tuple[Tensor, Tensor]:
    """y = x + update, and its root-mean-square norm n = y / sqrt(mean(y^2) + epsilon) * weight.

    (Zhang & Sennrich 2019.) Backwards, with s = 1 / sqrt(mean(y^2) + epsilon), g = dn * weight and m the mean over the
    features of g * y: dy + s * (g - y s^2 m) for both x and update, and the sum of dn * y * s for the weight.

    Args:
        x: (B, T, H) float32.
        update: (B, T, H), of any type.
        weight: (H,) float32.
        compute_dtype: of the second result.

    Returns:
        y float32, and n in compute_dtype, (B, T, H) each.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: Tensor, update: Tensor, weight: Tensor) -> tuple[Any, Any]:
        y, normed = _add_and_norm(x, update, weight, tf.zeros([], compute_dtype))

        def gradient(d_y: Tensor, d_normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            d_x, d_update, d_weight = _add_and_norm_gradient(y, weight, d_y, d_normed, tf.zeros([], update.dtype))
            return d_x, d_update, d_weight

        return (y, normed), gradient

    y, normed = run(x, update, weight)
    return y, normed


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _add_and_norm(x: Tensor, update: Tensor, weight: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    y = x + tf.cast(update, tf.float32)
    scale = tf.math.rsqrt(tf.reduce_mean(y * y, axis=-1, keepdims=True) + RMS_NORM_EPSILON)
    return y, tf.cast(y * scale * weight, like.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _add_and_norm_gradient(
    y: Tensor, weight: Tensor, d_y: Tensor, d_normed: Tensor, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    d_normed = tf.cast(d_normed, tf.float32)
    scale = tf.math.rsqrt(tf.reduce_mean(y * y, axis=-1, keepdims=True) + RMS_NORM_EPSILON)
    weighted = d_normed * weight
    mean = tf.reduce_mean(weighted * y, axis=-1, keepdims=True)
    d_x = d_y + scale * (weighted - y * (scale * scale * mean))
    return d_x, tf.cast(d_x, like.dtype), tf.reduce_sum(d_normed * y * scale, axis=[0, 1])


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
    return tf.cast(tf.concat([d_gate, d_result * gate * sigmoid], axis=-1), gate_and_up.dtype)
