"""The kernels against naive references: loops written from the equations, finite differences, Keras's own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from quickfox.training.products import dense, look_up, transposed
from quickfox.training.recurrent_kernels import gru, lstm, rnn

T, B, D, H, V = 7, 3, 5, 8, 11


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def naive_lstm(projected: np.ndarray, kernel: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
    """The equations of the docstring, a time step at a time, in float64."""
    outputs = []
    for projected_t in projected.astype(np.float64):
        i, f, g, o = np.split(projected_t + h @ kernel, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


@pytest.fixture
def inputs() -> list[np.ndarray]:
    return [random((T, B, 4 * H), 0), random((H, 4 * H), 1) * 0.3, random((B, H), 2), random((B, H), 3)]


def weighted_sum(outputs: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tf.Tensor:
    """A scalar that depends on every element of the three results, each with another weight."""
    parts = zip((outputs, h, c), (4, 5, 6), strict=True)
    return tf.add_n([tf.reduce_sum(part * random(tuple(part.shape), seed)) for part, seed in parts])


def test_lstm_agrees_with_the_equations(inputs: list[np.ndarray]) -> None:
    for ours, naive in zip(lstm(*inputs, tf.float32), naive_lstm(*inputs), strict=True):
        np.testing.assert_allclose(ours, naive, atol=1e-5)


def test_lstm_gradients_agree_with_finite_differences(inputs: list[np.ndarray]) -> None:
    tensors = [tf.constant(value) for value in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = weighted_sum(*lstm(*tensors, tf.float32))
    gradients = tape.gradient(loss, tensors)

    def naive_loss(*values: np.ndarray) -> float:
        parts = zip(naive_lstm(*values), (4, 5, 6), strict=True)
        return float(sum(np.sum(part * random(part.shape, seed)) for part, seed in parts))

    for position, gradient in enumerate(gradients):
        direction = random(inputs[position].shape, 7 + position).astype(np.float64)
        moved = [[value.astype(np.float64) for value in inputs] for _ in range(2)]
        moved[0][position] += 1e-5 * direction
        moved[1][position] -= 1e-5 * direction
        numeric = (naive_loss(*moved[0]) - naive_loss(*moved[1])) / 2e-5
        assert np.sum(gradient * direction) == pytest.approx(numeric, rel=1e-3)


def test_lstm_and_its_gradients_agree_with_keras() -> None:
    x, h, c = random((B, T, D), 0), random((B, H), 1), random((B, H), 2)
    layer = keras.layers.LSTM(H, return_sequences=True, return_state=True)
    layer.build((B, T, D))
    layer.cell.bias.assign(random((4 * H,), 3))
    kernel, recurrent, bias = (variable.value for variable in layer.trainable_variables)
    with tf.GradientTape(persistent=True) as tape:
        outputs, h_keras, c_keras = layer(x, initial_state=[tf.constant(h), tf.constant(c)])
        keras_loss = weighted_sum(tf.transpose(outputs, [1, 0, 2]), h_keras, c_keras)
        projected = dense(tf.transpose(x, [1, 0, 2]), kernel, bias, tf.float32)
        our_outputs, our_h, our_c = lstm(projected, recurrent, tf.constant(h), tf.constant(c), tf.float32)
        our_loss = weighted_sum(our_outputs, our_h, our_c)
    np.testing.assert_allclose(our_outputs, tf.transpose(outputs, [1, 0, 2]), atol=1e-5)
    for variable in (kernel, recurrent, bias):
        np.testing.assert_allclose(tape.gradient(our_loss, variable), tape.gradient(keras_loss, variable), atol=1e-4)


def test_two_windows_with_carried_state_equal_one(inputs: list[np.ndarray]) -> None:
    projected, kernel, h, c = inputs
    whole = lstm(projected, kernel, h, c, tf.float32)
    first, h, c = lstm(projected[:3], kernel, h, c, tf.float32)
    second, h, c = lstm(projected[3:], kernel, h, c, tf.float32)
    for parts, expected in zip((tf.concat([first, second], 0), h, c), whole, strict=True):
        np.testing.assert_allclose(parts, expected, atol=1e-6)


def test_bfloat16_is_float32_within_its_precision(inputs: list[np.ndarray]) -> None:
    projected, *rest = inputs
    outputs, h, c = lstm(tf.cast(projected, tf.bfloat16), *rest, tf.bfloat16)
    assert (outputs.dtype, h.dtype, c.dtype) == (tf.bfloat16, tf.float32, tf.float32)
    for ours, naive in zip((outputs, h, c), naive_lstm(*inputs), strict=True):
        np.testing.assert_allclose(tf.cast(ours, tf.float32), naive, atol=0.05)


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


def test_look_up_takes_rows_and_adds_up_their_gradients() -> None:
    table = tf.Variable(random((V, D), 0))
    ids = tf.constant([[1, 4], [4, 4]])
    with tf.GradientTape() as tape:
        rows = look_up(table, ids, tf.float32)
        loss = tf.reduce_sum(rows)
    np.testing.assert_array_equal(rows, table.numpy()[ids.numpy()])
    expected = np.zeros((V, D), np.float32)
    expected[1], expected[4] = 1.0, 3.0
    np.testing.assert_allclose(tape.gradient(loss, table), expected, atol=1e-6)


def test_transposed_inside_a_graph() -> None:
    matrix = random((6, 10), 0)
    result = tf.function(lambda value: tf.matmul(tf.eye(10), transposed(value)))(matrix)
    np.testing.assert_allclose(result, matrix.T, atol=1e-6)
