"""The n-gram distributions of training batches: those of each position, in any order of steps, computed on a thread."""

import functools
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.data.batching import StreamBatches
from quickfox.data.dataset import Tokens
from quickfox.data.document_order import DocumentOrder
from quickfox.errors import StorageError
from quickfox.models.language_model import Prior
from quickfox.models.ngram.counting import sort_text
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.leave_out import LeaveOutModel, block_bounds, estimate_leave_out
from quickfox.training.engine import priors
from quickfox.training.engine.priors import PriorBatches

VOCABULARY_SIZE = 4


def text_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, VOCABULARY_SIZE, n).astype(np.uint8)


@functools.cache
def leave_out_model(n: int, order: int) -> LeaveOutModel:
    ids = text_of(n)
    estimate = estimate_ngrams(ids, VOCABULARY_SIZE, order, 1000)
    return LeaveOutModel(
        estimate.ngrams,
        estimate.tensors,
        estimate_leave_out(sort_text(ids, VOCABULARY_SIZE, order), estimate.ngrams, estimate.tensors),
    )


def prior_batches(
    n: int = 100, batch_size: int = 3, window: int = 5, order: int = 3, rows: slice = slice(None)
) -> PriorBatches:
    ids = text_of(n)
    return PriorBatches(Tokens(ids), StreamBatches(ids, batch_size, window, 0, rows=rows), leave_out_model(n, order))


def assert_equal(found: Prior, expected: Prior) -> None:
    assert all(np.array_equal(*arrays) for arrays in zip(found, expected, strict=True))


@given(st.integers(6, 60), st.integers(1, 4), st.integers(1, 5), st.integers(0, 30))
def test_the_distributions_are_those_of_each_position(n: int, order: int, window: int, step: int) -> None:
    """Each computed from the text before it, read as a ring, without the block of its target."""
    ids = text_of(n)
    batches = StreamBatches(ids, 2, window, 0)
    model = leave_out_model(n, order)
    log_probs, lengths = PriorBatches(Tokens(ids), batches, model).batch(step)
    assert (log_probs.shape, log_probs.dtype) == ((2, window, VOCABULARY_SIZE), np.float32)
    assert (lengths.shape, lengths.dtype) == ((2, window), np.int32)
    _, targets = batches.batch(step)
    for row, (start, *_) in enumerate(batches.positions(step).tolist()):
        for t in range(window):
            target = (start + t + 1) % n
            assert ids[target] == targets[row, t]
            block = next(j for j, end in enumerate(block_bounds(n)[1:]) if target < end)
            text = ids[np.arange(target - 3 * order, target) % n].astype(np.int64)
            expected = model.prior(text[None], np.array([[block]]))
            assert np.allclose(log_probs[row, t], expected.log_probs[0, 0], atol=1e-5)
            assert lengths[row, t] == expected.lengths[0, 0]


@given(st.integers(0, 40))
def test_the_distributions_of_documents_are_those_of_their_streams(step: int) -> None:
    """Without the block of the target in the order in which they were counted."""
    ids, window, order = text_of(60), 4, 3
    documents = DocumentOrder(np.arange(0, 61, 6), 5)
    tokens = Tokens(ids, documents=documents)
    counted = tokens.in_counting_order[0:60]
    estimate = estimate_ngrams(counted, VOCABULARY_SIZE, order, 1000)
    leave_out = estimate_leave_out(sort_text(counted, VOCABULARY_SIZE, order), estimate.ngrams, estimate.tensors)
    model = LeaveOutModel(estimate.ngrams, estimate.tensors, leave_out)
    batches = StreamBatches(ids, 2, window, 0, documents=documents)
    found = PriorBatches(tokens, batches, model).batch(step)
    positions = batches.positions(step, model.context)
    for row, stream in enumerate(positions.tolist()):
        for t in range(window):
            target = stream[model.context + t + 1]
            assert counted[tokens.counting_positions(np.array([target]))[0]] == ids[target]
            where = int(tokens.counting_positions(np.array([target]))[0])
            block = next(j for j, end in enumerate(block_bounds(60)[1:]) if where < end)
            text = ids[stream[t : t + model.context + 1]].astype(np.int64)
            expected = model.prior(text[None], np.array([[block]]))
            assert np.allclose(found.log_probs[row, t], expected.log_probs[0, 0], atol=1e-5)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), min_size=1, max_size=6))
