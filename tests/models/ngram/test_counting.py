"""Counting of n-grams: a worked example, large vocabularies, and any size of the parts that are sorted and counted."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.models.ngram import counting
from quickfox.models.ngram.counting import (
    ABSENT,
    NgramCounts,
    SortedText,
    advance_contexts,
    count_ngrams,
    smallest_count,
    sort_text,
)

LARGEST_VOCABULARY = 2**24


def count(text: SortedText, contexts: np.ndarray, order: int, threads: int = 1) -> NgramCounts:
    parts = list(count_ngrams(text, contexts, order, threads))
    return NgramCounts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def assert_counts(found: NgramCounts, keys: list[int], counts: list[int], adjusted: list[int]) -> None:
    assert [column.tolist() for column in found] == [keys, counts, adjusted]
    assert [column.dtype for column in found] == [np.int64, np.int32, np.int32]


@contextmanager
def parts_of(chunk_tokens: int, max_leading: int = 2**16, max_word: int = 2**63) -> Iterator[None]:
    """Sorts and counts parts of that many tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "CHUNK_TOKENS", chunk_tokens)
        patch.setattr(counting, "_MAX_LEADING", max_leading)
        patch.setattr(counting, "_MAX_WORD", max_word)
        yield


def test_by_hand() -> None:
    text = sort_text(np.array([1, 0, 1, 2, 1, 0], np.uint8), 3, 3)
    # 0, 012, 0 at the end after a 1 as the other; 10, 101, 121; 210
    assert text.starts.tolist() == [5, 1, 4, 0, 2, 3]
    assert text.shared.tolist() == [0, 1, 0, 2, 1, 0]
    # Before the row of 5 is the row of 4, the first that begins with 1: none before it follows it. And so on.
    assert text.repeated.tolist() == [0, 1, 0, 0, 0, 0]
    contexts = text.ids[text.starts].astype(np.int32)
    # 01 after 1; 10 after the start of the text and after 2; 12 after 0; 21 after 1
    bigrams = count(text, contexts, 2)
    assert_counts(bigrams, [0 * 3 + 1, 1 * 3 + 0, 1 * 3 + 2, 2 * 3 + 1], [1, 2, 1, 1], [1, 2, 1, 1])
    advance_contexts(text, contexts, 2, bigrams.keys)
    assert contexts.tolist() == [ABSENT, 0, 1, 1, 2, 3]
    assert_counts(count(text, contexts, 3), [0 * 3 + 2, 1 * 3 + 1, 2 * 3 + 1, 3 * 3 + 0], [1, 1, 1, 1], [1, 1, 1, 1])


def test_contexts_that_are_absent_are_not_counted() -> None:
    text = sort_text(np.array([1, 0, 1, 2, 1, 0], np.uint8), 3, 2)
    contexts = np.array([ABSENT, ABSENT, 0, 0, 0, ABSENT], np.int32)  # only 1 is kept
    assert_counts(count(text, contexts, 2), [0, 2], [2, 1], [2, 1])
    advance_contexts(text, contexts, 2, np.array([2]))
    assert contexts.tolist() == [ABSENT, ABSENT, ABSENT, ABSENT, 0, ABSENT]
    advance_contexts(text, contexts, 2, np.zeros(0, np.int64))
    assert contexts.tolist() == [ABSENT] * 6
    assert_counts(count(text, contexts, 2), [], [], [])


@pytest.mark.parametrize("threads", [1, 2])
def test_keys_beyond_32_bits(threads: int) -> None:
    top = LARGEST_VOCABULARY - 1
    text = sort_text(np.array([0, top, 0, top - 1, top, 0, top], np.uint32), LARGEST_VOCABULARY, 5, threads)
    contexts = text.ids[text.starts].astype(np.int32)
    bigrams = count(text, contexts, 2, threads)
    ngrams = [(0, top - 1), (0, top), (top - 1, top), (top, 0)]
    assert_counts(bigrams, [a * LARGEST_VOCABULARY + b for a, b in ngrams], [1, 2, 1, 2], [1, 2, 1, 2])
    assert bigrams.keys[-1] > 2**47
    advance_contexts(text, contexts, 2, bigrams.keys, threads)
    trigrams = [(0, top), (1, 0), (2, 0), (3, top - 1), (3, top)]
    found = count(text, contexts, 3, threads)
    assert_counts(found, [a * LARGEST_VOCABULARY + b for a, b in trigrams], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1])


