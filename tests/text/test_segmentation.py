"""Segments end between words, at positions that do not depend on the chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.text.segmentation import align_chunks, iter_segments, split_chunks


@pytest.mark.parametrize(
    ("text", "most", "segments"),
    [
        ("one two\nthree four", 12, ["one two\n", "three four"]),  # a line start has priority over a later space
        ("one two three", 9, ["one two", " three"]),
        ("one, two three", 6, ["one, t", "wo", " three"]),  # not before a comma
        ("one\n\ntwo three", 8, ["one\n\ntwo", " three"]),  # not after an empty line
        ("one\n two", 5, ["one\n ", "two"]),  # not before a space
        ("onetwothree", 4, ["onet", "woth", "ree"]),
        ("", 4, []),
    ],
)
def test_borders_worked_examples(text: str, most: int, segments: list[str]) -> None:
    assert list(iter_segments([text], most)) == segments


TEXTS = st.text(alphabet="ab \n,", max_size=200)


@given(text=TEXTS, most=st.integers(1, 30), sizes=st.lists(st.integers(0, 40), max_size=20))
def test_borders_do_not_depend_on_the_chunks(text: str, most: int, sizes: list[int]) -> None:
    segments = list(iter_segments([text], most))
    assert "".join(segments) == text
    assert all(0 < len(segment) <= most for segment in segments)
    chunks, rest = [], text
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    assert list(iter_segments([*chunks, rest], most)) == segments


@given(text=TEXTS, most=st.integers(1, 9), first=st.integers(0, 20), count=st.integers(1, 20))
def test_concatenated_segments_are_split_into_the_same_segments(text: str, most: int, first: int, count: int) -> None:
    segments = list(iter_segments([text], most))[first : first + count]
    assert list(iter_segments(["".join(segments)], most)) == segments


def test_aligned_chunks_contain_the_whole_text() -> None:
    text = "a line of some words\n" * 200_000
    aligned = list(align_chunks([text[:1000], text[1000:]]))
    assert "".join(aligned) == text
    assert len(aligned) > 2


@given(chunks=st.lists(st.text(max_size=4), max_size=8), at=st.integers(0, 40))
def test_a_text_is_split_after_a_number_of_characters(chunks: list[str], at: int) -> None:
    text = "".join(chunks)
    first, second = split_chunks(chunks, at)
    assert "".join(first) == text[:at]
    assert "".join(second) == text[at:]
    everything, nothing = split_chunks(chunks, None)
    assert ("".join(everything), list(nothing)) == (text, [])
