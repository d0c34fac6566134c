"""Counting of n-grams: worked examples, large vocabularies, and any size of chunks and ranges."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.models.ngram import counting
from quickfox.models.ngram.counting import ABSENT, NgramCounts, advance_contexts, count_ngrams, smallest_count

LARGEST_VOCABULARY = 2**24


def concatenate(parts: list[NgramCounts]) -> NgramCounts:
    return NgramCounts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def assert_counts(found: NgramCounts, keys: list[int], counts: list[int], predecessors: list[int]) -> None:
    assert [column.tolist() for column in found] == [keys, counts, predecessors]
    assert all(column.dtype == np.int64 for column in found)


def test_bigrams_by_hand() -> None:
    ids = np.array([1, 0, 1, 2, 1, 0], np.uint8)
    contexts = np.array([ABSENT, 1, 0, 1, 2, 1], np.int32)
    (found,) = count_ngrams(ids, contexts, np.array([2, 3, 1]), 3, 2, threads=1)
    # 01 after 1; 10 after the start of the text and after 2; 12 after 0; 21 after 1
    assert_counts(found, [0 * 3 + 1, 1 * 3 + 0, 1 * 3 + 2, 2 * 3 + 1], [1, 2, 1, 1], [1, 2, 1, 1])
    advance_contexts(ids, contexts, 3, found.keys, threads=1)
    assert contexts.tolist() == [ABSENT, ABSENT, 1, 0, 2, 3]


def test_contexts_that_are_absent_are_not_counted() -> None:
    ids = np.array([1, 0, 1, 2, 1, 0], np.uint8)
    contexts = np.array([ABSENT, ABSENT, 0, ABSENT, 1, ABSENT], np.int32)
    (found,) = count_ngrams(ids, contexts, np.array([1, 1]), 3, 2, threads=1)
    assert_counts(found, [0 * 3 + 1, 1 * 3 + 1], [1, 1], [1, 1])
    advance_contexts(ids, contexts, 3, found.keys[1:], threads=1)
    assert contexts.tolist() == [ABSENT] * 5 + [0]


def test_without_contexts_there_is_nothing_to_count() -> None:
    ids, contexts = np.array([1, 0], np.uint8), np.array([ABSENT, ABSENT], np.int32)
    assert list(count_ngrams(ids, contexts, np.zeros(0, np.int64), 3, 4, threads=1)) == []
    (found,) = count_ngrams(ids, contexts, np.array([1, 1]), 3, 4, threads=1)
    assert_counts(found, [], [], [])
    advance_contexts(ids, contexts, 3, found.keys, threads=1)
    assert contexts.tolist() == [ABSENT, ABSENT]


@pytest.mark.parametrize("threads", [1, 2])
def test_keys_beyond_32_bits(threads: int) -> None:
    top, last = LARGEST_VOCABULARY - 1, 2**18 - 1
    ids = np.array([0, top, 0, top - 1, top, top, 0], np.uint32)
    contexts = np.array([last, 5, last, 5, last - 1, last, last], np.int32)
    context_counts = np.ones(last + 1, np.int64)
    parts = list(count_ngrams(ids, contexts, context_counts, LARGEST_VOCABULARY, 1, threads))
    assert len(parts) > 1, "all contexts at once would exceed 63 bits"
    found = concatenate(parts)
    ngrams = [(5, top - 1), (5, top), (last - 1, top), (last, 0), (last, top)]
    keys = [context * LARGEST_VOCABULARY + token for context, token in ngrams]
    assert keys[-1] > 2**41
    assert_counts(found, keys, [1, 1, 1, 3, 1], [1, 1, 1, 2, 1])
    advance_contexts(ids, contexts, LARGEST_VOCABULARY, found.keys, threads)
    assert contexts.tolist() == [ABSENT, 3, 1, 3, 0, 2, 4]


@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    chunk_tokens=st.integers(1, 50),
    max_indexed_keys=st.integers(0, 20),
    threads=st.integers(1, 3),
)
def test_chunks_ranges_and_searches_change_nothing(
    ids: list[int], chunk_tokens: int, max_indexed_keys: int, threads: int
) -> None:
    text = np.array(ids, np.uint8)
    contexts = np.array([ABSENT, *ids[:-1]], np.int32)
    context_counts = np.bincount(text, minlength=4)
    (expected,) = count_ngrams(text, contexts, context_counts, 4, 2, threads=1)
    pairs = Counter(pairwise(ids))
    assert expected.keys.tolist() == sorted(4 * first + second for first, second in pairs)
    assert expected.counts.tolist() == [pairs[tuple(divmod(key, 4))] for key in expected.keys.tolist()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "CHUNK_TOKENS", chunk_tokens)
        patch.setattr(counting, "_MAX_INDEXED_KEYS", max_indexed_keys)
        parts = list(count_ngrams(text, contexts, context_counts, 4, 2, threads))
        advance_contexts(text, contexts, 4, expected.keys, threads)
    assert_counts(concatenate(parts), *(column.tolist() for column in expected))
    positions = {ngram: index for index, ngram in enumerate(sorted(pairs))}
    bigrams = list(pairwise(ids))
    assert contexts.tolist() == [ABSENT, ABSENT, *map(positions.get, bigrams[:-1])][: len(ids)]


@pytest.mark.parametrize("context_counts", [[5, 5, 5, 5], [4, 0, 0, 6, 3, 3, 1], [20, 1, 20], [0, 0], [11]])
def test_ranges_have_at_most_a_chunk_of_tokens_or_one_context(
    monkeypatch: pytest.MonkeyPatch, context_counts: list[int]
) -> None:
    monkeypatch.setattr(counting, "CHUNK_TOKENS", 10)
    ids = np.repeat(np.arange(len(context_counts)), context_counts).astype(np.uint8)
    parts = list(count_ngrams(ids, ids.astype(np.int32), np.array(context_counts), 9, 1, threads=1))
    totals = [int(part.counts.sum()) for part in parts]
    assert sum(totals) == len(ids)
    assert all(
        total <= 10 or len(set((part.keys // 9).tolist())) == 1 for part, total in zip(parts, totals, strict=True)
    )
    assert all(first + second > 10 for first, second in pairwise(totals)), "no more ranges than necessary"


@given(counts=st.lists(st.integers(1, 6), max_size=30), max_ngrams=st.integers(0, 30))
def test_smallest_count(counts: list[int], max_ngrams: int) -> None:
    threshold = smallest_count(np.array(counts, np.int64), max_ngrams)
    assert sum(count >= threshold for count in counts) <= max_ngrams
    assert threshold == 1 or sum(count >= threshold - 1 for count in counts) > max_ngrams
