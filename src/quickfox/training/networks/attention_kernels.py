"""The operations of a transformer layer with hand-written gradients: attention with a key/value cache, RMSNorm, SwiGLU.

For the context limit and the papers on attention see `models/attention.py`. The element-wise arithmetic between matrix
products is one XLA cluster forward and one backward, so that it passes over memory once; the products stay outside XLA,
in oneDNN. Sequences are batch-major: (B, T, features).
"""

from typing import Any

import numpy as np
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.models.attention import RMS_NORM_EPSILON, rotary_angles, rotary_frequencies
from quickfox.models.parameters import ATTENTION_PROJECTIONS
from quickfox.training.networks.matmul import Tensor, sum_features

Cache = tuple[Tensor, ...]  # keys, values, positions read
Rotations = tuple[Tensor, Tensor]


def empty_cache(config: ModelConfig, batch_size: int, context: int | None = None) -> Cache:
    """The cache before any token: keys and values (B, heads, C, d) float32, and positions read (B,) int64.

    C is `context`; None: that of the configuration. A cache with C = 0 is for texts that fit into one window: attention
    to earlier positions, of which there are none, then costs nothing.
    """
    context = config.context if context is None else context
    zeros = tf.zeros([batch_size, config.num_heads, context, config.hidden_dim // config.num_heads])
    return zeros, zeros, tf.zeros([batch_size], tf.int64)


def reset_cache_rows(cache: Cache, is_reset: Tensor) -> Cache:
    """The cache, empty in the rows where `is_reset` (B,) bool is true.

    The keys and values remain, but precede the text's start and are masked.
    """
    keys, values, positions_read = cache
    return keys, values, tf.where(is_reset, tf.zeros_like(positions_read), positions_read)


def rotary_tables(positions_read: Tensor, window: int, head_dim: int) -> Rotations:
    """Cosine and sine, each (B, 1, T, d/2) float32, of the rotation angles of a window's positions.

    Rotary position embedding: Su et al. 2021, "RoFormer". The angle of the window's start is computed in float64, in
    which every position is exact, and the angles within the window are added by rotation.

    Args:
        positions_read: (B,) int64, positions of each text before the window.
        window: T.
        head_dim: d, even.
    """
    cosine, sine = rotary_angles(np.arange(window), head_dim)  # (T, d/2)
    frequencies = tf.constant(rotary_frequencies(head_dim))
    start = tf.cast(positions_read, tf.float64)[:, None, None] * frequencies  # (B,) -> (B, 1, d/2)
    within = tf.constant(np.concatenate([cosine, sine], axis=-1))  # (T, d)
    rotated = _rotate(within, tf.cast(tf.cos(start), tf.float32), tf.cast(tf.sin(start), tf.float32))  # (B, T, d)
    cosine, sine = tf.split(rotated[:, None], 2, axis=-1)  # (B, 1, T, d/2) each
    return cosine, sine


def _rotate(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """As `models.attention.rotate`."""
    first, second = tf.split(vectors, 2, axis=-1)
    return tf.concat([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def attention(
    projected: Tensor, cache: Cache, compute_dtype: Any, rotations: Rotations | None = None
) -> tuple[Tensor, Cache]:
    """Causal self-attention of a window over the cached and its own positions.

    With Q, K, V of one head (K and V of cache and window), E = exp(Q K^T / sqrt(d) - maximum of each row), masked, and
    z the row sums of E, the output is O = E V / z. Backward pass, with dO the gradient of O divided by z:

        dV = E^T dO        dE = dO V^T        dS = E * (dE - sum of dO * O)        dQ = dS K        dK = dS^T Q

    The sum over the features equals the sum of dE * E / z over the keys, at lower cost (Dao et al. 2022,
    "FlashAttention"). Products with the cache and with the window are separate: only the window receives gradients.

    Args:
        projected: (B, T, 3H) in compute_dtype, static: queries, keys, values, each with its heads concatenated.
        cache: as returned by `empty_cache` or by the last call; receives no gradient.
        compute_dtype: tf.float32 or tf.bfloat16, of the matrix products.
        rotations: as returned by `rotary_tables`, for queries and keys; None: no rotary position embedding.

    Returns:
        (B, T, H) in compute_dtype, and the cache after the window.
    """
    old_keys, old_values = tf.cast(cache[0], compute_dtype), tf.cast(cache[1], compute_dtype)
    positions_read, num_heads = cache[2], cache[0].shape[1]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(projected: Tensor) -> tuple[Any, Any]:
        queries, keys, values = _split_heads(projected, num_heads, rotations)  # (B, heads, T, d) each
        old_scores = tf.matmul(queries, old_keys, transpose_b=True)  # (B, heads, T, C)
        scores = tf.matmul(queries, keys, transpose_b=True)  # (B, heads, T, T)
        old_weights, weights, normalizer = _masked_exponentials(old_scores, scores, positions_read)
        outputs = _merge_heads(tf.matmul(old_weights, old_values), tf.matmul(weights, values), normalizer)

        def gradient(d_outputs: Tensor, *_: Tensor) -> Tensor:
            d_heads, mean = _merge_heads_gradient(d_outputs, outputs, normalizer)  # (B, heads, T, d), (B, heads, T, 1)
            d_values = tf.matmul(weights, d_heads, transpose_a=True)
            d_old_weights = tf.matmul(d_heads, old_values, transpose_b=True)  # (B, heads, T, C)
            d_weights = tf.matmul(d_heads, values, transpose_b=True)  # (B, heads, T, T)
            d_old_scores = _exponentials_gradient(old_weights, d_old_weights, mean)
            d_scores = _exponentials_gradient(weights, d_weights, mean)
            d_queries = tf.matmul(d_old_scores, old_keys), tf.matmul(d_scores, keys)
            d_keys = tf.matmul(d_scores, queries, transpose_a=True)
            return _split_heads_gradient(*d_queries, d_keys, d_values, rotations)

        return (outputs, keys, values), gradient

    outputs, keys, values = run(projected)
    new_cache = (_last_positions(old, new) for old, new in ((cache[0], keys), (cache[1], values)))
    return outputs, (*new_cache, positions_read + projected.shape[1])


def _last_positions(cached: Tensor, new: Tensor) -> Tensor:
    """The last C positions of both, (B, heads, C, d) float32, without gradient."""
    context, window = cached.shape[2], new.shape[2]
    if context == 0:
        return cached
    new = tf.cast(tf.stop_gradient(new), tf.float32)
    return new[:, :, -context:] if window >= context else tf.concat([cached[:, :, window:], new], axis=2)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _split_heads(projected: Tensor, num_heads: int, rotations: Rotations | None) -> tuple[Tensor, ...]:
    """(B, T, 3H) -> queries, divided by sqrt(d), keys and values, (B, heads, T, d) each, rotated by their positions."""
    batch_size, window, columns = projected.shape
    head_dim = columns // (ATTENTION_PROJECTIONS * num_heads)
    parts = tf.reshape(tf.cast(projected, tf.float32), [batch_size, window, ATTENTION_PROJECTIONS, num_heads, head_dim])
    queries, keys, values = (tf.transpose(part, [0, 2, 1, 3]) for part in tf.unstack(parts, axis=2))
    queries = queries * head_dim**-0.5
    if rotations is not None:
        queries, keys = _rotate(queries, *rotations), _rotate(keys, *rotations)
    return tuple(tf.cast(tensor, projected.dtype) for tensor in (queries, keys, values))


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _split_heads_gradient(
    d_queries_from_cache: Tensor, d_queries: Tensor, d_keys: Tensor, d_values: Tensor, rotations: Rotations | None
) -> Tensor:
    """Gradients (B, heads, T, d), of the queries in two parts -> (B, T, 3H)."""
    batch_size, num_heads, window, head_dim = d_queries.shape
    dtype = d_queries.dtype
    d_queries = (tf.cast(d_queries_from_cache, tf.float32) + tf.cast(d_queries, tf.float32)) * head_dim**-0.5
    d_keys, d_values = tf.cast(d_keys, tf.float32), tf.cast(d_values, tf.float32)
    if rotations is not None:
        cosine, sine = rotations
        d_queries, d_keys = _rotate(d_queries, cosine, -sine), _rotate(d_keys, cosine, -sine)
    d_parts = [tf.transpose(part, [0, 2, 1, 3]) for part in (d_queries, d_keys, d_values)]  # (B, T, heads, d) each
    columns = ATTENTION_PROJECTIONS * num_heads * head_dim
    return tf.cast(tf.reshape(tf.stack(d_parts, axis=2), [batch_size, window, columns]), dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _masked_exponentials(old_scores: Tensor, scores: Tensor, positions_read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E of the cache (B, heads, T, C), E of the window (B, heads, T, T), and 1 / z (B, heads, T, 1) float32."""
    window, context = scores.shape[2], old_scores.shape[3]
    query, old_key, key = tf.range(window)[:, None], tf.range(context), tf.range(window)
    exists = old_key >= context - tf.cast(tf.minimum(positions_read, context), tf.int32)[:, None]  # (B, C)
    old_mask = (old_key > query) & exists[:, None, None, :]  # (B, 1, T, C)
    old_masked = tf.where(old_mask, tf.cast(old_scores, tf.float32), -np.inf)
    attended = (key <= query) & (key > query - (context or window))
    masked = tf.where(attended, tf.cast(scores, tf.float32), -np.inf)
    maximum = tf.reduce_max(masked, axis=-1, keepdims=True)  # finite: each query attends to its own position
    maximum = tf.maximum(maximum, tf.reduce_max(old_masked, axis=-1, keepdims=True))
    old_weights, weights = tf.exp(old_masked - maximum), tf.exp(masked - maximum)
    total = tf.reduce_sum(old_weights, axis=-1, keepdims=True) + tf.reduce_sum(weights, axis=-1, keepdims=True)
    return tf.cast(old_weights, scores.dtype), tf.cast(weights, scores.dtype), 1 / total


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _exponentials_gradient(weights: Tensor, d_weights: Tensor, mean: Tensor) -> Tensor:
    """dS: (B, heads, T, T) or (B, heads, T, C); for the equations see `attention`."""
    return tf.cast(tf.cast(weights, tf.float32) * (tf.cast(d_weights, tf.float32) - mean), weights.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _merge_heads(from_cache: Tensor, from_window: Tensor, normalizer: Tensor) -> Tensor:
    """The sum of two (B, heads, T, d) times `normalizer` -> (B, T, H)."""
    batch_size, heads, window, head_dim = from_window.shape
    outputs = (tf.cast(from_cache, tf.float32) + tf.cast(from_window, tf.float32)) * normalizer
    merged = tf.reshape(tf.transpose(outputs, [0, 2, 1, 3]), [batch_size, window, heads * head_dim])
    return tf.cast(merged, from_window.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _merge_heads_gradient(d_outputs: Tensor, outputs: Tensor, normalizer: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, H) -> dO / z (B, heads, T, d), and the sum of its products with O (B, heads, T, 1) float32."""
    batch_size, window, hidden_dim = outputs.shape
    heads = normalizer.shape[1]

    def split(merged: Tensor) -> Tensor:
        parts = tf.reshape(tf.cast(merged, tf.float32), [batch_size, window, heads, hidden_dim // heads])
        return tf.transpose(parts, [0, 2, 1, 3])  # (B, T, heads, d) -> (B, heads, T, d)

    d_heads = split(d_outputs) * normalizer
    return tf.cast(d_heads, outputs.dtype), sum_features(d_heads * split(outputs))


def add_and_norm(x: Tensor, update: Tensor, compute_dtype: Any) -> tuple[Tensor, Tensor]:
    """y = x + update, and its RMSNorm without weights, n = y / sqrt(mean(y^2) + epsilon).

    (Zhang & Sennrich 2019, "Root mean square layer normalization".) The norm's weights scale the rows of the matrix
    that n is multiplied with, where they cost less. Backward pass, with s = 1 / sqrt(mean(y^2) + epsilon) and means
    over the features: the gradient of x, and of update, is dy + s (dn - y s^2 mean(dn * y)).

    Args:
        x: (B, T, H) float32.
        update: (B, T, H), of any floating-point dtype.
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
    return tf.math.rsqrt(sum_features(y * y) / y.shape[-1] + RMS_NORM_EPSILON)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _add_and_norm_gradient(y: Tensor, d_y: Tensor, d_normed: Tensor) -> Tensor:
    d_normed = tf.cast(d_normed, tf.float32)
    scale, mean = _norm_scale(y), sum_features(d_normed * y) / y.shape[-1]
    return d_y + scale * (d_normed - y * (scale * scale * mean))


def swiglu(gate_and_up: Tensor) -> Tensor:
    """silu(gate) * up, with silu(x) = x sigmoid(x): (B, T, 2F) -> (B, T, F).

    Shazeer 2020, "GLU variants improve transformer".
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(gate_and_up: Tensor) -> tuple[Tensor, Any]:
        return _swiglu(gate_and_up), lambda d_result: _swiglu_gradient(gate_and_up, d_result)

    return run(gate_and_up)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _swiglu(gate_and_up: Tensor) -> Tensor:
    gate, up = tf.split(tf.cast(gate_and_up, tf.float32), 2, axis=-1)  # (B, T, F) each
    return tf.cast(gate * (0.5 * tf.tanh(0.5 * gate) + 0.5) * up, gate_and_up.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _swiglu_gradient(gate_and_up: Tensor, d_result: Tensor) -> Tensor:
    gate, up = tf.split(tf.cast(gate_and_up, tf.float32), 2, axis=-1)  # (B, T, F) each
    sigmoid = 0.5 * tf.tanh(0.5 * gate) + 0.5
    d_result = tf.cast(d_result, tf.float32)
    d_gate = d_result * up * sigmoid * (1 + gate * (1 - sigmoid))
    d_parts = tf.stack([d_gate, d_result * gate * sigmoid], axis=2)  # (B, T, 2, F); half the time of `concat`
    return tf.cast(tf.reshape(d_parts, gate_and_up.shape), gate_and_up.dtype)
