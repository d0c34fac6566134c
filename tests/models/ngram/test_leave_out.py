"""The n-gram models of a text without one block, compared with their definition written with dictionaries."""

from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quickfox.models.language_model import Prior
from quickfox.models.ngram import leave_out
from quickfox.models.ngram.counting import sort_text
from quickfox.models.ngram.kneser_ney import NgramEstimate, estimate_discounts, estimate_ngrams
from quickfox.models.ngram.leave_out import BLOCKS, LeaveOutModel, block_bounds, estimate_leave_out

UNLIMITED = 10**9
START = -1
Ngram = tuple[int, ...]


class NaiveModel:
    """p(w | h) of the text without one block, by the formulas, from all n-grams inside the other blocks.

    `min_counts` of each order: n-grams with smaller counts, and those that begin with one, are left out.
    """

    def __init__(self, text: list[int], vocabulary_size: int, min_counts: tuple[int, ...], left_out: int) -> None:
        self.vocabulary_size = vocabulary_size
        self.min_counts = min_counts
        order = len(min_counts)
        bounds = block_bounds(len(text)).tolist()
        parts = [text[bounds[block] : bounds[block + 1]] for block in range(BLOCKS) if block != left_out]
        spans = [(part, i, k) for part in parts for k in range(1, order + 1) for i in range(len(part) - k + 1)]
        self.counts = Counter(tuple(part[i : i + k]) for part, i, k in spans)
        before: dict[Ngram, set[int]] = {}
        for part, i, k in spans:
            before.setdefault(tuple(part[i : i + k]), set()).add(part[i - 1] if i else START)
        self.adjusted = {
            ngram: count if len(ngram) == order else len(before[ngram]) for ngram, count in self.counts.items()
        }
        self.discounts = []
        for k in range(1, order + 1):
            adjusted = [a for ngram, a in self.adjusted.items() if len(ngram) == k and self.is_kept(ngram[:-1])]
            self.discounts.append(estimate_discounts(np.array([adjusted.count(a) for a in range(5)])))

    def is_kept(self, ngram: Ngram) -> bool:
        return all(self.counts[ngram[:k]] >= self.min_counts[k - 1] for k in range(1, len(ngram) + 1))

    def prob(self, token: int, context: Ngram) -> float:
        lower = self.prob(token, context[1:]) if context else 1 / self.vocabulary_size
        ngrams = [(*context, w) for w in range(self.vocabulary_size)]
        adjusted = np.array([self.adjusted.get(ngram, 0) for ngram in ngrams])
        if not (adjusted.any() and self.is_kept(context)):
            return lower
        alphas = (adjusted - self.discounts[len(context)][np.minimum(adjusted, 3)]) / adjusted.sum()
        alphas[[not self.is_kept(ngram) for ngram in ngrams]] = 0
        return float(alphas[token] + (1 - alphas.sum()) * lower)

    def length(self, context: Ngram) -> int:
        """The tokens of the longest context that occurs; the last token alone is always one."""
        lengths = range(len(context), 1, -1)
        return next((m for m in lengths if self.is_kept(context[-m:])), min(1, len(context)))


def build(ids: np.ndarray, estimate: NgramEstimate) -> LeaveOutModel:
    text = sort_text(ids, estimate.ngrams[0], len(estimate.ngrams))
    leave_out = estimate_leave_out(text, estimate.ngrams, estimate.tensors)
    return LeaveOutModel(estimate.ngrams, estimate.tensors, leave_out)


def all_priors(model: LeaveOutModel, ids: np.ndarray, queries: np.ndarray) -> Prior:
    """After each token of a text and of the queries (n,), without each block."""
    tokens = np.concatenate([ids.astype(np.int64), queries])
    blocks = np.repeat(np.arange(BLOCKS)[:, None], len(tokens), axis=1)
    return model.prior(np.repeat(tokens[None], BLOCKS, axis=0), blocks)


@st.composite
def texts(draw, min_size: int = 1, max_size: int = 60):
    vocabulary_size = draw(st.integers(1, 5))
    tokens = st.integers(0, vocabulary_size - 1)
    text = draw(st.lists(tokens, min_size=min_size, max_size=max_size))
    queries = draw(st.lists(tokens, min_size=1, max_size=8))
    return vocabulary_size, np.array(text, np.uint8), np.array(queries, np.int64)


@st.composite
def replaced_texts(draw, max_size: int = 100):
    """A text, the same with other tokens in one block, the block, the size of the vocabulary, and queries."""
    vocabulary_size, ids, queries = draw(texts(BLOCKS, max_size))
    block = draw(st.integers(0, BLOCKS - 1))
    start, end = block_bounds(len(ids))[block : block + 2].tolist()
    tokens = st.integers(0, vocabulary_size - 1)
    replaced = ids.copy()
    replaced[start:end] = draw(st.lists(tokens, min_size=end - start, max_size=end - start))
    return vocabulary_size, ids, replaced, block, queries


