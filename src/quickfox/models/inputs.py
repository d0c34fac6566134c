"""The inputs of a network as the rows of one table: the embeddings of the tokens, then the frames of signals.

A network without signals has the embeddings alone, and its input ids are token ids. Those of one that reads signals go
on above its vocabulary of V tokens: V is the begin of a signal, V + 1 its end, and V + 2 + p a frame of kind p. In
training the numbers of the frames come beside the ids. A model in NumPy is built with the frames it will read:
V + 2 + i is frame i of them, so that no other code knows of frames.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quickfox.config.media import NUM_BORDERS
from quickfox.config.model import ModelConfig
from quickfox.models.parameters import EMBEDDING, MEDIA_EMBEDDING, MEDIA_KERNEL


class Frames(NamedTuple):
    """The frames of one or more signals.

    Attributes:
        values: (n, F) float32, scaled.
        kinds: (n,) integers from 0 to P - 1, the kind of each frame.
    """

    values: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int64]


def input_table(
    config: ModelConfig, parameters: Mapping[str, np.ndarray], frames: Frames | None
) -> npt.NDArray[np.float32]:
    """The input of the network at each input id: (V, D) float32, or (V + 2 + n, D) with n frames.

    Args:
        config: of the model.
        parameters: of its network.
        frames: those that the model will read; None: none.
    """
    embedding: npt.NDArray[np.float32] = parameters[EMBEDDING]
    if config.media is None:
        return embedding
    borders, kinds = np.split(parameters[MEDIA_EMBEDDING], [NUM_BORDERS])
    rows = [embedding, borders]
    if frames is not None:
        rows.append(frames.values @ parameters[MEDIA_KERNEL] + kinds[frames.kinds])
    return np.concatenate(rows)


def collect_frames(
    texts: Sequence[tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.float32]]], first_id: int
) -> tuple[Frames, list[npt.NDArray[np.int64]]]:
    """The frames of several texts for one model, and the input ids of the texts in that model.

    Args:
        texts: of each the input ids (n,), in which frames have the ids of their kinds, and the frames (m, F), scaled.
        first_id: the id of the first kind of frames.
    """
    read, kinds, start = [], [], first_id
    for ids, values in texts:
        is_frame = ids >= first_id
        renumbered = ids.astype(np.int64)
        renumbered[is_frame] = start + np.arange(len(values))
        start += len(values)
        read.append(renumbered)
        kinds.append(ids[is_frame].astype(np.int64) - first_id)
    return Frames(np.concatenate([values for _, values in texts]), np.concatenate(kinds)), read
