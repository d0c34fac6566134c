"""Where a text is cut: nowhere but where words end, and always at the same places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.text.segmentation import align_chunks, iter_segments


@pytest.mark.parametrize(
    ("text", "most", "segments"),
    [
        ("one two\nthree four", 12, ["one two\n", "three four"]),  # a line's start, though a space comes later
        ("one two three", 9, ["one two", " three"]),
        ("one, two three", 6, ["one, t", "wo", " three"]),  # no place fits before the comma
        ("one\n\ntwo three", 8, ["one\n\ntwo", " three"]),  # no line's start after an empty line
        ("one\n two", 5, ["one\n ", "two"]),  # nor before a space
        ("onetwothree", 4, ["onet", "woth", "ree"]),
        ("", 4, []),
    ],
)
def test_the_places_by_hand(text: str, most: int, segments: list[str]) -> None:
    assert list(iter_segments([text], most)) == segments


TEXTS = st.text(alphabet="ab \n,", max_size=200)


@given(text=TEXTS, most=st.integers(1, 30), sizes=st.lists(st.integers(0, 40), max_size=20))
def test_the_places_do_not_depend_on_how_the_text_comes(text: str, most: int, sizes: list[int]) -> None:
    segments = list(iter_segments([text], most))
    assert "".join(segments) == text
    assert all(0 < len(segment) <= most for segment in segments)
    chunks, rest = [], text
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    assert list(iter_segments([*chunks, rest], most)) == segments


@given(text=TEXTS, most=st.integers(1, 9), first=st.integers(0, 20), count=st.integers(1, 20))
def test_segments_put_together_are_cut_into_the_same_again(text: str, most: int, first: int, count: int) -> None:
    segments = list(iter_segments([text], most))[first : first + count]
    assert list(iter_segments(["".join(segments)], most)) == segments


def test_blocks_are_the_text() -> None:
    text = "a line of some words\n" * 200_000
    blocks = list(align_chunks([text[:1000], text[1000:]]))
    assert "".join(blocks) == text
    assert len(blocks) > 2
