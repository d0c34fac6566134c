"""Starts TensorFlow once for all training tests, with two threads on every machine; without it, none of them runs."""

import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if find_spec("tensorflow") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from quickfox.training.tensorflow_runtime import start_tensorflow

    start_tensorflow(threads=2)


@pytest.fixture(scope="session")
def pattern_ids() -> np.ndarray:
    """A repeated pattern of four tokens, each determined by those before it: the lowest possible loss is 0."""
    return np.tile(np.array([0, 1, 2, 1], dtype=np.uint8), 600)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds back the estimation of all n-gram tables until the event is set."""
    from quickfox.training.engine import ngrams

    released = threading.Event()

    def when_released(estimate: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*arguments: Any) -> Any:
            assert released.wait(60), "the test waits for tables that it has not released"
            return estimate(*arguments)

        return wait

    monkeypatch.setattr(ngrams, "estimate_sorted", when_released(ngrams.estimate_sorted))  # in this process
    process = ngrams.EstimationProcess
    monkeypatch.setattr(process, "results", when_released(process.results))
    yield released
    released.set()  # ends the threads that still wait


@pytest.fixture
def run_eagerly() -> Iterator[None]:
    """Runs every tf.function as plain operations: for tests of few steps, which compilation would dominate."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
