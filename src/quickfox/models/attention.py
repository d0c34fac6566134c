"""Causal self-attention with a bounded key/value cache, and the other operations of a transformer layer, in NumPy.

Pure functions over arrays, independent of any model. With q_i, k_i, v_i the query, key and value of position i, d
numbers each, scaled dot-product attention (Vaswani et al. 2017, "Attention is all you need") returns at position i

    sum over j of softmax_j(q_i k_j / sqrt(d)) v_j            with j from i - context + 1 to i

Context limit, the same in training, validation, evaluation and sampling: a token attends to at most the last `context`
positions of its text, its own included, wherever the boundaries of the windows are. (Sliding-window attention: Jiang et
al. 2023, "Mistral 7B"; cached keys and values of earlier windows: Dai et al. 2019, "Transformer-XL".) The cache
therefore holds the keys and values of the last `context` positions, and the number of positions read.
"""

import numpy as np

from quickfox.models.language_model import LayerState

ROTARY_BASE = 10_000.0
RMS_NORM_EPSILON = 1e-5


def empty_cache(batch_size: int, num_heads: int, context: int, head_dim: int) -> LayerState:
    """The cache before any token: keys and values (B, heads, context, d) float32, and positions read (B,) int64."""
    zeros = np.zeros((batch_size, num_heads, context, head_dim), np.float32)
    return zeros, zeros, np.zeros(batch_size, np.int64)


def split_heads(projected: np.ndarray, num_heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fused queries, keys and values, (B, T, 3H) -> each (B, heads, T, d), views."""
    batch_size, window, columns = projected.shape
    parts = projected.reshape(batch_size, window, 3, num_heads, columns // (3 * num_heads))  # (B, T, 3, heads, d)
    queries, keys, values = parts.transpose(2, 0, 3, 1, 4)  # -> (3, B, heads, T, d)
    return queries, keys, values


def attention_mask(positions_read: np.ndarray, window: int, context: int) -> np.ndarray:
    """Which keys, cached or of the window, each query of a window may attend to.

    Counted from the window's first position, query t is at position t and key s at position s - context. The distance
    t + context - s must be at least 0 and less than `context`, and the key must not precede the text's start.

    Args:
        positions_read: (B,) integers, positions of each text before the window, of T positions.

    Returns:
        (B, 1, T, context + T) bool.
    """
    query, key = np.arange(window)[:, None], np.arange(context + window)
    is_within_context = (key <= query + context) & (key > query)  # (T, context + T)
    exists = key >= context - positions_read[:, None]  # (B, context + T)
    mask: np.ndarray = (is_within_context & exists[:, None, :])[:, None]  # (B, 1, T, context + T)
    return mask


def attend(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, cache: LayerState, mask: np.ndarray
) -> tuple[np.ndarray, LayerState, np.ndarray]:
    """Scaled dot-product attention of a window over the cached and its own positions.

    Args:
        queries, keys, values: (B, heads, T, d) float32.
        cache: as returned by `empty_cache` or by the last call; not changed.
        mask: as returned by `attention_mask`.

    Returns:
        (B, T, H) float32, the outputs of all heads concatenated; the cache after the window; and the weights of the
        values, (B, heads, T, context + T).
    """
    cached_keys, cached_values, positions_read = cache
    batch_size, num_heads, window, head_dim = queries.shape
    keys = np.concatenate([cached_keys, keys], axis=2)  # (B, heads, context + T, d)
    values = np.concatenate([cached_values, values], axis=2)
    scores = (queries * np.float32(head_dim**-0.5)) @ keys.swapaxes(2, 3)  # (B, heads, T, context + T)
    scores = np.where(mask, scores, np.float32(-np.inf))
    scores -= scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores, out=scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    attended = weights @ values  # (B, heads, T, d)
    attended = attended.transpose(0, 2, 1, 3).reshape(batch_size, window, num_heads * head_dim)  # -> (B, T, H)
    return attended, (keys[:, :, window:], values[:, :, window:], positions_read + window), weights


def rotary_frequencies(head_dim: int) -> np.ndarray:
    """Radians per position, 1 / ROTARY_BASE^(2k/d) for k = 0 ... d/2 - 1: (d/2,) float64."""
    return ROTARY_BASE ** (-np.arange(0, head_dim, 2) / head_dim)


def rotary_angles(positions: np.ndarray, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of position, (...) integers, times `rotary_frequencies`, in float64: (..., d/2) float32 each."""
    angles = positions[..., None] * rotary_frequencies(head_dim)  # (...) -> (..., d/2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(vectors: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Rotary position embedding: rotates the pair of elements k and k + d/2 of each vector by its angle k.

    The product of two rotated vectors depends on their positions only through the distance between these. (Su et al.
    2021, "RoFormer"; pairs across the halves as in Hugging Face's Llama.) The vectors are (..., d); cosine and sine of
    the angles are broadcast to (..., d/2).
    """
    first, second = np.split(vectors, 2, axis=-1)  # (..., d) -> (..., d/2) each
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Root mean square normalization, x / sqrt(mean(x^2) + epsilon) * weight, (..., H) and (H,) -> (..., H).

    Zhang & Sennrich 2019, "Root mean square layer normalization".
    """
    mean_square = np.square(x).mean(axis=-1, keepdims=True)
    normalized: np.ndarray = x / np.sqrt(mean_square + np.float32(RMS_NORM_EPSILON)) * weight
    return normalized


def swiglu(gate_and_up: np.ndarray) -> np.ndarray:
    """silu(gate) * up, with silu(x) = x sigmoid(x) and sigmoid(x) = (1 + tanh(x / 2)) / 2: (..., 2F) -> (..., F).

    Shazeer 2020, "GLU variants improve transformer".
    """
    gate, up = np.split(gate_and_up, 2, axis=-1)
    activated: np.ndarray = gate * (np.tanh(gate * 0.5) * 0.5 + 0.5) * up
    return activated
