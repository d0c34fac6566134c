"""Causal self-attention with a bounded cache, trainable and fast.

The rule of which positions a token attends to, and the papers, stand in `models/attention.py`. Element-wise arithmetic
between matrix products is one XLA-compiled cluster forward and one backward, so that it passes over memory once; the
products themselves stay outside XLA, in oneDNN. Sequences are batch-major here: (B, T, features).
"""

from typing import Any

import numpy as np
import tensorflow as tf

from quickfox.models.attention import RMS_NORM_EPSILON, rotary_angles, rotary_frequencies
from quickfox.models.parameters import ATTENTION_PROJECTIONS
from quickfox.training.networks.matmul import sum_of_features

Tensor = Any
Cache = tuple[Tensor, Tensor, Tensor]
Angles = tuple[Tensor, Tensor]


def empty_cache(batch_size: int, num_heads: int, context: int, head_dim: int) -> Cache:
    """The cache before any token: keys and values (B, heads, C, d) float32, and positions read (B,) int64."""
    zeros = tf.zeros([batch_size, num_heads, context, head_dim])
    return zeros, zeros, tf.zeros([batch_size], tf.int64)


def restarted(cache: Cache, rows: Tensor) -> Cache:
    """The cache, empty in those rows (B,) bool: what keys are still there lie before the text's start, out of sight."""
    keys, values, positions_read = cache
    return keys, values, tf.where(rows, tf.zeros_like(positions_read), positions_read)


def rotary_tables(positions_read: Tensor, window: int, head_dim: int) -> Angles:
    """Cosine and sine, each (B, 1, T, d/2) float32, of the angles of a window's positions.

    The angles of the window's start, in float64, in which every position is exact; turned on by those within.
    """
    cosine, sine = rotary_angles(np.arange(window), head_dim)  # (T, d/2)
    frequencies = tf.constant(rotary_frequencies(head_dim))
    start = tf.cast(positions_read, tf.float64)[:, None, None] * frequencies  # (B, 1, d/2)
    within = tf.constant(np.concatenate([cosine, sine], axis=-1))  # cos b, sin b -> cos(a + b), sin(a + b)
    turned = _rotated(within, tf.cast(tf.cos(start), tf.float32), tf.cast(tf.sin(start), tf.float32))
    first, second = tf.split(turned[:, None], 2, axis=-1)
    return first, second


def attention(
    projected: Tensor, cache: Cache, compute_dtype: Any, angles: Angles | None = None
) -> tuple[Tensor, Cache]:
    """What each position of a window finds, in the cache and in the window itself.

    With Q, K, V of one head, K and V those of the cache and of the window, E = exp(Q K^T / sqrt(d) - each row's
    highest), masked, and z the sums of its rows, what is found is O = E V / z. Backwards, with dO the gradient that
    arrives there, and divided by z at once:

        dV = E^T dO        dE = dO V^T        dS = E * (dE - sum of dO * O)        dQ = dS K        dK = dS^T Q

    The sum, over the features, is that of dE * E / z over the keys, for less work (Dao et al. 2022, "FlashAttention").
    Cache and window are kept apart: only the latter has gradients.

    Args:
        projected: (B, T, 3H) in compute_dtype, static: queries, keys, values, of each the heads side by side.
        cache: as `empty_cache`; no gradient flows into it.
        compute_dtype: tf.float32 or tf.bfloat16, of the matrix products.
        angles: of `rotary_tables`, by which queries and keys are turned; None: they are not.

    Returns:
        (B, T, H) in compute_dtype, and the cache after the window.
    """
    old_keys, old_values = tf.cast(cache[0], compute_dtype), tf.cast(cache[1], compute_dtype)
    positions_read, num_heads = cache[2], cache[0].shape[1]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(projected: Tensor) -> tuple[Any, Any]:
        queries, keys, values = _split_heads(projected, num_heads, angles)
        old_scores = tf.matmul(queries, old_keys, transpose_b=True)  # (B, heads, T, C)
        scores = tf.matmul(queries, keys, transpose_b=True)  # (B, heads, T, T)
        old_weights, weights, share = _exponentials(old_scores, scores, positions_read)
        found = _merge_heads(tf.matmul(old_weights, old_values), tf.matmul(weights, values), share)

        def gradient(d_found: Tensor, *_: Tensor) -> Tensor:
            d_output, mean = _merge_heads_gradient(d_found, found, share)  # (B, heads, T, d), (B, heads, T, 1)
            d_values = tf.matmul(weights, d_output, transpose_a=True)
            d_old_weights = tf.matmul(d_output, old_values, transpose_b=True)
            d_weights = tf.matmul(d_output, values, transpose_b=True)
            d_old_scores = _exponentials_gradient(old_weights, d_old_weights, mean)
            d_scores = _exponentials_gradient(weights, d_weights, mean)
            d_queries = tf.matmul(d_old_scores, old_keys), tf.matmul(d_scores, keys)
            d_keys = tf.matmul(d_scores, queries, transpose_a=True)
            return _split_heads_gradient(*d_queries, d_keys, d_values, angles)

        return (found, keys, values), gradient

    found, keys, values = run(projected)
    kept = (_last_positions(cached, new) for cached, new in ((cache[0], keys), (cache[1], values)))
    return found, (*kept, positions_read + projected.shape[1])


