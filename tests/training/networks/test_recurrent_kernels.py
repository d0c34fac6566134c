"""The recurrent kernels against loops written from the equations, finite differences and stock Keras layers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from quickfox.config.model import Architecture, ModelConfig
from quickfox.training.networks.network import NO_DROPOUT, seeded_initializers
from quickfox.training.networks.recurrent import RecurrentStack
from quickfox.training.networks.recurrent_kernels import gru, lstm, rnn

T, B, D, H, V = 7, 3, 5, 8, 11


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def naive_lstm(projected: np.ndarray, kernel: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
    """The equations of `lstm`, in float64."""
    outputs = []
    for projected_t in projected.astype(np.float64):
        i, f, g, o = np.split(projected_t + h @ kernel, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def naive_gru(projected: np.ndarray, kernel: np.ndarray, bias: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, ...]:
    outputs = []
    for projected_t in projected.astype(np.float64):
        (az, ar, ag), (bz, br, bg) = (np.split(part, 3, axis=1) for part in (projected_t, h @ kernel + bias))
        z, r = sigmoid(az + bz), sigmoid(ar + br)
        h = z * h + (1 - z) * np.tanh(ag + r * bg)
        outputs.append(h)
    return np.stack(outputs), h


def naive_rnn(projected: np.ndarray, kernel: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, ...]:
    outputs = []
    for projected_t in projected.astype(np.float64):
        h = np.tanh(projected_t + h @ kernel)
        outputs.append(h)
    return np.stack(outputs), h


Kernel = Callable[..., tuple[Any, ...]]
Case = tuple[Kernel, Kernel, list[np.ndarray]]
STATE = [random((B, H), 2), random((B, H), 3)]
CASES: dict[str, Case] = {
    "lstm": (lstm, naive_lstm, [random((T, B, 4 * H), 0), random((H, 4 * H), 1) * 0.3, *STATE]),
    "gru": (gru, naive_gru, [random((T, B, 3 * H), 0), random((H, 3 * H), 1) * 0.3, random((3 * H,), 4), STATE[0]]),
    "rnn": (rnn, naive_rnn, [random((T, B, H), 0), random((H, H), 1) * 0.3, STATE[0]]),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """A kernel, its naive reference, and inputs for both."""
    return CASES[request.param]


def weighted_sum(results: Sequence[Any]) -> tf.Tensor:
    """A scalar that depends on every element of the results with a different weight."""
    return tf.add_n([tf.reduce_sum(part * random(tuple(part.shape), seed)) for seed, part in enumerate(results, 4)])


def test_kernels_agree_with_the_equations(case: Case) -> None:
    kernel, naive, inputs = case
    for ours, expected in zip(kernel(*inputs, tf.float32), naive(*inputs), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_gradients_agree_with_finite_differences(case: Case) -> None:
    kernel, naive, inputs = case
    tensors = [tf.constant(value) for value in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = weighted_sum(kernel(*tensors, tf.float32))
    gradients = tape.gradient(loss, tensors)

    def naive_loss(*values: np.ndarray) -> float:
        return float(sum(np.sum(part * random(part.shape, seed)) for seed, part in enumerate(naive(*values), 4)))

    for position, gradient in enumerate(gradients):
        direction = random(inputs[position].shape, 7 + position).astype(np.float64)
        shifted = [[value.astype(np.float64) for value in inputs] for _ in range(2)]
        shifted[0][position] += 1e-5 * direction
        shifted[1][position] -= 1e-5 * direction
        numeric = (naive_loss(*shifted[0]) - naive_loss(*shifted[1])) / 2e-5
        assert np.sum(gradient * direction) == pytest.approx(numeric, rel=1e-3)


@pytest.mark.parametrize("architecture", ["lstm", "gru", "rnn"])
def test_stack_and_its_gradients_agree_with_keras(architecture: Architecture) -> None:
    """Two layers on embedded tokens: the outputs, and the gradients of every weight and of the state."""
    config = ModelConfig(architecture=architecture, vocabulary_size=V, embedding_dim=D, hidden_dim=H, num_layers=2)
    stack = RecurrentStack(config, D, seeded_initializers(0), tf.float32)
    for seed, variable in enumerate(stack.variables()):
        variable.assign(random(tuple(variable.shape), seed) * 0.5)
    embeddings, ids = tf.Variable(random((V, D), 9)), np.random.default_rng(0).integers(0, V, size=(T, B))
    state = tf.nest.map_structure(lambda zeros: tf.constant(random(tuple(zeros.shape), 8)), stack.initial_state(B))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(state)
        ours = stack.run_tokens(embeddings, ids, state, NO_DROPOUT)
        stock = stack.run_stock(tf.gather(embeddings, ids), state, NO_DROPOUT)
        our_loss, stock_loss = weighted_sum(tf.nest.flatten(ours)), weighted_sum(tf.nest.flatten(stock))
    for our_part, stock_part in zip(tf.nest.flatten(ours), tf.nest.flatten(stock), strict=True):
        np.testing.assert_allclose(our_part, stock_part, atol=1e-5)
    for variable in [embeddings, *stack.variables(), *tf.nest.flatten(state)]:
        expected = tf.convert_to_tensor(tape.gradient(stock_loss, variable))
        np.testing.assert_allclose(tape.gradient(our_loss, variable), expected, atol=2e-4)


def test_two_windows_with_carried_state_equal_one(case: Case) -> None:
    kernel, _, (projected, *rest) = case
    num_states = len(kernel(projected, *rest, tf.float32)) - 1
    weights, state = rest[:-num_states], rest[-num_states:]
    whole = kernel(projected, *weights, *state, tf.float32)
    first, *state = kernel(projected[:3], *weights, *state, tf.float32)
    second, *state = kernel(projected[3:], *weights, *state, tf.float32)
    for parts, expected in zip((tf.concat([first, second], 0), *state), whole, strict=True):
        np.testing.assert_allclose(parts, expected, atol=1e-6)


def test_bfloat16_is_close_to_float32(case: Case) -> None:
    kernel, naive, inputs = case
    outputs, *state = kernel(tf.cast(inputs[0], tf.bfloat16), *inputs[1:], tf.bfloat16)
    assert outputs.dtype == tf.bfloat16
    assert all(part.dtype == tf.float32 for part in state)
    for ours, expected in zip((outputs, *state), naive(*inputs), strict=True):
        np.testing.assert_allclose(tf.cast(ours, tf.float32), expected, atol=0.05)