def test_the_order_of_requests_does_not_matter(requests: list[tuple[int, int]]) -> None:
    one, other = prior_batches(), prior_batches()
    for first, count in requests:
        found = one.batches(first, count)
        expected = [other.batch(step) for step in (first, first + count - 1)]
        assert found.log_probs.shape[0] == count
        assert_equal(Prior(found.log_probs[0], found.lengths[0]), expected[0])
        assert_equal(Prior(found.log_probs[-1], found.lengths[-1]), expected[1])


def test_a_worker_gets_its_rows() -> None:
    whole, part = prior_batches().batch(7), prior_batches(rows=slice(1, 3)).batch(7)
    assert_equal(part, Prior(whole.log_probs[1:], whole.lengths[1:]))


class CountingModel:
    """Instead of a LeaveOutModel: counts its calls, and waits in them until it may compute."""

    vocabulary_size, context = VOCABULARY_SIZE, 1

    def __init__(self) -> None:
        self.calls = threading.Semaphore(0)
        self.may_compute = threading.Semaphore(0)
        self.threads: set[threading.Thread] = set()

    def prior(self, token_ids: np.ndarray, blocks: np.ndarray) -> Prior:
        self.threads.add(threading.current_thread())
        self.calls.release()
        self.may_compute.acquire()
        return Prior(np.zeros((*blocks.shape, VOCABULARY_SIZE), np.float32), np.zeros(blocks.shape, np.int32))


def counting_batches(model: Any) -> PriorBatches:
    ids = text_of(100)
    return PriorBatches(Tokens(ids), StreamBatches(ids, 2, 5, 0), model)


def join_all(threads: set[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize(("max_bytes", "expected"), [(2**26, 8), (3 * 4 * 2 * 5 * VOCABULARY_SIZE, 3), (1, 1)])
def test_the_next_steps_are_computed_ahead_once(monkeypatch, max_bytes: int, expected: int) -> None:
    monkeypatch.setattr(priors, "MAX_BYTES_AHEAD", max_bytes)
    model = CountingModel()
    batches = counting_batches(model)
    model.may_compute.release(1 + expected)
    batches.batch(4)
    join_all(model.threads)  # a thread ends as soon as everything is computed
    assert [model.calls.acquire(blocking=False) for _ in range(2 + expected)] == [True] * (1 + expected) + [False]
    for step in range(5, 5 + expected):  # each computes one more
        model.may_compute.release()
        batches.batch(step)
        assert model.calls.acquire(timeout=60)
    join_all(model.threads)
    assert not model.calls.acquire(blocking=False)


def test_threads_do_not_keep_a_process_alive() -> None:
    model = CountingModel()
    batches = counting_batches(model)
    model.may_compute.release()
    batches.batch(0)
    assert model.calls.acquire(timeout=60)
    assert all(thread.daemon for thread in model.threads)
    model.may_compute.release(priors.MIN_STEPS_AHEAD)
    join_all(model.threads)


def test_errors_are_raised_where_the_step_is_requested() -> None:
    class Source:
        def __init__(self) -> None:
            self.is_broken = False

        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: slice) -> np.ndarray:
            if self.is_broken:
                raise StorageError("cannot read text: it was truncated")
            return text_of(100)[index]

    source = Source()
    batches = PriorBatches(Tokens(source), StreamBatches(source, 2, 5, 0), leave_out_model(100, 3))
    expected = batches.batch(20)
    source.is_broken = True
    with pytest.raises(StorageError, match="it was truncated"):
        batches.batch(50)
    source.is_broken = False
    assert_equal(batches.batch(20), expected)