def _last_positions(cached: Tensor, new: Tensor) -> Tensor:
    """The last C positions of both, (B, heads, C, d) float32; no gradient flows back into them."""
    context, window = cached.shape[2], new.shape[2]
    new = tf.cast(tf.stop_gradient(new), tf.float32)
    return new[:, :, -context:] if window >= context else tf.concat([cached[:, :, window:], new], axis=2)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _split_heads(projected: Tensor, num_heads: int, angles: Angles | None) -> tuple[Tensor, ...]:
    """(B, T, 3H) -> queries, scaled, keys and values, (B, heads, T, d) each, turned by their angles."""
    batch_size, window, columns = projected.shape
    head_dim = columns // (ATTENTION_PROJECTIONS * num_heads)
    parts = tf.reshape(tf.cast(projected, tf.float32), [batch_size, window, ATTENTION_PROJECTIONS, num_heads, head_dim])
    queries, keys, values = (tf.transpose(part, [0, 2, 1, 3]) for part in tf.unstack(parts, axis=2))
    queries = queries * head_dim**-0.5
    if angles is not None:
        queries, keys = _rotated(queries, *angles), _rotated(keys, *angles)
    queries, keys, values = (tf.cast(tensor, projected.dtype) for tensor in (queries, keys, values))
    return queries, keys, values


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _split_heads_gradient(
    d_queries: Tensor, more_d_queries: Tensor, d_keys: Tensor, d_values: Tensor, angles: Angles | None
) -> Tensor:
    """(B, T, 3H) from the gradients (B, heads, T, d), those of the queries in two parts."""
    batch_size, num_heads, window, head_dim = d_queries.shape
    dtype = d_queries.dtype
    parts = (tf.cast(tensor, tf.float32) for tensor in (d_queries, more_d_queries, d_keys, d_values))
    d_queries, more_d_queries, d_keys, d_values = parts
    d_queries = (d_queries + more_d_queries) * head_dim**-0.5
    if angles is not None:
        cosine, sine = angles
        d_queries, d_keys = _rotated(d_queries, cosine, -sine), _rotated(d_keys, cosine, -sine)
    d_parts = [tf.transpose(part, [0, 2, 1, 3]) for part in (d_queries, d_keys, d_values)]  # (B, T, heads, d) each
    columns = ATTENTION_PROJECTIONS * num_heads * head_dim
    return tf.cast(tf.reshape(tf.stack(d_parts, axis=2), [batch_size, window, columns]), dtype)


def _rotated(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """As `models.attention.rotate`."""
    first, second = tf.split(vectors, 2, axis=-1)
    return tf.concat([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _exponentials(old_scores: Tensor, scores: Tensor, positions_read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E of the cache (B, heads, T, C) and of the window (B, heads, T, T), and 1 / z (B, heads, T, 1) float32."""
    window, context = scores.shape[2], old_scores.shape[3]
    query, old_key, key = tf.range(window)[:, None], tf.range(context), tf.range(window)
    exists = old_key >= context - tf.cast(tf.minimum(positions_read, context), tf.int32)[:, None]  # (B, C)
    old_shown = (old_key > query) & exists[:, None, None, :]  # (B, 1, T, C)
    old_masked = tf.where(old_shown, tf.cast(old_scores, tf.float32), -np.inf)
    masked = tf.where((key <= query) & (key > query - context), tf.cast(scores, tf.float32), -np.inf)
    highest = tf.reduce_max(masked, axis=-1, keepdims=True)  # every query sees itself at least
    highest = tf.maximum(highest, tf.reduce_max(old_masked, axis=-1, keepdims=True))
    old_weights, weights = tf.exp(old_masked - highest), tf.exp(masked - highest)
    total = tf.reduce_sum(old_weights, axis=-1, keepdims=True) + tf.reduce_sum(weights, axis=-1, keepdims=True)
    return tf.cast(old_weights, scores.dtype), tf.cast(weights, scores.dtype), 1 / total


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _exponentials_gradient(weights: Tensor, d_weights: Tensor, mean: Tensor) -> Tensor:
    """dS, (B, heads, T, S)."""
    return tf.cast(tf.cast(weights, tf.float32) * (tf.cast(d_weights, tf.float32) - mean), weights.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _merge_heads(found_in_cache: Tensor, found_in_window: Tensor, share: Tensor) -> Tensor:
    """The sum of two (B, heads, T, d) times `share` -> (B, T, H)."""
    batch_size, heads, window, head_dim = found_in_window.shape
    found = (tf.cast(found_in_cache, tf.float32) + tf.cast(found_in_window, tf.float32)) * share
    merged = tf.reshape(tf.transpose(found, [0, 2, 1, 3]), [batch_size, window, heads * head_dim])
    return tf.cast(merged, found_in_window.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _merge_heads_gradient(d_found: Tensor, found: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, H) -> dO / z (B, heads, T, d), and the sum of its products with O (B, heads, T, 1) float32."""
    batch_size, window, hidden_dim = found.shape
    heads = share.shape[1]

    def apart(merged: Tensor) -> Tensor:
        split = tf.reshape(tf.cast(merged, tf.float32), [batch_size, window, heads, hidden_dim // heads])
        return tf.transpose(split, [0, 2, 1, 3])

    d_output = apart(d_found) * share
    return tf.cast(d_output, found.dtype), sum_of_features(d_output * apart(found))


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
