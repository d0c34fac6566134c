"""Token ids in, arrays for the network out: training batches and validation windows.

Works on any array or file of token ids; knows neither text nor networks. Every batch is a
pure function of (random seed, step), so the data cursor of a run is one integer and resuming needs no replay.

Training is truncated back-propagation through time (Williams & Peng 1990): a batch is B streams of text read side
by side, T tokens a step, and the recurrent state of each stream is carried from one step to the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quickfox.data.token_file import TokenSource
from quickfox.errors import DataError

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]

IGNORED = -1
"""In place of a target that is not to be predicted."""


class StreamBatches:
    """Training batches over a text that is closed to a ring of n tokens.

    At a step, stream b (a row of the batch) stands at token (phase + b * (n // B) + step * T) mod n. It reads on
    from there for ever, over the seam from the text's end to its start, and its state is never reset. After n / T
    steps every stream has read the whole ring; together the B streams read it once in n / (B * T) steps, an epoch.
    The seed fixes the phase, and so where the seams between the streams fall.

    Args:
        ids: (n,) token ids of the training text, n > window.
        batch_size: B, streams read side by side.
        window: T, tokens each stream advances in a step.
        random_seed: fixes the phase; >= 0.
        loss_mask: (n,) bool, the tokens that are to be predicted; None: all.
        rows: which rows of each batch to give.

    Raises:
        DataError: the text is shorter than one window and its last target.
    """

    def __init__(
        self,
        ids: TokenSource,
        batch_size: int,
        window: int,
        random_seed: int,
        loss_mask: TokenSource | None = None,
        rows: slice = slice(None),
    ) -> None:
        n = len(ids)
        if n < window + 1:
            raise DataError(
                f"the training text has {n:,} tokens, but a window of {window:,} needs at least {window + 1:,}: "
                f"add text or choose a shorter window"
            )
        self._ids = ids
        self._loss_mask = loss_mask
        self._window = window
        self._batch_size = batch_size
        # SeedSequence's stream is guaranteed never to change between versions of NumPy; a Generator's may.
        phase = int(np.random.SeedSequence(random_seed).generate_state(1, np.uint64)[0]) % n
        stream_starts = phase + np.arange(batch_size, dtype=np.int64) * (n // batch_size)  # (B,)
        self._stream_starts = stream_starts[rows]

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which the batches hold as many tokens as the text."""
        return len(self._ids) / (self._batch_size * self._window)

    def batch(self, step: int) -> tuple[Int32Array, Int32Array]:
        """Inputs and targets of a step.

        Args:
            step: optimizer steps done before this one, >= 0.

        Returns:
            x: (B, T) int32 token ids, the `rows` of it; row b goes on where row b of the step before stopped.
            y: (B, T) int32, the token that follows each of x, or IGNORED.
        """
        n = len(self._ids)
        advance = step * self._window % n  # a Python integer: no step is too large
        starts = ((self._stream_starts + advance) % n).tolist()
        length = self._window + 1  # the last token of a row is only a target
        tokens = np.stack([_ring(self._ids, start, length) for start in starts]).astype(np.int32)  # (B, T + 1)
        x, y = np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])
        if self._loss_mask is not None:
            y[~np.stack([_ring(self._loss_mask, start, length)[1:] for start in starts])] = IGNORED
        return x, y


def _ring(source: TokenSource, start: int, length: int) -> npt.NDArray[Any]:
    """`length` numbers from `start` on, over the seam from the end to the start; no more than there are."""
    over = start + length - len(source)
    if over <= 0:
        return source[start : start + length]
    return np.concatenate([source[start : len(source)], source[:over]])


@dataclass(frozen=True)
class ValidationWindow:
    """One step of reading a held-out text in L lanes, T tokens at a time; carry the state to the next window.

    Attributes:
        x: (L, T) int32 token ids.
        y: (L, T) int32, the token that follows each of x.
        weight: (L, T) float32, 1 where y counts, 0 in warm-up, padding and what is not to be predicted.
        reset_first: set the state of row 0 to the initial state before reading this window.
    """

    x: Int32Array
    y: Int32Array
    weight: Float32Array
    reset_first: bool


def validation_segments(num_tokens: int, lanes: int, warm_up: int) -> int:
    """How many lanes `iter_validation_windows` reads a text in: as many of `lanes` as it is long enough for, >= 1."""
    num_targets = num_tokens - 1
    return max(1, min(lanes, num_targets // max(1, warm_up)))


def iter_validation_windows(
    ids: TokenSource, lanes: int, window: int, warm_up: int, loss_mask: TokenSource | None = None
) -> Iterator[ValidationWindow]:
    """Windows over a held-out text in which every token but the first is a target of weight 1 exactly once.

    One lane from the start to the end, its state carried, is the definition of validation loss; several lanes side
    by side compute it faster. The text is cut into L contiguous pieces, and each lane starts `warm_up` tokens before
    its piece with weight 0, by the end of which its state is (very nearly) that of the carried text. Lane 0 has no
    text before it: it reads padding in warm-up, and `reset_first` marks the window its piece starts with.

    Args:
        ids: (n,) token ids of the held-out text, n >= 2.
        lanes: lanes wanted; `validation_segments` of them are used, so that no piece is shorter than the warm-up. A
            single lane needs no warm-up and gets none.
        window: T, tokens in a window.
        warm_up: tokens, a multiple of `window`.
        loss_mask: (n,) bool, the tokens that are to be predicted; None: all.

    Yields:
        Windows of one shape, (L, T), in reading order.

    Raises:
        DataError: (at the first window) the text has no token after its first, so nothing to measure.
    """
    assert warm_up % window == 0, "the warm-up must end where a window ends"
    num_targets = len(ids) - 1
    if num_targets < 1:
        raise DataError(f"a text of at least 2 tokens is needed to measure a loss, this one has {len(ids)}")
    lanes = validation_segments(len(ids), lanes, warm_up)
    if lanes == 1:
        warm_up = 0
    # Input position p has the target ids[p + 1]; lane l owns the positions bounds[l] <= p < bounds[l + 1].
    bounds = np.array([lane * num_targets // lanes for lane in range(lanes + 1)], dtype=np.int64)
    first, end = bounds[:-1, None], bounds[1:, None]  # (L, 1)
    longest_piece = int(np.diff(bounds).max())
    for start in range(-warm_up, longest_piece, window):
        positions = first + np.arange(start, start + window)  # (L, T)
        inside = np.clip(positions, 0, num_targets - 1)  # what lies outside of the text is padding, of weight 0
        counts = (positions >= first) & (positions < end)
        places = list(zip(inside, inside[:, 0].tolist(), (inside[:, -1] + 2).tolist(), strict=True))
        rows = [ids[low:high][np.stack([row, row + 1]) - low] for row, low, high in places]  # L of (2, T)
        x, y = np.stack(rows, axis=1).astype(np.int32)
        if loss_mask is not None:
            counts &= np.stack([loss_mask[low:high][row + 1 - low] for row, low, high in places])
        yield ValidationWindow(x=x, y=y, weight=counts.astype(np.float32), reset_first=start == 0)
