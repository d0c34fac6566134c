"""Training batches and validation windows from token ids.

Works on any array or file of token ids; independent of text and networks. Every batch is a pure function of (random
seed, step), so the data cursor of a run is one integer and resuming needs no replay.

Training is truncated back-propagation through time (Williams & Peng 1990): a batch has B streams of text, each
advances T tokens per step, and its recurrent state is carried from one step to the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quickfox.config.training import TrainingConfig
from quickfox.data.dataset import IGNORED, Tokens
from quickfox.data.document_order import DocumentOrder, DocumentStreams
from quickfox.data.signal_batches import SignalBatches
from quickfox.data.token_file import TokenSource, gather
from quickfox.errors import DataError

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


class StreamBatches:
    """Training batches over a text of n tokens: documents in changing orders, or a plain text as a ring.

    For documents see `DocumentStreams`. In a plain text, stream b (a row of the batch) is at each step at token
    (phase + b * (n // B) + step * T) mod n. It continues from the end of the text at its start, and its state is never
    reset here. After n / T steps every stream has read the whole text; in n / (B * T) steps, an epoch, the B streams
    have read it once. The random seed determines the phase.

    Attributes:
        window: T.

    Args:
        ids: (n,) token ids of the training text, n > window.
        batch_size: B, number of streams.
        window: T, tokens per stream and step.
        random_seed: determines the phase; >= 0.
        loss_mask: (n,) bool, whether each token is a training target; None: all are.
        rows: the rows of each batch to return.
        documents: the order of the documents; None: a plain text.

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
        documents: DocumentOrder | None = None,
    ) -> None:
        n = len(ids)
        if n < window + 1:
            raise DataError(
                f"the training text has {n:,} tokens, but a window of {window:,} needs at least {window + 1:,}: "
                f"add text or choose a shorter window"
            )
        self._ids = ids
        self._loss_mask = loss_mask
        self.window = window
        self._batch_size = batch_size
        # The output of SeedSequence never changes between NumPy versions; that of a Generator may.
        phase = int(np.random.SeedSequence(random_seed).generate_state(1, np.uint64)[0]) % n
        stream_starts = phase + np.arange(batch_size, dtype=np.int64) * (n // batch_size)  # (B,)
        self._stream_starts = stream_starts[rows]
        self._rows = rows
        self._documents = None if documents is None else DocumentStreams(documents, batch_size, window)

    @property
    def windows(self) -> list[int]:
        """The lengths of windows, of which there is one."""
        return [self.window]

    @property
    def steps_per_epoch(self) -> float:
        """Steps whose batches contain as many tokens as the text."""
        return len(self._ids) / (self._batch_size * self.window)

    @property
    def num_rows(self) -> int:
        """The number of `rows`."""
        return len(self._stream_starts)

    def positions(self, step: int, num_context: int = 0) -> Int64Array:
        """The positions in the text of the tokens of a step.

        Args:
            step: see `batch`.
            num_context: number of tokens before the inputs whose positions are returned too.

        Returns:
            (B, num_context + T + 1), only `rows` of it; the last position of a row is that of a target only.
        """
        first, length = step * self.window - num_context, num_context + self.window + 1
        if self._documents is not None:
            return self._documents.positions(first, length, self._rows)
        n = len(self._ids)
        advance = first % n  # a Python integer, which cannot overflow
        positions: Int64Array = (self._stream_starts[:, None] + (advance + np.arange(length))) % n
        return positions

    def batch(self, step: int) -> tuple[Int32Array, Int32Array]:
        """Inputs and targets of a step.

        Args:
            step: number of optimizer steps before this one, >= 0.

        Returns:
            x: (B, T) int32 token ids, only `rows` of it; each row continues that row of the step before.
            y: (B, T) int32, the token after each of x, or IGNORED.
        """
        positions = self.positions(step)
        tokens = gather(self._ids, positions).astype(np.int32)  # (B, T + 1)
        x, y = np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])
        if self._loss_mask is not None:
            y[~gather(self._loss_mask, positions)[:, 1:]] = IGNORED
        return x, y


