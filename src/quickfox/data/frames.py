"""The frames of the signals of a text beside its token ids, and documents as rows of batches.

Frame i belongs to the i-th of the ids that stand for frames (see `models/inputs.py`). Independent of files of signals.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from quickfox.config.media import NUM_BORDERS, MediaConfig
from quickfox.data.token_file import TokenFile, TokenSource
from quickfox.media.features import scale_frames

_CHUNK_LENGTH = 2**20


@dataclass(frozen=True, eq=False)
class FrameSource:
    """The frames of a text, in memory or in a file.

    Attributes:
        values: (n * F,) float16, not scaled.
        media: how they were made.
        first_id: the lowest of the ids that stand for frames.
        end_of_text: the token that ends documents.
    """

    values: TokenSource
    media: MediaConfig
    first_id: int
    end_of_text: int

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """The frames `start` to `stop`, scaled: (stop - start, F)."""
        size = self.media.frame_dim
        values = self.values[start * size : stop * size]
        return scale_frames(values.reshape(-1, size), self.media)

    def part(self, start: int, stop: int) -> "FrameSource":
        """A view of the frames `start` to `stop`."""
        first, last = start * self.media.frame_dim, stop * self.media.frame_dim
        values = self.values.part(first, last) if isinstance(self.values, TokenFile) else self.values[first:last]
        return FrameSource(values, self.media, self.first_id, self.end_of_text)

    def count(self, ids: TokenSource, stop: int | None = None) -> int:
        """How many of the first `stop` ids stand for frames; None: of all."""
        stop = len(ids) if stop is None else stop
        starts = range(0, stop, _CHUNK_LENGTH)
        chunks = (ids[start : min(start + _CHUNK_LENGTH, stop)] for start in starts)
        return sum(int(np.count_nonzero(chunk >= self.first_id)) for chunk in chunks)


def first_frame_id(vocabulary_size: int) -> int:
    """The id of the first kind of frames."""
    return vocabulary_size + NUM_BORDERS


@dataclass(frozen=True, eq=False)
class Row:
    """A document with the end-of-text token before it, as a row of a batch.

    Attributes:
        ids: (n + 1,) integers.
        is_target: (n + 1,) bool.
        frames: (number of frame ids, F) float32, scaled.
    """

    ids: npt.NDArray[np.int64]
    is_target: npt.NDArray[np.bool_]
    frames: npt.NDArray[np.float32]


class SignalDocuments:
    """The documents of a text with signals, in its order.

    Args:
        ids: (n,) the input ids of the text; each document ends with the end-of-text token.
        loss_mask: (n,) bool, whether each is a target.
        frames: of its signals.
    """

    def __init__(self, ids: TokenSource, loss_mask: TokenSource, frames: FrameSource) -> None:
        self._ids, self._loss_mask, self._frames = ids, loss_mask, frames
        self.end_of_text = frames.end_of_text
        """The token that ends documents."""
        starts, frame_starts, num_frames = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)], 0
        for first in range(0, len(ids), _CHUNK_LENGTH):
            chunk = ids[first : first + _CHUNK_LENGTH]
            ends = np.flatnonzero(chunk == self.end_of_text)
            counts = np.cumsum(chunk >= frames.first_id)
            starts.append(first + ends + 1)
            frame_starts.append(num_frames + counts[ends])
            num_frames += int(counts[-1]) if len(counts) else 0
        all_starts, all_frames = np.concatenate(starts), np.concatenate(frame_starts)
        kept = np.flatnonzero(np.diff(all_starts) > 1)  # not the end-of-text token before a held-out text
        self._starts, self._stops = all_starts[kept], all_starts[kept + 1]
        self._frame_starts, self._frame_stops = all_frames[kept], all_frames[kept + 1]

    def __len__(self) -> int:
        return len(self._starts)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of ids of each document, its end included: (documents,)."""
        return self._stops - self._starts

    @property
    def frame_dim(self) -> int:
        """F, numbers in a frame."""
        return self._frames.media.frame_dim

    @property
    def media(self) -> MediaConfig:
        """How the frames were made."""
        return self._frames.media

    @property
    def first_id(self) -> int:
        """The lowest of the ids that stand for frames."""
        return self._frames.first_id

    def row(self, number: int) -> Row:
        """A document."""
        start, stop = int(self._starts[number]), int(self._stops[number])
        ids = np.concatenate([[self.end_of_text], self._ids[start:stop]]).astype(np.int64)
        mask = np.concatenate([[False], self._loss_mask[start:stop]])
        frames = self._frames.read(int(self._frame_starts[number]), int(self._frame_stops[number]))
        return Row(ids, mask, frames)