@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    vocabulary_size=st.sampled_from([4, 256, 65_536, 70_000]),
    order=st.integers(1, 6),
    chunk_tokens=st.integers(1, 50),
    max_leading=st.integers(1, 700),
    max_word=st.sampled_from([5, 30, 700, 10_000, 2**63]),
    threads=st.integers(1, 3),
)
def test_counts_of_any_parts_are_those_of_the_definition(
    ids: list[int],
    vocabulary_size: int,
    order: int,
    chunk_tokens: int,
    max_leading: int,
    max_word: int,
    threads: int,
) -> None:
    ids = [vocabulary_size - 1 if token == 3 else token for token in ids]
    array = np.array(ids, np.min_scalar_type(vocabulary_size - 1))
    with parts_of(chunk_tokens, max_leading, max_word):
        text = sort_text(array, vocabulary_size, order, threads)
        contexts = np.zeros(len(ids), np.int32)
        numbers: dict[tuple[int, ...], int] = {(): 0}
        for k in range(1, order + 1):
            starts = range(len(ids) - k + 1)
            ngrams = Counter(tuple(ids[start : start + k]) for start in starts)
            occurrences = {(tuple(ids[max(0, start - 1) : start]), tuple(ids[start : start + k])) for start in starts}
            predecessors = Counter(ngram for _, ngram in occurrences)
            found = count(text, contexts, k, threads)
            ordered = sorted(ngrams)
            assert_counts(
                found,
                [numbers[ngram[:-1]] * vocabulary_size + ngram[-1] for ngram in ordered],
                [ngrams[ngram] for ngram in ordered],
                [(ngrams if k == order else predecessors)[ngram] for ngram in ordered],
            )
            advance_contexts(text, contexts, k, found.keys, threads)
            numbers = {ngram: number for number, ngram in enumerate(ordered)}
            beginning = [tuple(ids[start : start + k]) for start in text.starts.tolist()]
            assert contexts.tolist() == [numbers[ngram] if len(ngram) == k else ABSENT for ngram in beginning]


@given(
    ids=st.lists(st.sampled_from([0, 0, 0, 0, 1, 2]), min_size=1, max_size=60),
    order=st.integers(1, 5),
    chunk_tokens=st.integers(1, 20),
    max_leading=st.integers(1, 100),
)
def test_no_more_than_a_chunk_is_sorted_at_a_time(
    ids: list[int], order: int, chunk_tokens: int, max_leading: int
) -> None:
    """However often the same tokens recur, as in tables and in a text of one character."""
    sorted_rows: list[int] = []
    with parts_of(chunk_tokens, max_leading), pytest.MonkeyPatch.context() as patch:
        argsort = np.argsort

        def recorded_argsort(keys: np.ndarray) -> np.ndarray:
            sorted_rows.append(len(keys))
            return argsort(keys)

        patch.setattr(np, "argsort", recorded_argsort)
        text = sort_text(np.array(ids, np.uint8), 3, order)
    assert sum(sorted_rows) == len(ids)
    assert max(sorted_rows) <= chunk_tokens
    assert sorted(text.starts.tolist()) == list(range(len(ids)))


@given(ids=st.lists(st.integers(0, 2), min_size=1, max_size=60), chunk_tokens=st.integers(1, 20))
def test_parts_have_at_most_a_chunk_of_tokens_or_one_ngram(ids: list[int], chunk_tokens: int) -> None:
    with parts_of(chunk_tokens):
        text = sort_text(np.array(ids, np.uint8), 3, 2)
        parts = list(count_ngrams(text, np.zeros(len(ids), np.int32), 1))
    totals = [int(part.counts.sum()) for part in parts]
    assert sum(totals) == len(ids)
    most = max(Counter(ids).values())
    assert all(total < chunk_tokens + most for total in totals)


@given(counts=st.lists(st.integers(1, 6), max_size=30), max_ngrams=st.integers(0, 30))
def test_smallest_count(counts: list[int], max_ngrams: int) -> None:
    threshold = smallest_count(np.array(counts, np.int32), max_ngrams)
    assert sum(count >= threshold for count in counts) <= max_ngrams
    assert threshold == 1 or sum(count >= threshold - 1 for count in counts) > max_ngrams
