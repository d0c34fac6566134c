"""Batches of documents with signals: one document in a row, because it is not useful without its beginning.

Training: a batch has documents of similar length, in rows of one of a few lengths, of which the documents of each pass
need least padding. The order of the documents and of the batches is new in each pass. Nothing is carried from step to
step, and every batch is a pure function of (random seed, step). Validation: the documents in the order of their
lengths.
"""

from collections.abc import Iterator, Sequence
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

MAX_ROW_LENGTHS = 4
"""Lengths of rows that a run uses, at most: each takes time to compile before its first step."""

ROW_LENGTH_MULTIPLE = 4
MIN_SAVED = 0.1  # fraction of the padded positions that a further length must save

_PASS, _BATCHES, _AUGMENTATION = 3, 5, 4  # what random numbers are for
_READ_AHEAD = 8  # steps

Batch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]


def choose_row_lengths(lengths: npt.NDArray[np.int64]) -> list[int]:
    """The lengths of rows, ascending, that need the least padding for documents of these lengths.

    Each further one, up to MAX_ROW_LENGTHS, is used only if it saves MIN_SAVED of the positions.
    """
    rounded = -(-lengths // ROW_LENGTH_MULTIPLE) * ROW_LENGTH_MULTIPLE
    sizes, counts = np.unique(np.append(rounded, 0), return_counts=True)  # ascending, the first is 0
    counts[0] = 0
    below = np.cumsum(counts)  # documents of at most each size
    # positions[i, j]: of the documents longer than size i, and at most of size j, in rows of size j
    positions = np.where(sizes[:, None] < sizes, (below - below[:, None]) * sizes, np.inf)
    costs = [positions[0]]  # of all documents up to each size, in rows of 1, 2, ... lengths
    cuts: list[npt.NDArray[np.int64]] = []  # the index of the second longest of them
    while len(costs) < MAX_ROW_LENGTHS:
        total = costs[-1][:, None] + positions
        if not total[:, -1].min() < (1 - MIN_SAVED) * costs[-1][-1]:
            break
        cuts.append(total.argmin(axis=0))
        costs.append(total.min(axis=0))
    chosen = [len(sizes) - 1]
    for cut in reversed(cuts):
        chosen.append(int(cut[chosen[-1]]))
    return [int(sizes[index]) for index in reversed(chosen)]


class SignalBatches:
    """Training batches over documents with signals.

    Attributes:
        windows: the lengths of rows, ascending.
        steps_per_epoch: steps that read each document.

    Args:
        documents: of the training text.
        batch_size: B, rows of a batch.
        window: documents that are longer are left out.
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
        self._documents = documents
        self._batch_size = batch_size
        self._random_seed = random_seed
        self._rows = rows
        self._augments = augments
        self._kept = np.flatnonzero(documents.lengths <= window)
        if not len(self._kept):
            raise DataError(
                f"all {len(documents):,} documents are longer than window {window}: choose a longer one", "window"
            )
        self.windows = choose_row_lengths(documents.lengths[self._kept])
        self.steps_per_epoch = -(-len(self._kept) // batch_size)
        self._pass = lru_cache(3)(self._make_pass)
        self._reader = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[Batch]] = {}

    @property
    def num_rows(self) -> int:
        """The number of `rows`."""
        return len(range(self._batch_size)[self._rows])

    def batch(self, step: int) -> Batch:
        """Inputs, targets and frames of a step; the next ones are read ahead on a thread.

        Args:
            step: number of optimizer steps before this one, >= 0.

        Returns:
            x: (B, T) int32 input ids, only `rows` of it; T is one of `windows`.
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
        documents = self._pass(step // self.steps_per_epoch)[step % self.steps_per_epoch]
        window = fitting_window(self._documents.lengths[documents].max(), self.windows)
        batch = _Rows(self.num_rows, window, self._documents)
        for row, number in enumerate(range(self._batch_size)[self._rows]):
            each = self._documents.row(int(documents[number]))
            if self._augments and len(each.frames):
                key = [self._random_seed, _AUGMENTATION, step * self._batch_size + number]
                random = np.random.Generator(np.random.Philox(key))
                each = Row(each.ids, each.is_target, augment(each.frames, self._documents.media, random))
            batch.fill(row, each)
        return batch.x, batch.y, batch.frames

    def _make_pass(self, number: int) -> npt.NDArray[np.int64]:
        """The documents of each batch of a pass, (batches, B): all of them, and some again in the last of the longest.

        Batches are filled from the shortest rows on; what does not fill one joins the next longer rows.
        """
        order = self._kept[random_permutation(len(self._kept), self._random_seed, _PASS, number)]
        of_window = np.searchsorted(self.windows, self._documents.lengths[order])
        batches, waiting = [], order[:0]
        for index in range(len(self.windows)):
            waiting = np.concatenate([waiting, order[of_window == index]])
            whole = len(waiting) // self._batch_size * self._batch_size
            batches.append(waiting[:whole])
            waiting = waiting[whole:]
        if len(waiting):
            again = np.resize(order, self._batch_size - len(waiting))
            batches.append(np.concatenate([waiting, again]))
        passed = np.concatenate(batches).reshape(-1, self._batch_size)
        return passed[random_permutation(len(passed), self._random_seed, _BATCHES, number)]


def fitting_window(length: int, windows: Sequence[int]) -> int:
    """The shortest of the ascending `windows` that holds a document of this length; if there is none, the longest."""
    return windows[min(int(np.searchsorted(windows, length)), len(windows) - 1)]


class _Rows:
    """The arrays of a batch, a document in each row; `x` is padded with the end-of-text token."""

    def __init__(self, rows: int, window: int, documents: SignalDocuments) -> None:
        self.x = np.full((rows, window), documents.end_of_text, np.int32)
        self.y = np.full((rows, window), IGNORED, np.int32)
        self.frames = np.zeros((rows, window, documents.frame_dim), np.float32)
        self._first_id = documents.first_id

    def fill(self, row: int, document: Row) -> None:
        """Writes a document into a row, which it fits."""
        ids = document.ids[:-1]
        self.x[row, : len(ids)] = ids
        self.y[row, : len(ids)] = np.where(document.is_target, document.ids, IGNORED)[1:]
        self.frames[row, : len(ids)][ids >= self._first_id] = document.frames


@dataclass(frozen=True)
class SignalWindow:
    """T positions of each of S documents.

    Attributes:
        x: (S, T) int32 input ids.
        y: (S, T) int32, the token after each of x; 0 where it is not a target.
        weight: (S, T) float32, 1 for targets, else 0.
        frames: (S, T, F) float32.
        reset_first: whether all rows begin here, with the initial state; else they continue those before.
        is_whole: whether the documents begin and end here.
    """

    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    frames: npt.NDArray[np.float32]
    reset_first: bool
    is_whole: bool


def iter_signal_windows(documents: SignalDocuments, rows: int, windows: Sequence[int]) -> Iterator[SignalWindow]:
    """Windows in which every target of every document is one exactly once, after the document's beginning.

    Args:
        documents: of the validation text.
        rows: S, documents side by side; in the last windows some rows are padding.
        windows: the possible T, ascending; longer documents continue in further windows of the last of them.
    """
    order = np.argsort(documents.lengths, kind="stable")
    for first in range(0, len(order), rows):
        numbers = order[first : first + rows]
        longest = int(documents.lengths[numbers[-1]])
        window = fitting_window(longest, windows)
        length = -(-longest // window) * window
        batch = _Rows(rows, length, documents)
        for row, number in enumerate(numbers):
            batch.fill(row, documents.row(int(number)))
        for start in range(0, length, window):
            part = slice(start, start + window)
            y = batch.y[:, part]
            yield SignalWindow(
                x=batch.x[:, part],
                y=np.maximum(y, 0),
                weight=(y != IGNORED).astype(np.float32),
                frames=batch.frames[:, part],
                reset_first=start == 0,
                is_whole=length == window,
            )