@given(st.integers(0, 1000))
def test_blocks_divide_the_text_equally(n: int) -> None:
    bounds = block_bounds(n)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, n, BLOCKS + 1)
    assert set(np.diff(bounds)) <= {n // BLOCKS, n // BLOCKS + 1}


@pytest.mark.parametrize("max_cached", [0, UNLIMITED])
@given(texts(), st.integers(1, 4))
def test_the_probabilities_are_those_of_the_definition(max_cached: int, case, order: int) -> None:
    vocabulary_size, ids, queries = case
    order = min(order, len(ids))
    with patch.object(leave_out, "_MAX_CACHED", max_cached):
        model = build(ids, estimate_ngrams(ids, vocabulary_size, order, UNLIMITED))
    assert model.min_counts == (1,) * order
    log_probs, lengths = all_priors(model, ids, queries)
    assert (log_probs.dtype, lengths.dtype) == (np.float32, np.int32)
    tokens = [*ids.tolist(), *queries.tolist()]
    for block in range(BLOCKS):
        naive = NaiveModel(ids.tolist(), vocabulary_size, model.min_counts, block)
        for position in range(0, len(tokens), 1 + len(tokens) // 16):
            context = tuple(tokens[max(0, position + 2 - order) : position + 1])
            expected = [naive.prob(token, context) for token in range(vocabulary_size)]
            assert np.exp(log_probs[block, position]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
            assert lengths[block, position] == naive.length(context)


@pytest.mark.parametrize(("max_ngrams", "min_counts"), [(UNLIMITED, (1, 1, 1)), (110, (1, 6, 6)), (230, (1, 3, 4))])
def test_a_text_long_enough_to_estimate_discounts(max_ngrams: int, min_counts: tuple[int, ...]) -> None:
    ids = np.minimum(np.random.default_rng(0).zipf(1.3, 4000), 30).astype(np.uint8) - 1
    model = build(ids, estimate_ngrams(ids, 30, 3, max_ngrams))
    assert model.min_counts == min_counts
    log_probs, lengths = all_priors(model, ids[:40], np.zeros(1, np.int64))
    for block in (0, 3, BLOCKS - 1):
        naive = NaiveModel(ids.tolist(), 30, min_counts, block)
        assert all(discounts.tolist() != [0, 0.5, 1, 1.5] for discounts in naive.discounts[1:])
        for position in range(1, 40):
            context = tuple(ids[position - 1 : position + 1].tolist())
            expected = [naive.prob(token, context) for token in range(30)]
            assert np.exp(log_probs[block, position]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
            assert lengths[block, position] == naive.length(context)


@given(replaced_texts(), st.integers(1, 5))
def test_the_text_of_a_block_does_not_change_its_distributions(case, order: int) -> None:
    vocabulary_size, ids, replaced, block, queries = case
    models = [build(text, estimate_ngrams(text, vocabulary_size, order, UNLIMITED)) for text in (ids, replaced)]
    (log_probs, lengths), (same_log_probs, same_lengths) = (
        all_priors(model, np.concatenate([ids, replaced]), queries) for model in models
    )
    np.testing.assert_allclose(log_probs[block], same_log_probs[block], atol=1e-5)
    assert np.array_equal(lengths[block], same_lengths[block])


@given(replaced_texts(150), st.integers(2, 5), st.integers(2, 30))
@settings(max_examples=60)
def test_rare_ngrams_that_are_left_out_do_not_tell_the_text_of_a_block(case, order: int, max_ngrams: int) -> None:
    vocabulary_size, ids, replaced, block, queries = case
    models = [build(text, estimate_ngrams(text, vocabulary_size, order, max_ngrams)) for text in (ids, replaced)]
    assume(models[0].min_counts == models[1].min_counts)
    (log_probs, lengths), (same_log_probs, same_lengths) = (
        all_priors(model, np.concatenate([ids, replaced]), queries) for model in models
    )
    np.testing.assert_allclose(log_probs[block], same_log_probs[block], atol=1e-5)
    assert np.array_equal(lengths[block], same_lengths[block])


@given(texts(max_size=300), st.integers(1, 6), st.integers(0, 30))
def test_distributions_sum_to_1(case, order: int, max_ngrams: int) -> None:
    vocabulary_size, ids, queries = case
    model = build(ids, estimate_ngrams(ids, vocabulary_size, min(order, len(ids)), max_ngrams))
    log_probs, lengths = all_priors(model, ids, queries)
    assert np.exp(log_probs).sum(axis=-1) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(log_probs).all()
    assert (lengths >= 0).all()
    assert (lengths < max(order, 1)).all()


def test_tables_without_contexts() -> None:
    """All n-grams above order 1 are left out."""
    ids = np.array([0, 1, 2, 1] * 8, np.uint8)
    model = build(ids, estimate_ngrams(ids, 3, 4, 0))
    log_probs, lengths = all_priors(model, ids, np.zeros(1, np.int64))
    assert (lengths == 1).all()
    naive = NaiveModel(ids.tolist(), 3, (1, 99), 3)
    assert np.exp(log_probs[3, 20]) == pytest.approx([naive.prob(token, ()) for token in range(3)])


def test_a_large_vocabulary() -> None:
    """Counts of a block change only what that block leaves out; keys beyond 32 bits."""
    vocabulary_size = 2**20
    ids = np.array([5, vocabulary_size - 1, 7] * 16, np.uint32)
    model = build(ids, estimate_ngrams(ids, vocabulary_size, 3, UNLIMITED))
    (log_probs,), (lengths,) = model.prior(np.array([[5, vocabulary_size - 1]]), np.array([[0, 0]]))
    assert lengths.tolist() == [1, 2]
    assert log_probs.argmax(axis=-1).tolist() == [vocabulary_size - 1, 7]


def test_context_before_the_window_is_read_only() -> None:
    vocabulary_size, ids = 3, np.random.default_rng(1).integers(0, 3, 60).astype(np.uint8)
    model = build(ids, estimate_ngrams(ids, vocabulary_size, 4, UNLIMITED))
    tokens, blocks = ids[None, :30].astype(np.int64), np.full((1, 30), 2)
    whole, part = model.prior(tokens, blocks), model.prior(tokens, blocks[:, 20:])
    assert np.array_equal(whole.log_probs[:, 20:], part.log_probs)
    assert np.array_equal(whole.lengths[:, 20:], part.lengths)
