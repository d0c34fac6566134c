"""The n-grams and counts of texts with a common prompt, and the memory that they take."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.sampling import SamplingConfig
from quickfox.generation.token_history import TokenHistory


def naive_banned(ids: list[int], n: int) -> set[int]:
    """The tokens that would complete an n-gram of `ids`, by the definition."""
    prefix = ids[len(ids) - n + 1 :]
    return {ids[end] for end in range(n - 1, len(ids)) if ids[end - n + 1 : end] == prefix} if len(ids) >= n else set()


@given(
    prompt=st.lists(st.integers(0, 2), max_size=12),
    tokens=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12),
    n=st.integers(1, 4),
)
def test_banned_tokens_by_definition(prompt: list[int], tokens: list[tuple[int, int]], n: int) -> None:
    history = TokenHistory(np.array(prompt, np.int64), 2, 3, SamplingConfig(no_repeat_ngram=n))
    for pair in tokens:
        history.append(list(pair))
    texts = [[*prompt, *(pair[row] for pair in tokens)] for row in (0, 1)]
    assert [set(banned) for banned in history.banned_tokens()] == [naive_banned(text, n) for text in texts]
    history.select_rows([1, 1, 0])
    history.append([0, 1, 2])
    expected = [naive_banned([*texts[row], token], n) for row, token in ((1, 0), (1, 1), (0, 2))]
    assert [set(banned) for banned in history.banned_tokens()] == expected


@pytest.mark.parametrize("num_texts", [1, 64])
def test_the_ngrams_of_a_prompt_are_stored_once(num_texts: int) -> None:
    history = TokenHistory(np.arange(1000), num_texts, 1000, SamplingConfig(no_repeat_ngram=3))
    history.select_rows([*range(num_texts), 0])
    tables = {id(table): table for table in (*history._prompt_ngrams, *history._ngrams)}
    assert sum(map(len, tables.values())) == 998
