"""Where a continuation ends, and which of its text is released before that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.generation.stopping import PartialCompletion, Token

END_OF_TEXT = 99
TEXTS = st.lists(st.text("ab", max_size=3), max_size=12)  # of tokens; incomplete characters add no text


def append_texts(texts: list[str], stop: list[str], length: int = 100) -> tuple[PartialCompletion, list[str]]:
    """The continuation of tokens with these texts, and the text released after each of them."""
    partial = PartialCompletion(0, stop, END_OF_TEXT, length)
    released = []
    for token_id, text in enumerate(texts):
        partial.append(Token(token_id, text), is_out_of_time=False)
        released.append("".join(token.text for token in partial.tokens))
        if partial.finish_reason is not None:
            break
    return partial, released


@given(TEXTS, st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_string_ends_the_text_and_is_never_released(texts: list[str], stops: list[str]) -> None:
    partial, released = append_texts(texts, stops)
    whole = "".join(texts)
    found = any(stop in whole for stop in stops)
    assert found == (partial.finish_reason == "stop")
    if not found:
        partial.finish("length")
    final = partial.to_completion(has_logprobs=False).text
    if found:
        assert not any(stop in final for stop in stops)
        assert whole.startswith(final)
        assert any(whole[len(final) :].startswith(stop) for stop in stops)
    else:
        assert final == whole
    assert all(final.startswith(earlier) for earlier in released), "released text is final"


@given(TEXTS)
def test_without_stop_strings_text_is_released_at_once(texts: list[str]) -> None:
    _, released = append_texts(texts, [])
    assert released == ["".join(texts[: count + 1]) for count in range(len(texts))]


def test_only_a_possible_stop_string_is_buffered() -> None:
    _, released = append_texts(["x", "ab", "a", "b", "y"], ["abc"])
    assert released == ["x", "x", "xab", "xab", "xababy"]


def test_a_token_is_truncated_at_a_stop_string() -> None:
    partial, _ = append_texts(["xa", "by"], ["ab"])
    completion = partial.to_completion(has_logprobs=False)
    assert [token.text for token in completion.tokens] == ["x"]
    assert (completion.token_count, completion.finish_reason) == (2, "stop")


@pytest.mark.parametrize("buffered", ["a", ""])
def test_the_maximum_length_ends_a_text_and_releases_the_buffer(buffered: str) -> None:
    partial, released = append_texts(["x", "y", buffered, "z"], ["ab"], length=3)
    assert partial.finish_reason == "length"
    assert released[-1] == f"xy{buffered}"


def test_the_end_of_text_token_is_counted_but_adds_no_text() -> None:
    partial = PartialCompletion(3, ["ab"], END_OF_TEXT, 10)
    partial.append(Token(1, "a", logprob=-1.0), is_out_of_time=False)
    partial.append(Token(END_OF_TEXT, "", logprob=-0.5), is_out_of_time=False)
    completion = partial.to_completion(has_logprobs=True)
    assert (completion.sample, completion.text, completion.token_count) == (3, "a", 2)
    assert (completion.finish_reason, completion.logprob) == ("end_of_text", -1.5)
    assert completion.mean_logprob == -0.75


def test_the_time_limit_ends_a_text() -> None:
    partial = PartialCompletion(0, [], None, 10)
    partial.append(Token(1, "a"), is_out_of_time=True)
    assert partial.finish_reason == "time"
