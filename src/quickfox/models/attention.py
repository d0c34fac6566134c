"""Causal self-attention with a bounded cache in NumPy, and what a transformer puts around it. Pure functions.

With q, k, v the queries, keys and values of a text's positions, d numbers each (Vaswani et al. 2017, "Attention is all
you need"), position i gets

    sum over j of softmax_j(q_i k_j / sqrt(d)) v_j            with j from i - context + 1 to i

THE RULE for the bounds, the same in training, validation, evaluation and sampling: a token attends to at most the last
`context` positions of its text, its own included, wherever the windows end in which the text is read. (Sliding-window
attention, Jiang et al. 2023, "Mistral 7B"; keys and values of the last window kept: Dai et al. 2019, "Transformer-XL".)
So the state holds the keys and values of the last `context` positions, and how many positions were read in all.
"""

import numpy as np

from quickfox.models.state import LayerState

ROTARY_BASE = 10_000.0
RMS_NORM_EPSILON = 1e-5


def empty_cache(batch_size: int, num_heads: int, context: int, head_dim: int) -> LayerState:
    """The cache before any token: keys and values (B, heads, context, d) float32, and positions read (B,) int64."""
    zeros = np.zeros((batch_size, num_heads, context, head_dim), np.float32)
    return zeros, zeros, np.zeros(batch_size, np.int64)


def split_heads(projected: np.ndarray, num_heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values side by side, (B, T, 3H) -> each (B, heads, T, d), views."""
    batch_size, window, columns = projected.shape
    parts = projected.reshape(batch_size, window, 3, num_heads, columns // (3 * num_heads))
    queries, keys, values = parts.transpose(2, 0, 3, 1, 4)
    return queries, keys, values


def visible(positions_read: np.ndarray, window: int, context: int) -> np.ndarray:
    """Which keys each query may see: (B,) positions read before the window -> (B, 1, T, context + T) bool.

    Key s is the position s - context, counted from the window's first; query t the position t. So the distance
    t + context - s must be at least 0 and less than the context, and the key not from before the text's start.
    """
    query, key = np.arange(window)[:, None], np.arange(context + window)
    in_reach = (key <= query + context) & (key > query)  # (T, S)
    exists = key >= context - positions_read[:, None]  # (B, S)
    shown: np.ndarray = (in_reach & exists[:, None, :])[:, None]
    return shown


def attend(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, cache: LayerState, shown: np.ndarray
) -> tuple[np.ndarray, LayerState]:
    """What each query of a window finds, in the cache and in the window itself.

    Args:
        queries, keys, values: (B, heads, T, d) float32.
        cache: as `empty_cache`; not changed.
        shown: of `visible`.

    Returns:
        (B, T, H) float32, the heads side by side; and the cache after the window.
    """
    cached_keys, cached_values, positions_read = cache
    batch_size, num_heads, window, head_dim = queries.shape
    keys = np.concatenate([cached_keys, keys], axis=2)  # (B, heads, context + T, d)
    values = np.concatenate([cached_values, values], axis=2)
    scores = (queries * np.float32(head_dim**-0.5)) @ keys.swapaxes(2, 3)  # (B, heads, T, context + T)
    scores = np.where(shown, scores, np.float32(-np.inf))
    scores -= scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores, out=scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    found = (weights @ values).transpose(0, 2, 1, 3).reshape(batch_size, window, num_heads * head_dim)
    return found, (keys[:, :, window:], values[:, :, window:], positions_read + window)


def rotary_frequencies(head_dim: int) -> np.ndarray:
    """Radians from one position to the next, 1 / ROTARY_BASE^(2k/d) for k = 0 .. d/2 - 1: (d/2,) float64."""
    return ROTARY_BASE ** (-np.arange(0, head_dim, 2) / head_dim)


def rotary_angles(positions: np.ndarray, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of position times `rotary_frequencies`: (..., d/2) float32 each.

    Computed in float64, in which the position of any text that can be read is exact.

    Args:
        positions: (...) integers, counted from the text's start.
        head_dim: d.
    """
    angles = positions[..., None] * rotary_frequencies(head_dim)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(vectors: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Rotary position embedding: turns the pair of numbers k and k + d/2 of each vector by its angle k.

    Only the distance of two positions then counts in the product of their vectors. (Su et al. 2021, "RoFormer"; halves
    as pairs: the convention of Hugging Face's Llama.)

    Args:
        vectors: (..., d).
        cosine, sine: of the angles, broadcast to (..., d/2).
    """
    first, second = np.split(vectors, 2, axis=-1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def rms_norm(vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x / sqrt(mean(x^2) + epsilon) * weight, over the last axis (Zhang & Sennrich 2019)."""
    mean_square = np.square(vectors).mean(axis=-1, keepdims=True)
    normed: np.ndarray = vectors / np.sqrt(mean_square + np.float32(RMS_NORM_EPSILON)) * weight
    return normed


def swiglu(gate_and_up: np.ndarray) -> np.ndarray:
    """silu(gate) * up, with silu(x) = x sigmoid(x): (..., 2F) -> (..., F) (Shazeer 2020, "GLU variants")."""
    gate, up = np.split(gate_and_up, 2, axis=-1)
    activated: np.ndarray = gate * (np.tanh(gate * 0.5) * 0.5 + 0.5) * up
    return activated
