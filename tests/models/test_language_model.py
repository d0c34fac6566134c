"""Every architecture can be built, and states can be taken apart by rows."""

from typing import get_args

import numpy as np
import pytest

from quickfox.config import Architecture, ModelConfig
from quickfox.models.language_model import build_language_model
from quickfox.models.parameters import parameter_shapes
from quickfox.models.state import replace_row


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_every_architecture_gives_logits_of_the_right_shape(architecture: Architecture) -> None:
    config = ModelConfig(architecture=architecture, vocabulary_size=6, embedding_dim=2, hidden_dim=4, num_layers=2)
    random = np.random.default_rng(0)
    parameters = {
        name: random.normal(size=shape).astype(np.float32) for name, shape in parameter_shapes(config).items()
    }
    model = build_language_model(config, parameters)
    logits, state = model.forward(np.array([[0, 5, 1], [2, 2, 4]]), model.initial_state(2))
    assert logits.shape == (2, 3, 6)
    assert logits.dtype == np.float32
    logits, _ = model.forward(np.array([[3], [3]]), state)
    assert logits.shape == (2, 1, 6)


def test_replace_row_touches_that_row_alone_and_copies() -> None:
    state = ((np.ones((3, 2)), np.full((3, 2), 2.0)), (np.full((3, 4), 3.0),))
    source = ((np.zeros((1, 2)), np.full((1, 2), -1.0)), (np.full((1, 4), -2.0),))
    replaced = replace_row(state, 1, source)
    assert [[array[:, 0].tolist() for array in layer] for layer in replaced] == [
        [[1, 0, 1], [2, -1, 2]],
        [[3, -2, 3]],
    ]
    assert state[0][0].all(), "the state it was given is as it was"
