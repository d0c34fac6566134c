"""Replaces the compiled part of training by a few lines of NumPy, and the clock by one that counts steps.

Everything else of a run is the real code: the training loop, the optimizer's slots, checkpoints, plans and records.
The result depends on everything that must survive an interruption: weights, optimizer slots, carried state, the data
cursor, the learning rate and the dropout seed. A step takes microseconds instead of a second of compilation.
"""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from quickfox.config.training import TrainingConfig
from quickfox.training.engine import trainer
from quickfox.training.engine.validation import Validation
from quickfox.training.planning import time_budget
from quickfox.training.run import recorder, start

STEP_SECONDS = 0.05
VALIDATION_SECONDS = 0.2
VALIDATION_TARGET = 0.2  # less than the training targets: a long run overfits


class FakeClock:
    """A clock that moves only when something computes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        """Seconds since an arbitrary start."""
        return self.now


CLOCK = FakeClock()


class FakeTrainStep:
    """Moves every weight toward a number that depends on the batch; has the interface of `TrainStep`."""

    def __init__(self, network: Any, optimizer: Any, config: TrainingConfig, *_: Any, **_options: Any) -> None:
        self._optimizer = optimizer
        self._config = config
        self._network = network
        self._vocabulary_size = network.config.vocabulary_size

    def initial_state(self) -> Any:
        """The state before the first step."""
        return self._network.initial_state(self._config.batch_size)

    def trace(self) -> None:
        """Nothing to trace."""

    def run(self, xs: Any, ys: Any, rates: Any, first_step: Any, state: Any, *_: Any) -> tuple[Any, Any]:
        """Consecutive optimizer steps, as `TrainStep.run`."""
        weights = {name: variable.numpy() for name, variable in self._optimizer.parameters.items()}
        slots = {name: variable.numpy() for name, variable in self._optimizer.slots.items()}
        states = [tensor.numpy() for tensor in tf.nest.flatten(state)]
        losses = []
        for k, (x, y, rate) in enumerate(zip(xs, ys, np.float32(rates), strict=True)):
            target = self._target(x, y, states, int(first_step) + k)
            losses.append(np.mean([np.mean((weight - target) ** 2) for weight in weights.values()]))
            for name, slot in slots.items():
                gradient = weights[name.partition(".")[2]] - target
                slots[name] = 0.9 * slot + 0.1 * gradient
            for name, weight in weights.items():
                momentum = next(slot for key, slot in slots.items() if key.partition(".")[2] == name)
                weights[name] = weight - rate * momentum
            rows = x.mean(axis=1, keepdims=True) / self._vocabulary_size  # (B, 1)
            states = [(0.5 * array + 0.5 * rows).astype(np.float32) for array in states]
            CLOCK.now += STEP_SECONDS
        for values, variables in ((weights, self._optimizer.parameters), (slots, self._optimizer.slots)):
            for name, value in values.items():
                variables[name].assign(value)
        carried = tf.nest.pack_sequence_as(state, [tf.constant(array) for array in states])
        return tf.constant(np.array(losses, np.float32)), carried

    def _target(self, x: Any, y: Any, states: list[Any], step: int) -> np.float32:
        noise = np.random.default_rng([self._config.random_seed, step]).random()
        tokens = (x.mean() + y[:, -1].mean()) / self._vocabulary_size
        return np.float32(0.5 * tokens + 0.1 * states[0].mean() + 0.1 * self._config.dropout * noise)


class FakeValidation(Validation):
    """The validation loss by the weights only, independent of the text."""

    def __init__(self, network: Any, *arguments: Any) -> None:
        super().__init__(network, *arguments)
        self._weights = network.parameters()
        self.window_losses = self._fake_window_losses

    def _fake_window_losses(self, x: Any, y: Any, prior: Any, state: Any) -> tuple[Any, Any, Any]:
        del y, prior
        CLOCK.now += VALIDATION_SECONDS
        loss = np.mean([np.mean((each.numpy() - VALIDATION_TARGET) ** 2) for each in self._weights.values()])
        losses = tf.fill(x.shape, tf.cast(loss, tf.float32))
        return losses, tf.zeros((*x.shape, self._network.config.vocabulary_size)), state


def replace_compiled_training(patch: pytest.MonkeyPatch) -> None:
    """Lets the training loop run without TensorFlow's compiler and by `CLOCK`; files are not flushed to the disk."""
    patch.setattr(trainer, "TrainStep", FakeTrainStep)
    patch.setattr(trainer, "Validation", FakeValidation)
    patch.setattr(os, "fsync", lambda _descriptor: None)
    patch.setattr(start, "matmul_speed", lambda *_: 1e10)
    clock = SimpleNamespace(monotonic=CLOCK.read, perf_counter=CLOCK.read)
    for module in (trainer, time_budget, recorder, start):
        patch.setattr(module, "time", clock)
