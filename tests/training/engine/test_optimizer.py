"""The learning-rate schedule by hand; AdamW and Muon against their equations in NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from quickfox.training.engine.optimizer import (
    BETA_1,
    BETA_2,
    MOMENTUM,
    MUON_DECAY,
    MUON_RATE,
    Optimizer,
    learning_rate,
    orthogonalize,
)
from toy_models import training_config

CONFIG = training_config(
    steps=100,
    batch_size=1,
    window=1,
    learning_rate=0.5,
    warmup_steps=9,
    weight_decay=0.1,
    validation_interval=100,
    random_seed=0,
    threads=1,
)


def test_learning_rate_warms_up_and_decays_to_zero() -> None:
    assert learning_rate(0, 100, CONFIG) == pytest.approx(0.05)
    assert learning_rate(4, 100, CONFIG) == pytest.approx(0.25 * 0.96)
    assert learning_rate(50, 100, CONFIG) == pytest.approx(0.25)
    assert learning_rate(100, 100, CONFIG) == 0.0


def test_learning_rate_without_warm_up_starts_at_its_peak() -> None:
    assert learning_rate(0, 10, dataclasses.replace(CONFIG, warmup_steps=0)) == 0.5


def test_adamw_computes_its_equations() -> None:
    weights = {"kernel": np.array([[1.0, -2.0]], np.float32), "bias": np.array([0.5], np.float32)}
    variables = {name: tf.Variable(value) for name, value in weights.items()}
    optimizer = Optimizer(variables, {}, weight_decay=0.1, clip_norm=1e9)
    moments = {name: [np.zeros_like(value), np.zeros_like(value)] for name, value in weights.items()}
    for t in (1, 2, 3):
        gradients = {"kernel": np.array([[0.3, -0.1 * t]], np.float32), "bias": np.array([2.0], np.float32)}
        optimizer.apply({name: tf.constant(g) for name, g in gradients.items()}, tf.constant(0.01), tf.constant(t - 1))
        for name, g in gradients.items():
            m, v = moments[name]
            m[:], v[:] = BETA_1 * m + (1 - BETA_1) * g, BETA_2 * v + (1 - BETA_2) * g * g
            direction = (m / (1 - BETA_1**t)) / (np.sqrt(v / (1 - BETA_2**t)) + 1e-8)
            decay = 0.1 if name == "kernel" else 0.0
            weights[name] = weights[name] - 0.01 * (direction + decay * weights[name])
    for name, variable in variables.items():
        np.testing.assert_allclose(variable, weights[name], rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    variables = {"a": tf.Variable([0.0]), "b": tf.Variable([0.0])}
    optimizer = Optimizer(variables, {}, weight_decay=0.0, clip_norm=1.0)
    optimizer.apply({"a": tf.constant([30.0]), "b": tf.constant([40.0])}, tf.constant(0.1), tf.constant(0))
    assert optimizer.slots["first_moment.a"].numpy() == pytest.approx((1 - BETA_1) * 0.6)
    assert optimizer.slots["first_moment.b"].numpy() == pytest.approx((1 - BETA_1) * 0.8)


def test_orthogonalize_equalizes_singular_values() -> None:
    rng = np.random.default_rng(0)
    u, _, vt = np.linalg.svd(rng.normal(size=(24, 40)), full_matrices=False)
    before = np.geomspace(0.001, 1.0, 24)
    before /= np.linalg.norm(before)
    matrix = (u * before) @ vt
    values = u.T @ orthogonalize(tf.constant(matrix, tf.float32)).numpy() @ vt.T
    np.testing.assert_allclose(values, np.diag(np.diag(values)), atol=1e-4)  # the singular vectors are unchanged
    after = np.diag(values)
    assert after[0] / before[0] == pytest.approx(34, rel=0.05)
    assert after[before > 0.02].min() > 0.19
    assert after.max() < 2.0


def test_orthogonalize_commutes_with_transposition() -> None:
    matrix = tf.constant(np.random.default_rng(0).normal(size=(9, 4)), tf.float32)
    np.testing.assert_allclose(orthogonalize(matrix), tf.transpose(orthogonalize(tf.transpose(matrix))), atol=1e-5)


def test_muon_computes_its_equations_for_each_projection() -> None:
    rng = np.random.default_rng(0)
    weight, momentum = rng.normal(size=(6, 16)).astype(np.float32), np.zeros((6, 16), np.float32)
    variable = tf.Variable(weight)
    optimizer = Optimizer({"kernel": variable}, {"kernel": 2}, weight_decay=0.1, clip_norm=1.0)
    for step in range(3):
        gradient = rng.normal(size=(6, 16)).astype(np.float32)
        optimizer.apply({"kernel": tf.constant(gradient)}, tf.constant(0.01), tf.constant(step))
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        update = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        direction = np.hstack([orthogonalize(tf.constant(half)) for half in np.split(update, 2, axis=1)])
        weight = weight - MUON_RATE * 0.01 * (direction + MUON_DECAY * 0.1 * weight)
    np.testing.assert_allclose(variable, weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(optimizer.slots["momentum.kernel"], momentum, rtol=1e-5)
