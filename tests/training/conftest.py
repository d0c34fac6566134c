"""TensorFlow starts once for all tests of training, with two threads on any machine."""

import pytest

from quickfox.training.tensorflow_runtime import start_tensorflow

start_tensorflow(threads=2)


@pytest.fixture(scope="session")
def pattern_ids():  # type: ignore[no-untyped-def]
    """A text of three tokens whose next token is certain after two: the best possible loss is near 0."""
    import numpy as np

    return np.tile(np.array([0, 1, 2, 1], dtype=np.uint8), 600)
