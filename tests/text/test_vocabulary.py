"""Count characters and choose a vocabulary."""

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.errors import DataError, ExitStatus, NoInputError, UsageError
from quickfox.text.vocabulary import (
    Vocabulary,
    build_vocabulary,
    code_points,
    count_characters,
    describe_characters,
)

UNICODE_TEXT = st.text()  # all characters except surrogates


def test_counts_worked_example():
    assert count_characters(["ab\n", "", "b🦊", "é"]) == Counter({"b": 2, "a": 1, "\n": 1, "🦊": 1, "é": 1})


def test_counts_of_an_empty_text():
    assert count_characters([]) == Counter()
    assert count_characters([""]) == Counter()


def test_counts_are_plain_integers():
    assert {type(count) for count in count_characters(["aab"]).values()} == {int}


@given(st.lists(UNICODE_TEXT))
def test_counts_equal_those_of_counter_for_any_chunks(chunks):
    assert count_characters(chunks) == Counter("".join(chunks))


@given(UNICODE_TEXT)
def test_code_points(text):
    codes = code_points(text)
    assert codes.dtype == np.uint32
    assert codes.tolist() == [ord(character) for character in text]


def test_the_highest_code_point():
    assert code_points(chr(sys.maxunicode)).tolist() == [0x10FFFF]
    assert count_characters([chr(sys.maxunicode)]) == {chr(sys.maxunicode): 1}


def test_a_vocabulary_is_sorted_by_code_point():
    assert build_vocabulary(Counter("the 🦊é\n")).characters == ("\n", " ", "e", "h", "t", "é", "🦊")


def test_min_count_excludes_rare_characters():
    vocabulary = build_vocabulary(Counter("aaabbc"), min_count=2)
    assert vocabulary == Vocabulary(("a", "b"), min_count=2)


@given(st.text(min_size=1), st.integers(1, 3))
def test_a_vocabulary_has_the_characters_with_min_count(text, min_count):
    counts = Counter(text)
    often_enough = {character for character in text if counts[character] >= min_count}
    if often_enough:
        assert set(build_vocabulary(counts, min_count).characters) == often_enough
    else:
        with pytest.raises(UsageError):
            build_vocabulary(counts, min_count)


def test_min_count_above_all_counts():
    with pytest.raises(
        UsageError, match=r"min_count 9 excludes every character: the most frequent, 'b' \(U\+0062\), occurs 2"
    ):
        build_vocabulary(Counter("abb"), min_count=9)


def test_an_empty_corpus():
    with pytest.raises(NoInputError, match="no characters") as failure:
        build_vocabulary(Counter())
    assert failure.value.exit_status == ExitStatus.NO_INPUT == 66


@pytest.mark.parametrize(
    ("characters", "min_count", "message"),
    [
        ((), 1, "needs at least one character"),
        (("a", ""), 1, "'' is not a single character"),
        (("a", "bc"), 1, "'bc' is not a single character"),
        (("a", "x" * 1000), 1, "'xxxxxxxxxxxxxxxxxxxx' is not a single character"),
        (("a", "a"), 1, r"'a' \(U\+0061\) is in the vocabulary twice"),
        (("b", "a"), 1, "sorted by code point: 'a' comes before 'b'"),
        (("a", "\ud800"), 1, r"U\+D800 is an unpaired surrogate"),
        (("\udfff",), 1, r"U\+DFFF is an unpaired surrogate"),
        (("a",), 0, "min_count must be at least 1, not 0"),
    ],
)
def test_invalid_vocabularies(characters, min_count, message):
    with pytest.raises(DataError, match=message) as failure:
        Vocabulary(characters, min_count)
    assert failure.value.exit_status == ExitStatus.BAD_DATA == 65


def test_the_neighbors_of_the_surrogates_are_characters():
    assert Vocabulary(("\ud7ff", "\ue000")).characters == ("\ud7ff", "\ue000")


def test_describe_characters():
    assert describe_characters(["é"]) == "'é' (U+00E9)"
    assert describe_characters("\n🦊") == "'\\n' (U+000A), '🦊' (U+1F98A)"
    assert describe_characters("ab", limit=2) == "'a' (U+0061), 'b' (U+0062)"
    assert describe_characters("abc", limit=2) == "'a' (U+0061), 'b' (U+0062) and others"


@given(st.text(st.characters(exclude_categories=())))
def test_a_description_is_one_line_in_utf_8(text):
    description = describe_characters(text, limit=100)
    assert len(description.splitlines()) <= 1
    description.encode("utf-8")
