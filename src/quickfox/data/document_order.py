"""The order in which the documents of a text are read in training: a new permutation in each pass.

A pass is a pure function of (random seed, number of the pass). Of each document only its position in the text is in
memory; of many documents, groups of neighbors are permuted (see `dataset.find_documents`), so that memory does not
depend on their number. Independent of what the tokens are.
"""

import threading
from bisect import bisect_right
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]

MAX_UNITS = 2**21
"""Maximum number of documents, or groups of neighboring ones, that are permuted: 80 MB of memory."""

_SPLIT, _PASS, _PHASE = 0, 1, 2  # what random numbers are for
_CACHED_PASSES = 3  # streams of a batch are in two of them, and the batches that are read ahead in the next


def random_permutation(length: int, random_seed: int, *key: int) -> Positions:
    """A permutation of 0 ... length - 1 that no version of NumPy changes: a function of the arguments, all >= 0."""
    bits = np.random.Philox(np.random.SeedSequence(random_seed, spawn_key=key))
    return np.argsort(bits.random_raw(length), kind="stable")


def held_out_documents(documents: int, training_documents: int, random_seed: int) -> npt.NDArray[np.bool_]:
    """Whether each of `documents` documents is held out, so that `training_documents` of them are not."""
    is_held_out = np.ones(documents, bool)
    is_held_out[random_permutation(documents, random_seed, _SPLIT)[:training_documents]] = False
    return is_held_out


class Permutation:
    """The documents of a text of n tokens in another order.

    Args:
        starts: (N + 1,) the position of the first token of each document in the text, and n.
        order: (N,) the numbers of the documents in their new order.
    """

    def __init__(self, starts: Positions, order: Positions) -> None:
        self._starts, self._order = starts, order
        self._new_starts = np.zeros(len(starts), np.int64)
        np.cumsum(np.diff(starts)[order], out=self._new_starts[1:])

    def to_text(self, positions: Positions) -> Positions:
        """The position in the text of each position in the new order."""
        rank = np.searchsorted(self._new_starts, positions, side="right") - 1
        return positions - self._new_starts[rank] + self._starts[self._order[rank]]

    def from_text(self, positions: Positions) -> Positions:
        """The position in the new order of each position in the text."""
        document = np.searchsorted(self._starts, positions, side="right") - 1
        return positions - self._starts[document] + self._new_starts[self._ranks[document]]

    @cached_property
    def _ranks(self) -> Positions:
        ranks = np.empty_like(self._order)
        ranks[self._order] = np.arange(len(self._order))
        return ranks

    def align(self, positions: Positions, max_length: int) -> Positions:
        """Positions in the new order, moved back to the start of their document if it is not above `max_length`."""
        rank = np.searchsorted(self._new_starts, positions, side="right") - 1
        starts, ends = self._new_starts[rank], self._new_starts[rank + 1]
        return np.where(ends - starts <= max_length, starts, positions)


class DocumentOrder:
    """The passes over the documents of a text.

    Args:
        starts: (N + 1,) the position of the first token of each document, from 0 on, and the length of the text.
        random_seed: determines all passes; >= 0.
    """

    def __init__(self, starts: Positions, random_seed: int) -> None:
        self._starts = starts
        self.random_seed = random_seed
        self.permutation = lru_cache(_CACHED_PASSES)(self._permutation)
        """The permutation of a pass, by its number, >= 0."""

    @cached_property
    def first(self) -> Permutation:
        """The permutation of pass 0."""
        return self.permutation(0)

    @property
    def num_tokens(self) -> int:
        """n, the length of the text."""
        return int(self._starts[-1])

    def _permutation(self, number: int) -> Permutation:
        order = random_permutation(len(self._starts) - 1, self.random_seed, _PASS, number)
        return Permutation(self._starts, order)


class DocumentStreams:
    """The streams of a batch over a text of n tokens whose documents are read in a new order in each pass.

    A pass is divided into B parts of about n / B tokens; stream b reads part b of pass 0, then part b of pass 1, and so
    on. So in n / (B T) steps of T tokens the streams have read the text once. Parts begin at the start of a document
    unless that document is longer than half a part. If a part is shorter than T, a stream reads enough parts of each
    pass, from its own on, to fill a step.

    Args:
        order: of the documents.
        batch_size: B.
        window: T.
    """

    def __init__(self, order: DocumentOrder, batch_size: int, window: int) -> None:
        self._order = order
        self._batch_size = batch_size
        self._parts = min(batch_size, -(-window * batch_size // order.num_tokens))  # that a stream reads of a pass
        # Of each pass: (B,) the position of each stream's first token in its order, and how many tokens the stream has
        # read after it; the smallest and the largest of these numbers.
        self._begins: list[Positions] = []
        self._ends: list[Positions] = []
        self._min_ends: list[int] = []
        self._max_ends: list[int] = []
        self._lock = threading.Lock()  # several threads read batches

    def positions(self, first: int, length: int, rows: slice) -> Positions:
        """The position in the text of the tokens `first` to `first + length` of the streams `rows`: (rows, length).

        What a stream has read before its token 0, of a negative number, is what precedes it in pass 0.
        """
        offsets = np.arange(first, first + length)
        with self._lock:
            while not self._min_ends or self._min_ends[-1] <= offsets[-1]:
                self._append_pass()
        first_pass = bisect_right(self._max_ends, first)  # no stream has read it before
        last_pass = bisect_right(self._min_ends, first + length - 1)
        positions = np.empty((len(range(self._batch_size)[rows]), length), np.int64)
        for number in range(first_pass, last_pass + 1):
            end = self._ends[number][rows, None]
            start = self._ends[number - 1][rows, None] if number else np.full_like(end, np.iinfo(np.int64).min)
            is_here = (start <= offsets) & (offsets < end)
            in_pass = self._begins[number][rows, None] + offsets - (start if number else 0)
            to_text = self._order.permutation(number).to_text
            positions[is_here] = to_text(in_pass[is_here] % self._order.num_tokens)
        return positions

    def _append_pass(self) -> None:
        n, batch_size = self._order.num_tokens, self._batch_size
        number = len(self._begins)
        seeds = np.random.SeedSequence(self._order.random_seed, spawn_key=(_PHASE, number))
        phase = int(seeds.generate_state(1, np.uint64)[0]) % n  # so that long documents are divided elsewhere
        nominal = (phase + np.arange(batch_size) * n // batch_size) % n
        begins = self._order.permutation(number).align(nominal, n // (2 * batch_size))
        lengths = (np.roll(begins, -self._parts) - begins) % n
        lengths[lengths == 0] = n  # a whole pass
        ends = lengths if number == 0 else self._ends[-1] + lengths
        self._begins.append(begins)
        self._ends.append(ends)
        self._min_ends.append(int(ends.min()))
        self._max_ends.append(int(ends.max()))
