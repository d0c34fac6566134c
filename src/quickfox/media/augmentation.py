"""Small random changes of signals in training, which do not change what they say.

Sound: bands of frequencies and stretches of time are replaced by the mean (Park et al. 2019, "SpecAugment"), and the
whole is shifted a little in time and in frequency, as by another voice (Jaitly & Hinton 2013, "Vocal tract length
perturbation"). Pictures are shifted, turned, scaled and sheared a little. Every change is a function of a generator;
independent of files and models.
"""

import numpy as np
import numpy.typing as npt

from quickfox.config.media import AudioConfig, ImageConfig, MediaConfig
from quickfox.media.features import Array, from_patches, to_patches

MAX_SHIFTED_BANDS = 2
MASKED_BANDS = 0.15
"""Largest fraction of the bands in one of the two masks of frequencies."""

MASKED_TIME = 0.1
"""Largest fraction of the windows in one of the two masks of time."""

SHIFTED_PIXELS = 1 / 14
"""Largest shift of a picture, as a fraction of its sides."""

LINEAR_DEVIATION = 0.08
"""Standard deviation of each number of the matrix by which the coordinates of a picture are changed."""

_MASKS = 2


def augment(frames: Array, media: MediaConfig, random: np.random.Generator) -> Array:
    """The frames of one signal, (n, F) scaled, changed at random."""
    if isinstance(media, AudioConfig):
        return _augment_sound(frames, media, random)
    return _augment_picture(frames, media, random)


def _augment_sound(frames: Array, media: AudioConfig, random: np.random.Generator) -> Array:
    windows = frames.reshape(-1, media.num_bands)  # (windows, bands)
    windows = shift(windows, int(random.integers(1 - media.stacked, media.stacked)), axis=0)
    bands = min(MAX_SHIFTED_BANDS, media.num_bands // 16)
    windows = shift(windows, int(random.integers(-bands, bands + 1)), axis=1)
    for axis, fraction in ((1, MASKED_BANDS), (0, MASKED_TIME)):
        size = windows.shape[axis]
        for _ in range(_MASKS):
            width = int(random.integers(0, int(fraction * size) + 1))
            first = int(random.integers(0, size - width + 1))
            windows[(slice(None),) * axis + (slice(first, first + width),)] = 0  # the mean
    return windows.reshape(frames.shape)


def _augment_picture(frames: Array, media: ImageConfig, random: np.random.Generator) -> Array:
    picture = from_patches(frames, media)
    matrix = np.eye(2) + random.normal(scale=LINEAR_DEVIATION, size=(2, 2))
    moved = random.uniform(-SHIFTED_PIXELS, SHIFTED_PIXELS, size=2) * picture.shape[:2]
    return to_patches(transform(picture, matrix, moved), media.patch_size)


def transform(picture: Array, matrix: npt.NDArray[np.float64], moved: npt.NDArray[np.float64]) -> Array:
    """A picture (h, w, C) whose pixel at p, from the center, is that of the picture at matrix p + moved.

    Between pixels it is interpolated linearly; outside the picture, its edge is repeated.
    """
    height, width = picture.shape[:2]
    center = np.array([height - 1, width - 1]) / 2
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    places = (np.stack([rows, columns], axis=-1) - center) @ matrix.T + moved + center  # (h, w, 2)
    places = np.clip(places, 0, [height - 1, width - 1])
    low = np.minimum(places.astype(np.int64), np.maximum([height - 2, width - 2], 0))
    row, column = np.moveaxis((places - low).astype(np.float32), -1, 0)[..., np.newaxis]
    top, left = np.moveaxis(low, -1, 0)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    upper = picture[top, left] * (1 - column) + picture[top, right] * column
    lower = picture[bottom, left] * (1 - column) + picture[bottom, right] * column
    result: Array = upper * (1 - row) + lower * row
    return result


def shift(array: Array, count: int, axis: int) -> Array:
    """A copy moved by `count` places along an axis; the places that become free repeat the edge."""
    places = np.clip(np.arange(array.shape[axis]) - count, 0, array.shape[axis] - 1)
    return array.take(places, axis)
