"""Batches of documents with signals, here a single frame each: rows, passes, padding."""

import itertools

import numpy as np
import pytest

from quickfox.config.media import AudioConfig
from quickfox.data.dataset import IGNORED
from quickfox.data.frames import FrameSource, SignalDocuments
from quickfox.data.signal_batches import SignalBatches, choose_row_lengths, iter_signal_windows
from quickfox.errors import DataError

MEDIA = AudioConfig(num_bands=1, stacked=1, mean=(0.0,), deviation=(1.0,))
END, FIRST_FRAME = 0, 12  # of 10 tokens: 10 and 11 are the begin and the end of a signal


def make_documents(lengths: list[int]) -> SignalDocuments:
    """Document n has these many ids: a frame with the value n, targets 1 + n % 9, the end."""
    texts = [[FIRST_FRAME, *[1 + n % 9] * (length - 2), END] for n, length in enumerate(lengths)]
    ids = np.concatenate(texts).astype(np.int64)
    frames = FrameSource(np.arange(len(lengths)).astype(np.float16), MEDIA, FIRST_FRAME, END)
    return SignalDocuments(ids, ids < FIRST_FRAME, frames)


def documents_of(frames: np.ndarray, x: np.ndarray) -> list[int]:
    """The numbers of the documents in a batch."""
    return frames[x == FIRST_FRAME][:, 0].astype(int).tolist()


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([5], [8]),
        ([8] * 9 + [7], [8]),
        ([8] * 10 + [80] * 10, [8, 80]),
        ([8] * 99 + [80], [8, 80]),
        ([8] * 10 + [20] * 10 + [40] * 10 + [80] * 10 + [160] * 10, [20, 40, 80, 160]),
        (list(range(76, 81)), [80]),  # a second length saves 1 % only
    ],
)
def test_lengths_of_rows(lengths: list[int], expected: list[int]) -> None:
    assert choose_row_lengths(np.array(lengths)) == expected


def test_each_pass_reads_each_document_in_a_row_of_its_length() -> None:
    lengths = [4, 7, 4, 30, 5, 31, 6, 3, 8, 29, 5, 7]
    batches = SignalBatches(make_documents(lengths), batch_size=4, window=32, random_seed=3)
    assert batches.windows == [8, 32]
    assert batches.steps_per_epoch == 3
    orders = []
    for number in range(2):
        read = [batches.batch(3 * number + step) for step in range(3)]
        assert sorted(x.shape for x, _, _ in read) == [(4, 8), (4, 8), (4, 32)]
        orders.append([documents_of(frames, x) for x, _, frames in read])
        assert sorted(itertools.chain(*orders[-1])) == list(range(12))
        for (x, y, _), numbers in zip(read, orders[-1], strict=True):
            for row, document in enumerate(numbers):
                length = lengths[document]
                assert x[row, :3].tolist() == [END, FIRST_FRAME, 1 + document % 9]
                assert y[row, :length].tolist() == [IGNORED, *[1 + document % 9] * (length - 2), END]
                assert set(y[row, length:].tolist()) <= {IGNORED}
    assert orders[0] != orders[1]
    again = SignalBatches(make_documents(lengths), batch_size=4, window=32, random_seed=3, rows=slice(1, 3))
    np.testing.assert_array_equal(again.batch(4)[0], batches.batch(4)[0][1:3])


def test_the_last_batch_repeats_documents_and_long_ones_are_left_out() -> None:
    batches = SignalBatches(make_documents([4, 40, 5, 6]), batch_size=4, window=8, random_seed=0)
    x, _, frames = batches.batch(0)
    assert batches.steps_per_epoch == 1
    assert (x.shape, set(documents_of(frames, x))) == ((4, 8), {0, 2, 3})
    with pytest.raises(DataError, match="all 4 documents are longer than window 2"):
        SignalBatches(make_documents([4, 40, 5, 6]), batch_size=4, window=2, random_seed=0)


def test_validation_reads_each_target_once_and_continues_long_documents() -> None:
    lengths = [4, 40, 5, 6, 30]
    windows = list(iter_signal_windows(make_documents(lengths), rows=3, windows=[8, 16]))
    assert [(each.x.shape, each.reset_first, each.is_whole) for each in windows] == [
        ((3, 8), True, True),
        ((3, 16), True, False),
        ((3, 16), False, False),
        ((3, 16), False, False),
    ]
    assert sum(each.weight.sum() for each in windows) == sum(lengths) - len(lengths)
