"""Several threads compute what one thread computes."""

import numpy as np
import pytest

from quickfox.models.language_model import select_rows
from quickfox.models.parallel import MIN_TEXTS, ParallelNetwork
from toy_models import random_lstm


@pytest.mark.parametrize("texts", [1, MIN_TEXTS, 2 * MIN_TEXTS, 5 * MIN_TEXTS + 3])
def test_logits_and_state_are_those_of_one_thread(texts: int) -> None:
    model = random_lstm(7)
    parallel = ParallelNetwork(model, threads=4)
    token_ids = np.random.default_rng(0).integers(0, 7, (texts, 5))
    expected, expected_state = model.forward(token_ids, model.initial_state(texts))
    logits, state = parallel.forward(token_ids, parallel.initial_state(texts))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for layer, expected_layer in zip(state, expected_state, strict=True):
        for array, expected_array in zip(layer, expected_layer, strict=True):
            np.testing.assert_allclose(array, expected_array, atol=1e-5)


def test_each_text_continues_from_its_own_state() -> None:
    model = random_lstm(5)
    parallel = ParallelNetwork(model, threads=2)
    token_ids = np.random.default_rng(1).integers(0, 5, (3 * MIN_TEXTS, 6))
    whole, _ = parallel.forward(token_ids, parallel.initial_state(len(token_ids)))
    _, state = parallel.forward(token_ids[:, :4], parallel.initial_state(len(token_ids)))
    rows = np.arange(len(token_ids))[::-1]
    rest, _ = parallel.forward(token_ids[rows, 4:], select_rows(state, rows))
    np.testing.assert_allclose(rest, whole[rows, 4:], atol=1e-5)
