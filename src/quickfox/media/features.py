"""Signals as frames: log-mel energies of sound and patches of pictures, as pure functions of arrays.

The frames of a sound are those of speech recognition since Davis & Mermelstein 1980: the logarithm of the energy in
bands that are equally wide on the mel scale (O'Shaughnessy 1987, m = 2595 log10(1 + f / 700)), of overlapping windows.
Consecutive windows are stacked to one frame, so that a network reads fewer positions (Sak et al. 2015, "Fast and
accurate recurrent neural network acoustic models"). The frames of a picture are its square patches
(Dosovitskiy et al. 2021, "An image is worth 16x16 words").

Independent of files and models.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from quickfox.config.media import AudioConfig, ImageConfig, MediaConfig

Array = npt.NDArray[np.float32]
Frames = npt.NDArray[np.float16]
"""(n, F): frames before they are scaled to mean 0 and deviation 1; float16, as they are kept in files."""

LOG_FLOOR = 1e-6
"""Added to an energy before its logarithm; that of 16-bit sound at full scale is about 1 to 1000."""

_SINC_ZEROS = 12  # of the interpolation kernel on each side, at the lower of the two rates
_RESAMPLED = 2**14  # samples computed at a time


def sound_frames(samples: Array, media: AudioConfig) -> Frames:
    """The frames of a sound: (n samples,) from -1 to 1 at `media.sample_rate`, n >= 1 -> (frames, F)."""
    energies = log_mel(samples, media)
    missing = -len(energies) % media.stacked
    padded = np.pad(energies, ((0, missing), (0, 0)), mode="edge")
    return padded.reshape(-1, media.frame_dim).astype(np.float16)


def log_mel(samples: Array, media: AudioConfig) -> Array:
    """The logarithms of the mel band energies of each window: (n,) -> (windows, bands).

    The windows lie within the samples; a shorter sound is followed by zeros.
    """
    size, hop = media.window_samples, media.hop_samples
    samples = np.pad(samples, (0, max(0, size - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]
    weights = np.hanning(size + 1)[:size].astype(np.float32)  # periodic
    fft_size = 2 ** math.ceil(math.log2(size))
    spectrum = np.fft.rfft(windows * weights, fft_size)  # (windows, fft_size / 2 + 1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    energies: Array = power @ mel_filters(media.sample_rate, fft_size, media.num_bands)
    logarithms: Array = np.log(energies + np.float32(LOG_FLOOR))
    return logarithms


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, fft_size: int, num_bands: int) -> Array:
    """The weight of each frequency of a spectrum in each band: (fft_size / 2 + 1, bands).

    Band b is a triangle with its top at point b + 1 of bands + 2 points that are equally spaced in mel, from 0 to half
    the sample rate.
    """
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    points = 700 * (10 ** (np.linspace(0, top, num_bands + 2) / 2595) - 1)  # Hz
    frequencies = np.arange(fft_size // 2 + 1)[:, None] * (sample_rate / fft_size)
    low, middle, high = points[:-2], points[1:-1], points[2:]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def resample(samples: Array, rate: int, new_rate: int) -> Array:
    """A sound at another rate: (n,) -> (about n new_rate / rate,).

    Interpolation by a sinc with a Hann window, which passes the frequencies below half the lower of the two rates
    (Smith & Gossett 1984, "A flexible sampling-rate conversion method").
    """
    if rate == new_rate:
        return samples
    common = math.gcd(rate, new_rate)
    up, down = new_rate // common, rate // common
    kernels, first = _resampling_kernels(up, down)  # (up, taps)
    taps = kernels.shape[1]
    length = -(-len(samples) * up // down)
    padded = np.pad(samples, (-first, taps + down))
    result = np.empty(length, np.float32)
    for start in range(0, length, _RESAMPLED):
        numbers = np.arange(start, min(start + _RESAMPLED, length))
        positions, phases = np.divmod(numbers * down, up)
        windows = np.lib.stride_tricks.sliding_window_view(padded, taps)[positions]
        result[numbers] = np.einsum("nt,nt->n", windows, kernels[phases])
    return result


@lru_cache(maxsize=4)
def _resampling_kernels(up: int, down: int) -> tuple[Array, int]:
    """The weights of the samples around each of `up` positions between two samples, and the offset of the first."""
    cutoff = min(1.0, up / down)  # as a fraction of half the old rate
    half = _SINC_ZEROS / cutoff  # samples
    first = -math.ceil(half)
    offsets = np.arange(first, math.ceil(half) + 2)  # of the samples
    distance = offsets - np.arange(up)[:, None] / up  # (up, taps)
    window = np.where(np.abs(distance) < half, 0.5 + 0.5 * np.cos(np.pi * distance / half), 0)
    kernels = cutoff * np.sinc(cutoff * distance) * window
    return (kernels / kernels.sum(axis=1, keepdims=True)).astype(np.float32), first


def picture_frames(picture: Array, media: ImageConfig) -> Frames:
    """The patches of a picture: (height, width, 1 or 3) from 0 to 1, of any size -> (patches, F).

    The picture is scaled to the largest size within `media.height` and `media.width` that keeps its proportions, and
    black is added at the right or the bottom.
    """
    picture = _convert_channels(picture, media.channels)
    height, width = picture.shape[:2]
    scale = min(media.height / height, media.width / width)
    scaled = scale_picture(picture, *(max(1, round(side * scale)) for side in (height, width)))
    fitted = np.zeros((media.height, media.width, media.channels), np.float32)
    fitted[: scaled.shape[0], : scaled.shape[1]] = scaled
    return to_patches(fitted, media.patch_size).astype(np.float16)


def scale_picture(picture: Array, height: int, width: int) -> Array:
    """A picture (h, w, C) at another size, by means of the pixels around each, weighted by a triangle."""
    if picture.shape[:2] == (height, width):
        return picture
    rows, columns = _scaling_weights(picture.shape[0], height), _scaling_weights(picture.shape[1], width)
    scaled = np.einsum("Hh,hwc->Hwc", rows, picture, optimize=True)
    result: Array = np.einsum("Ww,Hwc->HWc", columns, scaled, optimize=True)
    return result


@lru_cache(maxsize=64)
def _scaling_weights(size: int, new_size: int) -> Array:
    """The weight of each of `size` pixels in each of `new_size`: (new_size, size)."""
    if size == new_size:
        return np.eye(size, dtype=np.float32)
    step = size / new_size
    centers = (np.arange(new_size) + 0.5) * step - 0.5
    distance = np.abs(np.arange(size) - centers[:, None]) / max(1.0, step)
    weights = np.maximum(0, 1 - distance).astype(np.float32)
    normalized: Array = weights / weights.sum(axis=1, keepdims=True)
    return normalized


def to_patches(picture: Array, patch_size: int) -> Array:
    """(height, width, C), multiples of the patch size -> (patches, patch_size ** 2 * C).

    Along the shorter side first, so that few frames are between neighbors: column by column if the picture is wider
    than high, or else row by row.
    """
    height, width, channels = picture.shape
    blocks = picture.reshape(height // patch_size, patch_size, width // patch_size, patch_size, channels)
    order = (2, 0, 1, 3, 4) if width > height else (0, 2, 1, 3, 4)
    return blocks.transpose(order).reshape(-1, patch_size**2 * channels)


def from_patches(patches: Array, media: ImageConfig) -> Array:
    """The inverse of `to_patches`."""
    size, rows, columns = media.patch_size, media.height // media.patch_size, media.width // media.patch_size
    if media.width > media.height:
        blocks = patches.reshape(columns, rows, size, size, media.channels).transpose(1, 2, 0, 3, 4)
    else:
        blocks = patches.reshape(rows, columns, size, size, media.channels).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(media.height, media.width, media.channels)


def _convert_channels(picture: Array, channels: int) -> Array:
    if picture.shape[2] == channels:
        return picture
    if channels == 3:
        return np.repeat(picture, 3, axis=2)
    grey: Array = picture @ np.array([[0.299], [0.587], [0.114]], np.float32)  # ITU-R BT.601
    return grey


def scale_frames(frames: Frames, media: MediaConfig) -> Array:
    """The numbers that a network reads: (n, F) with mean 0 and deviation 1 in the training set."""
    values = frames.astype(np.float32).reshape(len(frames), -1, len(media.mean))
    mean, deviation = (np.array(values, np.float32) for values in (media.mean, media.deviation))
    return ((values - mean) / deviation).reshape(frames.shape)
