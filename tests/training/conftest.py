"""TensorFlow starts once for all tests of training, with two threads on any machine; without it, none of them runs."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("tensorflow") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from quickfox.training.tensorflow_runtime import start_tensorflow

    start_tensorflow(threads=2)


@pytest.fixture(scope="session")
def pattern_ids() -> np.ndarray:
    """A text of four tokens over and over, the next one always certain: the best possible loss is 0."""
    return np.tile(np.array([0, 1, 2, 1], dtype=np.uint8), 600)
