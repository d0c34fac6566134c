"""Attention, rotary embeddings, RMSNorm and SwiGLU compared with their equations, one position at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.models.attention import (
    attend,
    attention_mask,
    empty_cache,
    rms_norm,
    rotary_angles,
    rotate,
    split_heads,
    swiglu,
)

HEADS, HEAD_DIM = 2, 4


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def naive_attention(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, context: int) -> np.ndarray:
    """One head of one text: (n, d) each -> (n, d); position i attends to i - context + 1 ... i."""
    outputs = []
    for i, query in enumerate(queries.astype(np.float64)):
        visible = range(max(0, i - context + 1), i + 1)
        scores = np.array([math.exp(float(query @ keys[j]) / math.sqrt(len(query))) for j in visible])
        outputs.append(sum(score * values[j] for score, j in zip(scores / scores.sum(), visible, strict=True)))
    return np.array(outputs)


@given(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_attention_does_not_depend_on_window_boundaries(context: int, windows: list[int]) -> None:
    length = sum(windows)
    queries, keys, values = (random(1, HEADS, length, HEAD_DIM, seed=seed) for seed in range(3))
    cache, outputs = empty_cache(1, HEADS, context, HEAD_DIM), []
    ends = np.cumsum(windows)
    for window, end in zip(windows, ends, strict=True):
        q, k, v = (array[:, :, end - window : end] for array in (queries, keys, values))
        attended, cache, _ = attend(q, k, v, cache, attention_mask(cache[2], window, context))
        outputs.append(attended)
    attended = np.concatenate(outputs, axis=1)[0]  # (n, heads * d)
    for head in range(HEADS):
        expected = naive_attention(queries[0, head], keys[0, head], values[0, head], context)
        np.testing.assert_allclose(attended[:, head * HEAD_DIM : (head + 1) * HEAD_DIM], expected, atol=1e-5)
    assert cache[0].shape == (1, HEADS, context, HEAD_DIM)
    assert cache[2].tolist() == [length]


def test_attention_mask_by_hand() -> None:
    """Context 3: a text of which one token has been read, and one of which many have."""
    fresh, old = attention_mask(np.array([1, 99]), 2, 3)[:, 0].astype(int).tolist()
    assert fresh == [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert old == [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]


def test_split_heads_by_hand() -> None:
    projected = np.arange(12, dtype=np.float32).reshape(1, 1, 12)
    queries, keys, values = split_heads(projected, 2)
    assert queries[0, :, 0].tolist() == [[0, 1], [2, 3]]
    assert keys[0, :, 0].tolist() == [[4, 5], [6, 7]]
    assert values[0, :, 0].tolist() == [[8, 9], [10, 11]]


def test_rotation_by_hand() -> None:
    """The pairs (0, 2) and (1, 3) of a vector are rotated by 1 and 1/100 radians per position."""
    rotated = rotate(np.array([1.0, 0.0, 0.0, 1.0]), *rotary_angles(np.array(2), 4))
    expected = [math.cos(2), -math.sin(0.02), math.sin(2), math.cos(0.02)]
    assert rotated.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("start", [0, 1000, 10**6, 10**9])
def test_scores_depend_only_on_the_distance_at_any_position(start: int) -> None:
    query, key = random(8, seed=1), random(8, seed=2)
    scores = [
        rotate(query, *rotary_angles(np.array(at + 5), 8)) @ rotate(key, *rotary_angles(np.array(at), 8))
        for at in (0, start)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)


def test_rms_norm_by_hand() -> None:
    normalized = rms_norm(np.array([[3.0, 4.0]], np.float32), np.array([1.0, 2.0], np.float32))
    assert normalized[0].tolist() == pytest.approx([3 / math.sqrt(12.5), 8 / math.sqrt(12.5)], abs=1e-5)


def test_swiglu_by_hand() -> None:
    gate, up = 2.0, 3.0
    assert swiglu(np.array([gate, up], np.float32)).item() == pytest.approx(gate / (1 + math.exp(-gate)) * up)
    assert swiglu(np.array([-1e4, up], np.float32)).item() == 0.0  # without an overflow warning
