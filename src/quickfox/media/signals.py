"""The signals of documents as frames: read their files, and choose from a training set how they are read.

Also the signals that a Python program has as arrays. Independent of tokens and models.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quickfox.config.media import KIND_NAMES, AudioConfig, ImageConfig, MediaConfig, MediaKind
from quickfox.errors import DataError, QuickfoxError, UsageError
from quickfox.media.features import Array, Frames, picture_frames, resample, sound_frames
from quickfox.media.pictures import check_picture, parse_picture
from quickfox.media.sound import check_sound, parse_sound
from quickfox.system.threads import available_threads, map_ahead
from quickfox.text.documents import Document, Signal
from quickfox.text.sources import CHUNK_BYTES, FileSource, Source, display_name

MAX_BYTES = 2**27
"""A larger file of a signal is refused."""

DEFAULT_MAX_SIDE = 64
"""Pixels of a side to which larger pictures are scaled."""

_PATCH_SIZE, _SMALL_PATCH_SIZE, _SMALL_SIDE = 4, 2, 16  # pictures of at most 16 pixels have the small patches
_INSPECTED = 256  # pictures whose sizes and colors determine how all are read
_MIN_DEVIATION = 0.05


class Sound(NamedTuple):
    """A decoded sound: samples (n,) from -1 to 1, and their rate in Hz."""

    samples: Array
    rate: int


Decoded = Sound | Array
"""A sound, or the pixels (height, width, 1 or 3) from 0 to 1 of a picture."""

SignalInput = str | PathLike[str] | Source | tuple[npt.ArrayLike, int] | npt.ArrayLike
"""A signal of a Python program: a file; or (samples, rate) of a sound, or pixels of a picture."""


def read_signal(signal: Signal) -> Decoded:
    """The decoded file of a signal.

    Raises:
        NoInputError, StorageError: there is no such file, or reading failed.
        DataError: not a sound or a picture, damaged, or outside the limits.
        UnavailableError: a package that reads its format is not installed.
    """
    prefix = f"{signal.where}: " if signal.where else ""
    name = display_name(signal.source.name)
    try:
        data = _read_bytes(signal.source)
    except QuickfoxError as error:
        raise type(error)(f"{prefix}{error}") from None
    try:
        return Sound(*parse_sound(data)) if signal.kind == "audio" else parse_picture(data)
    except QuickfoxError as error:
        raise type(error)(f"{prefix}{name}: {error}") from None


def _read_bytes(source: Source) -> bytes:
    parts, size = [], 0
    for chunk in source.iter_bytes(CHUNK_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise DataError(f"{display_name(source.name)}: larger than the limit of {MAX_BYTES:,} bytes")
    return b"".join(parts)


def to_frames(decoded: Decoded, media: MediaConfig) -> Frames:
    """The frames of a decoded signal, whose kind is that of `media`."""
    if isinstance(media, AudioConfig):
        assert isinstance(decoded, Sound)
        return sound_frames(resample(decoded.samples, decoded.rate, media.sample_rate), media)
    assert not isinstance(decoded, Sound)
    return picture_frames(decoded, media)


def frame_kinds(count: int, media: MediaConfig) -> npt.NDArray[np.int64]:
    """The kind of each of the `count` frames of a signal, (count,): the place of a patch, 0 for sound."""
    return np.arange(count) % media.num_positions


def read_frames(signal: Signal, media: MediaConfig | None) -> Frames:
    """The frames of a signal; raises as `read_signal`, and DataError if the model does not read its kind."""
    if media is None or media.kind != signal.kind:
        reads = "text only" if media is None else KIND_NAMES[media.kind]
        raise DataError(f"{signal.where}: names {KIND_NAMES[signal.kind]}, and the model reads {reads}")
    return to_frames(read_signal(signal), media)


def iter_frames(documents: Iterable[Document], media: MediaConfig | None) -> Iterator[tuple[Document, Frames | None]]:
    """Each document with the frames of its signal, read ahead on several threads; None: it has none."""

    def read(document: Document) -> tuple[Document, Frames | None]:
        return document, None if document.signal is None else read_frames(document.signal, media)

    if media is None:  # a document with a signal is an error
        yield from map(read, documents)
    else:
        yield from map_ahead(read, documents, available_threads())


def decode_input(value: SignalInput, kind: MediaKind) -> Decoded:
    """The decoded signal of a Python program.

    Args:
        value: a file name or `Source`; of a sound (samples, rate) with samples (n,) or (n, channels), int16, int32 or
            floats from -1 to 1; of a picture pixels (height, width) or (height, width, 1, 3 or 4), integers from 0 to
            255, uint16 from 0 to 65535 or floats from 0 to 1.
        kind: what it is.

    Raises:
        QuickfoxError: as `read_signal`; UsageError for an array of another shape or type.
    """
    if isinstance(value, Source):
        return read_signal(Signal(kind, value, ""))
    if isinstance(value, str | PathLike):
        return read_signal(Signal(kind, FileSource(Path(fspath(value))), ""))
    if kind == "audio":
        if not isinstance(value, tuple) or len(value) != 2:
            raise UsageError("audio must be a file name or (samples, rate)", "audio")
        samples = _to_floats(value[0], "audio")
        samples = samples[:, np.newaxis] if samples.ndim == 1 else samples
        if samples.ndim != 2:
            raise UsageError(f"audio must have 1 or 2 dimensions, not {samples.ndim}", "audio")
        check_sound(int(value[1]), samples.shape)
        return Sound(np.clip(samples.mean(axis=1), -1, 1), int(value[1]))
    pixels = _to_floats(value, "image")
    pixels = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise UsageError(f"image must be (height, width) or (height, width, 1, 3 or 4), not {pixels.shape}", "image")
    check_picture(*pixels.shape[:2])
    if pixels.shape[2] == 4:
        pixels = pixels[:, :, :3] * pixels[:, :, 3:] + (1 - pixels[:, :, 3:])
    return np.clip(pixels, 0, 1)


def _to_floats(value: Any, name: MediaKind) -> Array:
    """An array of integers, which are divided by the largest, or of finite floats."""
    array = np.asarray(value)
    if array.dtype.kind == "f" and np.isfinite(array).all():
        return array.astype(np.float32)
    if name == "audio":
        largest = np.iinfo(array.dtype).max if array.dtype in (np.int16, np.int32) else None
        expected = "int16, int32 or finite floats"
    else:
        largest = 65535 if array.dtype == np.uint16 else 255 if array.dtype.kind in "iu" else None
        expected = "integers from 0 to 255, uint16 or finite floats"
    if largest is None or (name == "image" and array.size and (array.min() < 0 or array.max() > largest)):
        raise UsageError(f"{name} must be an array of {expected}", name)
    return array.astype(np.float32) / np.float32(largest)


def choose_media(documents: Iterable[Document], kind: MediaKind) -> MediaConfig:
    """How the signals of a training set are read, without their mean and deviation, which are 0 and 1.

    The size of pictures is that of the largest of the first ones, at most DEFAULT_MAX_SIDE, and they are grey if all of
    those are.

    Raises:
        QuickfoxError: as `read_signal`, or a signal is of another kind.
    """
    if kind == "audio":
        bands = 40
        return AudioConfig(num_bands=bands, mean=(0.0,) * bands, deviation=(1.0,) * bands)
    height = width = channels = 1
    signals = (document.signal for document in documents if document.signal is not None)
    for signal, _ in zip(signals, range(_INSPECTED), strict=False):
        if signal.kind != kind:
            raise DataError(
                f"{signal.where}: names {KIND_NAMES[signal.kind]} in a corpus with {KIND_NAMES[kind]}: give one kind"
            )
        picture = read_signal(signal)
        assert not isinstance(picture, Sound)
        height, width = max(height, picture.shape[0]), max(width, picture.shape[1])
        channels = max(channels, picture.shape[2])
    scale = min(1.0, DEFAULT_MAX_SIDE / max(height, width))
    patch_size = _PATCH_SIZE if max(height, width) > _SMALL_SIDE else _SMALL_PATCH_SIZE
    height, width = (math.ceil(round(side * scale) / patch_size) * patch_size for side in (height, width))
    return ImageConfig(
        height=max(height, patch_size),
        width=max(width, patch_size),
        channels=channels,
        patch_size=patch_size,
        mean=(0.0,) * channels,
        deviation=(1.0,) * channels,
    )


class ScaleEstimate:
    """The mean and deviation of each band or channel over frames."""

    def __init__(self, media: MediaConfig) -> None:
        self._media = media
        self._count = 0
        self._sums = np.zeros((2, len(media.mean)))

    def add(self, frames: Frames) -> None:
        """Counts the frames of one signal."""
        values = frames.reshape(-1, len(self._media.mean)).astype(np.float64)
        self._count += len(values)
        self._sums += values.sum(axis=0), np.square(values).sum(axis=0)

    def scaled(self) -> MediaConfig:
        """The configuration with the mean and deviation of the frames, which are rounded, so that files are short."""
        if self._count == 0:
            return self._media
        mean = self._sums[0] / self._count
        deviation = np.sqrt(np.maximum(0, self._sums[1] / self._count - np.square(mean)))
        return dataclasses.replace(
            self._media,
            mean=tuple(np.round(mean, 4).tolist()),
            deviation=tuple(np.round(np.maximum(deviation, _MIN_DEVIATION), 4).tolist()),
        )
