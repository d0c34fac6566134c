"""Batches of documents with signals: whole documents in rows, because a document is not useful without its beginning.

Training: a row of T positions holds as many documents as fit, in the order of a new permutation in each pass, and ends
with padding; its state is the initial one. So nothing is carried from step to step, and every batch is a pure function
of (random seed, step). Validation: each document is a row of its own.
"""

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from quickfox.data.dataset import IGNORED
from quickfox.data.document_order import random_permutation
from quickfox.data.frames import Row, SignalDocuments
from quickfox.errors import DataError
from quickfox.media.augmentation import augment

_PASS, _AUGMENTATION = 3, 4  # what random numbers are for
_READ_AHEAD = 8  # steps

Batch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]


class SignalBatches:
    """Training batches over documents with signals.

    Attributes:
        window: T.
        left_out: number of documents that are longer than a row, on which the model is not trained.

    Args:
        documents: of the training text.
        batch_size: B, rows of a batch.
        window: T, positions of a row.
        random_seed: determines the order and the changes of signals; >= 0.
        rows: the rows of each batch to return.
        augments: whether signals are changed at random.

    Raises:
        DataError: all documents are longer than a row.
    """

    def __init__(
        self,
        documents: SignalDocuments,
        batch_size: int,
        window: int,
        random_seed: int,
        rows: slice = slice(None),
        *,
        augments: bool = False,
    ) -> None:
        self.window = window
        self._documents = documents
        self._batch_size = batch_size
        self._random_seed = random_seed
        self._rows = rows
        self._augments = augments
        self._kept = np.flatnonzero(documents.lengths <= window)
        self.left_out = len(documents) - len(self._kept)
        if not len(self._kept):
            raise DataError(
                f"all {len(documents):,} documents are longer than window {window}: choose a longer one", "window"
            )
        self._ends: list[int] = []  # number of rows up to the end of each pass
        self._pass = lru_cache(3)(self._make_pass)
        self._reader = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[Batch]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Steps that read each document once, in the first pass."""
        return len(self._pass(0)) / self._batch_size

    @property
    def num_rows(self) -> int:
        """The number of `rows`."""
        return len(range(self._batch_size)[self._rows])

    def batch(self, step: int) -> Batch:
        """Inputs, targets and frames of a step; the next ones are read ahead on a thread.

        Args:
            step: number of optimizer steps before this one, >= 0.

        Returns:
            x: (B, T) int32 input ids, only `rows` of it.
            y: (B, T) int32, the token after each of x, or IGNORED.
            frames: (B, T, F) float32, zeros where there is no frame.
        """
        pending = self._ahead.pop(step, None)
        self._ahead = {key: each for key, each in self._ahead.items() if key > step}
        for later in range(step + 1, step + 1 + _READ_AHEAD):
            if later not in self._ahead:
                self._ahead[later] = self._reader.submit(self._make_batch, later)
        return self._reader.submit(self._make_batch, step).result() if pending is None else pending.result()

    def _make_batch(self, step: int) -> Batch:
        numbers = range(step * self._batch_size, (step + 1) * self._batch_size)[self._rows]
        batch = _Rows(len(numbers), self.window, self._documents)
        for row, number in enumerate(numbers):
            random = np.random.Generator(np.random.Philox([self._random_seed, _AUGMENTATION, number]))
            for document in self._documents_of_row(number):
                each = self._documents.row(document)
                if self._augments and len(each.frames):
                    each = Row(each.ids, each.is_target, augment(each.frames, self._documents.media, random))
                batch.append(row, each)
        return batch.x, batch.y, batch.frames

    def _documents_of_row(self, number: int) -> npt.NDArray[np.int64]:
        """The documents of the row `number`, counted over all passes."""
        while not self._ends or self._ends[-1] <= number:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(self._pass(len(self._ends))))
        found = bisect_right(self._ends, number)
        return self._pass(found)[number - (self._ends[found - 1] if found else 0)]

    def _make_pass(self, number: int) -> list[npt.NDArray[np.int64]]:
        """The documents of each row of a pass."""
        order = self._kept[random_permutation(len(self._kept), self._random_seed, _PASS, number)]
        ends = np.cumsum(self._documents.lengths[order])
        rows, start = [], 0
        while start < len(order):
            before = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, before + self.window, side="right"))
            rows.append(order[start:stop])
            start = stop
        return rows


class _Rows:
    """The arrays of a batch, which are filled document by document; `x` is padded with the end-of-text token."""

    def __init__(self, rows: int, window: int, documents: SignalDocuments) -> None:
        self.x = np.full((rows, window), documents.end_of_text, np.int32)
        self.y = np.full((rows, window), IGNORED, np.int32)
        self.frames = np.zeros((rows, window, documents.frame_dim), np.float32)
        self._first_id = documents.first_id
        self._lengths = [0] * rows

    def append(self, row: int, document: Row) -> None:
        """Appends a document to a row, in which there is space for it."""
        start = self._lengths[row]
        stop = start + len(document.ids) - 1
        self.x[row, start:stop] = document.ids[:-1]
        self.y[row, start:stop] = np.where(document.is_target, document.ids, IGNORED)[1:]
        self.frames[row, start:stop][document.ids[:-1] >= self._first_id] = document.frames
        self._lengths[row] = stop


@dataclass(frozen=True)
class SignalWindow:
    """T positions of each of S documents.

    Attributes:
        x: (S, T) int32 input ids.
        y: (S, T) int32, the token after each of x; 0 where it is not a target.
        weight: (S, T) float32, 1 for targets, else 0.
        frames: (S, T, F) float32.
        reset_first: whether all rows begin here, with the initial state; else they continue those before.
    """

    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    frames: npt.NDArray[np.float32]
    reset_first: bool


def iter_signal_windows(documents: SignalDocuments, rows: int, window: int) -> Iterator[SignalWindow]:
    """Windows in which every target of every document is one exactly once, after the document's beginning.

    Args:
        documents: of the validation text.
        rows: S, documents side by side; in the last windows some rows are padding.
        window: T.
    """
    order = np.argsort(documents.lengths, kind="stable")
    for first in range(0, len(order), rows):
        numbers = order[first : first + rows]
        length = -(-int(documents.lengths[numbers[-1]]) // window) * window
        batch = _Rows(rows, length, documents)
        for row, number in enumerate(numbers):
            batch.append(row, documents.row(int(number)))
        for start in range(0, length, window):
            part = slice(start, start + window)
            y = batch.y[:, part]
            yield SignalWindow(
                x=batch.x[:, part],
                y=np.maximum(y, 0),
                weight=(y != IGNORED).astype(np.float32),
                frames=batch.frames[:, part],
                reset_first=start == 0,
            )
