"""Matrix products and lookups and their gradients against plain operations."""

import numpy as np
import tensorflow as tf

from quickfox.training.networks.matmul import dense, embedding_lookup, transpose

T, B, D, V = 7, 3, 5, 11


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_dense_and_its_gradients_agree_with_plain_operations() -> None:
    x, kernel, bias = (tf.Variable(random(shape, seed)) for seed, shape in enumerate([(T, B, D), (D, V), (V,)]))
    weights = random((T, B, V), 9)
    with tf.GradientTape(persistent=True) as tape:
        ours = dense(x, kernel, bias, tf.float32)
        plain = tf.einsum("tbd,dv->tbv", x, kernel) + bias
        ours_sum, plain_sum = tf.reduce_sum(ours * weights), tf.reduce_sum(plain * weights)
    np.testing.assert_allclose(ours, plain, atol=1e-5)
    for variable in (x, kernel, bias):
        np.testing.assert_allclose(tape.gradient(ours_sum, variable), tape.gradient(plain_sum, variable), atol=1e-4)


def test_embedding_lookup_returns_rows_and_sums_their_gradients() -> None:
    table = tf.Variable(random((V, D), 0))
    ids = tf.constant([[1, 4], [4, 4]])
    with tf.GradientTape() as tape:
        rows = embedding_lookup(table, ids, tf.float32)
        loss = tf.reduce_sum(rows)
    np.testing.assert_array_equal(rows, table.numpy()[ids.numpy()])
    expected = np.zeros((V, D), np.float32)
    expected[1], expected[4] = 1.0, 3.0
    np.testing.assert_allclose(tape.gradient(loss, table), expected, atol=1e-6)


def test_transpose_inside_a_graph() -> None:
    matrix = random((6, 10), 0)
    result = tf.function(lambda value: tf.matmul(tf.eye(10), transpose(value)))(matrix)
    np.testing.assert_allclose(result, matrix.T, atol=1e-6)
