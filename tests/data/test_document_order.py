"""The order in which documents are read: each once in a pass, in an order of its own, without being divided."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.data import dataset
from quickfox.data.batching import StreamBatches
from quickfox.data.dataset import Tokens, find_documents, split_tokens
from quickfox.data.document_order import DocumentOrder, held_out_documents
from quickfox.tokenizers.byte_level import ByteTokenizer

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=40)
END = 256


def order_of(lengths: list[int], random_seed: int = 0) -> DocumentOrder:
    return DocumentOrder(np.append(0, np.cumsum(lengths)), random_seed)


@given(LENGTHS, st.integers(0, 5))
def test_a_pass_reads_every_document_once_and_whole(lengths: list[int], number: int) -> None:
    order = order_of(lengths)
    starts = np.append(0, np.cumsum(lengths))
    positions = order.permutation(number).to_text(np.arange(starts[-1]))
    assert sorted(positions.tolist()) == list(range(starts[-1]))
    for start, end in itertools.pairwise(starts):
        where = positions.tolist().index(start)
        assert positions[where : where + end - start].tolist() == list(range(start, end))
    assert order.permutation(number).from_text(positions).tolist() == list(range(starts[-1]))


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(order_of([1] * 50, seed).permutation(number).to_text(np.arange(50)).tolist())
        for seed in range(3)
        for number in range(4)
    }
    assert len(orders) == 12
    first = order_of([1] * 5, 0).permutation(0).to_text(np.arange(5)).tolist()
    assert first == [4, 3, 2, 1, 0]  # that of every version of NumPy


@given(LENGTHS, st.integers(1, 8), st.integers(1, 6), st.integers(0, 20))
def test_batches_are_consecutive_and_a_pure_function_of_the_step(
    lengths: list[int], batch_size: int, window: int, step: int
) -> None:
    n = sum(lengths)
    if n <= window:
        return
    ids = np.arange(n).astype(np.uint16)

    def batches() -> StreamBatches:
        return StreamBatches(ids, batch_size, window, 1, documents=order_of(lengths))

    one = batches()
    all_steps = [one.batch(k) for k in range(step + 2)]
    for k in (step + 1, step):
        for found, expected in zip(batches().batch(k), all_steps[k], strict=True):
            np.testing.assert_array_equal(found, expected)
    x, y = all_steps[step]
    np.testing.assert_array_equal(all_steps[step + 1][0][:, 0], y[:, -1])
    context = one.positions(step + 1, window)
    np.testing.assert_array_equal(context[:, :window], x)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=20, max_size=60), st.integers(1, 3))
def test_the_streams_of_a_batch_read_every_document_once_in_each_pass(lengths: list[int], batch_size: int) -> None:
    """Their parts of a pass begin at the start of a document."""
    n, order = sum(lengths), order_of(lengths)
    streams = StreamBatches(np.zeros(n, np.uint8), batch_size, 2, 0, documents=order)._documents
    assert streams is not None
    read = streams.positions(0, 3 * n, slice(None))
    seen: Counter[int] = Counter()
    for number in range(2):
        starts = streams._ends[number - 1] if number else np.zeros(batch_size, np.int64)
        parts = [row[start:end] for row, start, end in zip(read, starts, streams._ends[number], strict=True)]
        assert sorted(np.concatenate(parts).tolist()) == list(range(n))
        seen.update(int(part[0]) for part in parts)
    document_starts = {0, *np.cumsum(lengths).tolist()}
    assert seen.keys() <= document_starts or max(lengths) > n // (2 * batch_size)


def test_a_single_long_document_is_divided_among_the_streams() -> None:
    batches = StreamBatches(np.zeros(100, np.uint8), 4, 5, 0, documents=order_of([100]))
    read = [set(row.tolist()) for row in batches._documents.positions(0, 25, slice(None))]  # type: ignore[union-attr]
    assert set.union(*read) == set(range(100))


def test_workers_read_their_rows() -> None:
    ids = np.arange(200).astype(np.uint8)
    whole, rows = (
        StreamBatches(ids, 6, 5, 3, rows=rows, documents=order_of([10] * 20)) for rows in (slice(None), slice(2, 4))
    )
    np.testing.assert_array_equal(whole.batch(9)[0][2:4], rows.batch(9)[0])
    assert rows.num_rows == 2


@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 3))
def test_held_out_documents_are_as_many_as_requested(documents: int, share: float, random_seed: int) -> None:
    training = int(share * documents)
    is_held_out = held_out_documents(documents, training, random_seed)
    assert (~is_held_out).sum() == training
    assert (is_held_out == held_out_documents(documents, training, random_seed)).all()


def test_held_out_documents_depend_on_the_seed() -> None:
    assert len({tuple(held_out_documents(100, 90, seed).tolist()) for seed in range(10)}) == 10


@given(LENGTHS)
def test_documents_are_found_by_their_ends(lengths: list[int]) -> None:
    ids = np.concatenate([np.append(np.zeros(length - 1), END) for length in lengths]).astype(np.uint16)
    assert find_documents(ids, END).tolist() == [0, *np.cumsum(lengths).tolist()]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_many_documents_are_grouped(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(dataset, "MAX_UNITS", 16)
    monkeypatch.setattr(dataset, "_CHUNK_LENGTH", chunk)
    ids = np.tile([0, 0, END], 100)
    starts = find_documents(ids, END)
    assert len(starts) <= 17
    assert (starts[0], starts[-1]) == (0, 300)
    assert set(np.diff(starts)[:-1].tolist()) == {3 * 8}


def test_n_grams_are_counted_in_the_order_of_the_first_pass() -> None:
    ids = np.array([1, END, 2, END, 3, 4, END], np.uint16)
    tokens, _ = split_tokens(
        Tokens(ids, np.ones(7, bool)), ByteTokenizer(has_end_of_text=True), training_tokens=7, random_seed=4
    )
    assert tokens.documents is not None
    positions = tokens.documents.first.to_text(np.arange(7))
    assert tokens.in_counting_order[0:7].tolist() == ids[positions].tolist()
    assert tokens.in_counting_order[2:5].tolist() == ids[positions[2:5]].tolist()
    assert tokens.counting_positions(positions).tolist() == list(range(7))