Batches = StreamBatches | SignalBatches


def open_batches(tokens: Tokens, config: TrainingConfig, rows: slice) -> Batches:
    """The training batches over a text; `rows` and errors are those of `StreamBatches` and `SignalBatches`."""
    sizes = config.batch_size, config.window, config.random_seed
    if tokens.frames is not None:
        return SignalBatches(tokens.signal_documents, *sizes, rows, augments=not config.no_augmentation)
    return StreamBatches(tokens.ids, *sizes, tokens.loss_mask, rows, tokens.documents)


@dataclass(frozen=True)
class ValidationWindow:
    """T tokens of each of S segments of a validation text; the state is carried to the next window.

    Attributes:
        x: (S, T) int32 token ids.
        y: (S, T) int32, the token after each of x.
        weight: (S, T) float32, 1 for targets, 0 in warm-up, in padding and where the loss mask is false.
        reset_first: whether to set the state of row 0 to the initial state before this window.
    """

    x: Int32Array
    y: Int32Array
    weight: Float32Array
    reset_first: bool


def count_validation_segments(num_tokens: int, max_segments: int, warm_up: int) -> int:
    """Number of segments of `iter_validation_windows`, >= 1; none is shorter than the warm-up."""
    num_targets = num_tokens - 1
    return max(1, min(max_segments, num_targets // max(1, warm_up)))


def iter_validation_windows(
    ids: TokenSource, max_segments: int, window: int, warm_up: int, loss_mask: TokenSource | None = None
) -> Iterator[ValidationWindow]:
    """Windows over a validation text in which every token but the first is a target of weight 1 exactly once.

    The validation loss is defined by a single segment from start to end with its state carried; several segments,
    processed in parallel, compute it faster. Each segment starts `warm_up` tokens early, with weight 0, after which its
    state is very nearly the carried one. Segment 0 has no text before it: its warm-up is padding, and `reset_first`
    marks its first window.

    Args:
        ids: (n,) token ids of the validation text, n >= 2.
        max_segments: maximum number of segments; `count_validation_segments` are used.
        window: T, tokens per window.
        warm_up: tokens, a multiple of `window`; 0 is used for a single segment.
        loss_mask: (n,) bool, whether each token is a target; None: all are.

    Yields:
        Windows of the same shape, (S, T), in reading order.

    Raises:
        DataError: (at the first window) the text has fewer than two tokens.
    """
    assert warm_up % window == 0, "the warm-up must be a multiple of the window"
    num_targets = len(ids) - 1
    if num_targets < 1:
        raise DataError(f"a text of at least 2 tokens is needed to measure a loss, this one has {len(ids)}")
    segments = count_validation_segments(len(ids), max_segments, warm_up)
    if segments == 1:
        warm_up = 0
    # Input position p has the target ids[p + 1]; segment s has the positions bounds[s] <= p < bounds[s + 1].
    bounds = np.array([segment * num_targets // segments for segment in range(segments + 1)], dtype=np.int64)
    first, end = bounds[:-1, None], bounds[1:, None]  # (S, 1)
    longest = int(np.diff(bounds).max())
    for start in range(-warm_up, longest, window):
        positions = first + np.arange(start, start + window)  # (S, T)
        clipped = np.clip(positions, 0, num_targets - 1)  # padding outside the text, of weight 0
        is_target = (positions >= first) & (positions < end)
        spans = list(zip(clipped, clipped[:, 0].tolist(), (clipped[:, -1] + 2).tolist(), strict=True))
        rows = [ids[low:high][np.stack([row, row + 1]) - low] for row, low, high in spans]  # S of (2, T)
        x, y = np.stack(rows, axis=1).astype(np.int32)  # (S, T) each
        if loss_mask is not None:
            is_target &= np.stack([loss_mask[low:high][row + 1 - low] for row, low, high in spans])
        yield ValidationWindow(x=x, y=y, weight=is_target.astype(np.float32), reset_first=start == 0)
