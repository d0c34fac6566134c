"""Attention, RMSNorm and SwiGLU and their gradients against plain operations and automatic gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.models import attention as numpy_attention
from quickfox.training.networks.attention_kernels import (
    add_and_norm,
    attention,
    empty_cache,
    reset_cache_rows,
    rotary_tables,
    swiglu,
)

B, HEADS, HEAD_DIM = 3, 2, 4
WIDTH = HEADS * HEAD_DIM
READ = np.array([0, 2, 100])


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_cache(context: int) -> tuple[Any, ...]:
    """Of texts with 0, 2 and 100 positions read; the random entries before a text's start must be masked."""
    keys, values = (tf.constant(random(B, HEADS, context, HEAD_DIM, seed=seed)) for seed in (1, 2))
    return keys, values, tf.constant(READ)


def plain_attention(projected: tf.Tensor, cache: tuple[Any, ...], is_rotary: bool) -> tf.Tensor:
    """(B, T, 3H) -> (B, T, H) by plain operations."""
    keys, values, positions_read = cache
    window, context = projected.shape[1], keys.shape[2]
    parts = tf.reshape(projected, [B, window, 3, HEADS, HEAD_DIM])
    query, key, value = (tf.transpose(parts[:, :, part], [0, 2, 1, 3]) for part in range(3))
    if is_rotary:
        cosine, sine = numpy_attention.rotary_angles(READ[:, None] + np.arange(window), HEAD_DIM)

        def rotate(vectors: tf.Tensor) -> tf.Tensor:
            first, second = tf.split(vectors, 2, axis=-1)
            c, s = cosine[:, None], sine[:, None]
            return tf.concat([first * c - second * s, second * c + first * s], axis=-1)

        query, key = rotate(query), rotate(key)
    scores = tf.einsum("bhtd,bhsd->bhts", query, tf.concat([keys, key], 2)) / np.sqrt(HEAD_DIM)
    mask = numpy_attention.attention_mask(positions_read.numpy(), window, context)
    weights = tf.nn.softmax(tf.where(mask, scores, -np.inf))
    attended = tf.einsum("bhts,bhsd->bthd", weights, tf.concat([values, value], 2))
    return tf.reshape(attended, [B, window, WIDTH])


def check_attention(window: int, context: int, is_rotary: bool) -> None:
    """Compares outputs, gradients and the new cache with those of `plain_attention`."""
    projected, cache = tf.constant(random(B, window, 3 * WIDTH)), random_cache(context)
    weights = random(B, window, WIDTH, seed=3)
    angles = rotary_tables(cache[2], window, HEAD_DIM) if is_rotary else None
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(projected)
        ours, new_cache = attention(projected, cache, tf.float32, angles)
        plain = plain_attention(projected, cache, is_rotary)
        our_sum, plain_sum = tf.reduce_sum(ours * weights), tf.reduce_sum(plain * weights)
    np.testing.assert_allclose(ours, plain, atol=1e-5)
    np.testing.assert_allclose(tape.gradient(our_sum, projected), tape.gradient(plain_sum, projected), atol=1e-5)
    assert [tuple(part.shape) for part in new_cache] == [tuple(part.shape) for part in cache]
    assert new_cache[2].numpy().tolist() == [window, window + 2, window + 100]


@pytest.mark.parametrize("is_rotary", [False, True])
@pytest.mark.parametrize(("window", "context"), [(5, 5), (3, 7), (7, 3), (1, 4), (4, 1)])
@pytest.mark.usefixtures("run_eagerly")
def test_attention_agrees_with_plain_operations(window: int, context: int, is_rotary: bool) -> None:
    check_attention(window, context, is_rotary)


@pytest.mark.parametrize(("window", "context", "is_rotary"), [(3, 7, False), (7, 3, True)])
def test_compiled_attention_agrees_with_plain_operations(window: int, context: int, is_rotary: bool) -> None:
    check_attention(window, context, is_rotary)


def test_bfloat16_attention_is_close_to_float32() -> None:
    projected, cache = tf.constant(random(B, 6, 3 * WIDTH)), random_cache(6)
    exact, _ = attention(projected, cache, tf.float32)
    ours, (keys, values, _) = attention(tf.cast(projected, tf.bfloat16), cache, tf.bfloat16)
    assert (ours.dtype, keys.dtype, values.dtype) == (tf.bfloat16, tf.float32, tf.float32)
    np.testing.assert_allclose(tf.cast(ours, tf.float32), exact, atol=0.05)


@pytest.mark.usefixtures("run_eagerly")
def test_reset_rows_attend_to_no_earlier_position() -> None:
    projected = tf.constant(random(B, 4, 3 * WIDTH))
    rows = tf.constant([False, False, True])
    config = ModelConfig(
        architecture="transformer",
        vocabulary_size=1,
        embedding_dim=WIDTH,
        hidden_dim=WIDTH,
        num_heads=HEADS,
        context=5,
    )
    ours, _ = attention(projected, reset_cache_rows(random_cache(5), rows), tf.float32)
    initial, _ = attention(projected, empty_cache(config, B), tf.float32)
    carried, _ = attention(projected, random_cache(5), tf.float32)
    np.testing.assert_allclose(ours[2], initial[2], atol=1e-6)
    np.testing.assert_allclose(ours[:2], carried[:2], atol=1e-6)


@pytest.mark.parametrize("start", [0, 77, 10**6])
def test_rotary_tables_equal_the_angles_of_the_positions(start: int) -> None:
    ours = rotary_tables(tf.constant([start], tf.int64), 9, 8)
    expected = numpy_attention.rotary_angles(start + np.arange(9), 8)
    for table, angles in zip(ours, expected, strict=True):
        np.testing.assert_allclose(table[0, 0], angles, atol=1e-6)


def check_gradients(ours: Callable[..., Any], plain: Callable[..., Any], *inputs: np.ndarray) -> None:
    """Compares the results, and the gradients of their sum with random weights."""
    tensors = [tf.constant(value) for value in inputs]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensors)
        results = [tf.nest.flatten(function(*tensors)) for function in (ours, plain)]
        sums = [
            tf.add_n([tf.reduce_sum(part * random(*part.shape, seed=seed)) for seed, part in enumerate(parts, 5)])
            for parts in results
        ]
    for our_part, plain_part in zip(*results, strict=True):
        np.testing.assert_allclose(our_part, plain_part, atol=1e-5)
    for tensor in tensors:
        np.testing.assert_allclose(tape.gradient(sums[0], tensor), tape.gradient(sums[1], tensor), atol=1e-5)


def test_add_and_norm_agrees_with_plain_operations() -> None:
    def plain(x: tf.Tensor, update: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = x + update
        return y, y / tf.sqrt(tf.reduce_mean(y**2, axis=-1, keepdims=True) + 1e-5)

    inputs = random(2, 3, 8, seed=1), random(2, 3, 8, seed=2)
    check_gradients(lambda x, update: add_and_norm(x, update, tf.float32), plain, *inputs)


def test_swiglu_agrees_with_plain_operations() -> None:
    def plain(gate_and_up: tf.Tensor) -> tf.Tensor:
        gate, up = tf.split(gate_and_up, 2, axis=-1)
        return gate * tf.sigmoid(gate) * up

    check_gradients(swiglu, plain, random(2, 3, 12))
