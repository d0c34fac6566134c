"""A text that grows by hand is to the model what it would be if read at once."""

import math

import numpy as np
import pytest

from quickfox.errors import UsageError
from quickfox.models.state import State
from quickfox.sampling.growing_text import GrowingText


class Counting:
    """The logit of each token is how often the text has it; it counts what it reads, too."""

    tokens_read = 0

    def initial_state(self, batch_size: int) -> State:
        return ((np.zeros((batch_size, 4), np.float32),),)

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        self.tokens_read += token_ids.size
        logits = state[0][0][:, np.newaxis] + np.eye(4, dtype=np.float32)[token_ids].cumsum(axis=1)  # (B, T, V)
        return logits, ((logits[:, -1],),)


def test_the_likeliest_come_first_with_their_probabilities() -> None:
    text = GrowingText(Counting(), [2, 2, 1])
    total = math.exp(2) + math.exp(1) + 2
    assert [token_id for token_id, _ in text.likeliest(9)] == [2, 1, 0, 3]
    assert text.likeliest(2) == [(2, pytest.approx(math.exp(2) / total)), (1, pytest.approx(math.exp(1) / total))]


def test_each_token_is_read_once() -> None:
    model = Counting()
    text = GrowingText(model, [0])
    text.read([3])
    text.read([3, 1])
    assert text.likeliest(9) == GrowingText(Counting(), [0, 3, 3, 1]).likeliest(9)
    assert model.tokens_read == 4


def test_a_text_begins_with_something() -> None:
    with pytest.raises(UsageError, match="nothing to continue"):
        GrowingText(Counting(), [])
