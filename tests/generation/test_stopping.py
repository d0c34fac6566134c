"""A continuation as it grows: where it ends, and what may be told of before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.generation.stopping import Continuation, Token

END_OF_TEXT = 99
TEXTS = st.lists(st.text("ab", max_size=3), max_size=12)  # of tokens; some add nothing, as parts of a character do


def grow(texts: list[str], stops: list[str], length: int = 100) -> tuple[Continuation, list[str]]:
    """The continuation of tokens with these texts, and what was told of after each."""
    continuation = Continuation(0, stops)
    told = []
    for token_id, text in enumerate(texts):
        continuation.add(Token(token_id, text), END_OF_TEXT, length, is_late=False)
        told.append("".join(token.text for token in continuation.tokens))
        if continuation.finish_reason is not None:
            break
    return continuation, told


@given(TEXTS, st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_string_ends_the_text_and_is_never_told_of(texts: list[str], stops: list[str]) -> None:
    continuation, told = grow(texts, stops)
    whole = "".join(texts)
    found = [place for stop in stops if (place := whole.find(stop)) >= 0]
    if continuation.finish_reason == "stop":
        assert found
        completion = continuation.completion(has_logprobs=False)
        assert not any(stop in completion.text for stop in stops)
        assert whole.startswith(completion.text)
        assert any(whole[len(completion.text) :].startswith(stop) for stop in stops)
    else:
        assert not found
        continuation.finish("length")
        assert continuation.completion(has_logprobs=False).text == whole
    final = continuation.completion(has_logprobs=False).text
    assert all(final.startswith(earlier) for earlier in told), "what was told of is not taken back"


@given(TEXTS)
def test_without_stop_strings_all_is_told_at_once(texts: list[str]) -> None:
    _, told = grow(texts, [])
    assert told == ["".join(texts[: count + 1]) for count in range(len(texts))]


def test_no_more_is_held_back_than_could_be_a_stop_string() -> None:
    _, told = grow(["x", "ab", "a", "b", "y"], ["abc"])
    assert told == ["x", "x", "xab", "xab", "xababy"]


def test_a_token_is_cut_where_a_stop_string_begins() -> None:
    continuation, _ = grow(["xa", "by"], ["ab"])
    completion = continuation.completion(has_logprobs=False)
    assert [token.text for token in completion.tokens] == ["x"]
    assert (completion.token_count, completion.finish_reason) == (2, "stop")


@pytest.mark.parametrize("held", ["a", ""])
def test_the_length_ends_a_text_and_what_was_held_back_is_told(held: str) -> None:
    continuation, told = grow(["x", "y", held, "z"], ["ab"], length=3)
    assert continuation.finish_reason == "length"
    assert told[-1] == f"xy{held}"


def test_an_end_of_text_token_counts_but_is_no_text() -> None:
    continuation = Continuation(3, ["ab"])
    continuation.add(Token(1, "a", logprob=-1.0), END_OF_TEXT, 10, is_late=False)
    continuation.add(Token(END_OF_TEXT, "", logprob=-0.5), END_OF_TEXT, 10, is_late=False)
    completion = continuation.completion(has_logprobs=True)
    assert (completion.sample, completion.text, completion.token_count) == (3, "a", 2)
    assert (completion.finish_reason, completion.logprob) == ("end_of_text", -1.5)
    assert completion.mean_logprob == -0.75


def test_a_text_that_is_late_ends() -> None:
    continuation = Continuation(0, [])
    continuation.add(Token(1, "a"), None, 10, is_late=True)
    assert continuation.finish_reason == "time"
