"""Frames against direct definitions."""

import dataclasses
import math

import numpy as np
import pytest

from quickfox.config.media import AudioConfig, ImageConfig
from quickfox.errors import UsageError
from quickfox.media.augmentation import augment, shift, transform
from quickfox.media.features import (
    LOG_FLOOR,
    from_patches,
    log_mel,
    picture_frames,
    resample,
    scale_frames,
    scale_picture,
    sound_frames,
    to_patches,
)
from signal_files import tone

BANDS = 40
SOUND = AudioConfig(stacked=4, mean=(0.0,) * BANDS, deviation=(1.0,) * BANDS)
PICTURE = ImageConfig(height=6, width=4, channels=3, patch_size=2, mean=(0.5, 0.25, 0.0), deviation=(1.0, 2.0, 4.0))


def test_log_mel_is_its_definition() -> None:
    samples = np.random.default_rng(1).normal(scale=0.1, size=900).astype(np.float32)
    expected = np.zeros((4, BANDS))
    edges = [700 * (10 ** (k / 41 * math.log10(1 + 8000 / 700)) - 1) for k in range(42)]
    for number in range(4):
        window = [samples[160 * number + n] * (0.5 - 0.5 * math.cos(2 * math.pi * n / 400)) for n in range(400)]
        n = np.arange(400)
        for bin_number in range(257):
            value = np.sum(window * np.exp(-2j * np.pi * bin_number * n / 512))
            frequency = bin_number * 16000 / 512
            for band in range(BANDS):
                low, middle, high = edges[band : band + 3]
                rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
                expected[number, band] += abs(value) ** 2 * max(0, min(rising, falling))
    np.testing.assert_allclose(log_mel(samples, SOUND), np.log(expected + LOG_FLOOR), atol=1e-3)


def test_a_tone_is_loudest_in_the_band_of_its_frequency() -> None:
    points = 700 * (10 ** (np.linspace(0, 2595 * math.log10(1 + 8000 / 700), 42) / 2595) - 1)
    for frequency in (300.0, 1000.0, 4000.0):
        band = log_mel(tone(frequency, 0.1), SOUND).mean(axis=0).argmax()
        assert points[band] < frequency < points[band + 2]


def test_frames_of_a_sound_stack_four_windows_and_the_last_one_repeats() -> None:
    samples = tone(440, 0.075)  # 6 windows
    energies, frames = log_mel(samples, SOUND), sound_frames(samples, SOUND)
    assert (energies.shape, frames.shape) == ((6, BANDS), (2, 4 * BANDS))
    np.testing.assert_allclose(frames[0], energies[:4].reshape(-1), atol=0.01)
    np.testing.assert_allclose(frames[1], np.concatenate([energies[4], *[energies[5]] * 3]), atol=0.01)


def test_one_sample_is_one_frame() -> None:
    assert sound_frames(np.ones(1, np.float32), SOUND).shape == (1, 4 * BANDS)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_a_resampled_tone_is_the_tone_at_the_other_rate(rate: int) -> None:
    resampled, expected = resample(tone(700, 0.2, rate), rate, 16000), tone(700, 0.2)
    assert len(resampled) == pytest.approx(len(expected), abs=1)
    inner = slice(400, 2800)
    np.testing.assert_allclose(resampled[inner], expected[inner], atol=2e-3)


def test_resampling_removes_frequencies_that_the_new_rate_cannot_hold() -> None:
    assert np.abs(resample(tone(12000, 0.2, 48000), 48000, 16000))[400:2800].max() < 0.01


def test_patches_are_squares_row_by_row() -> None:
    pixels = np.arange(6 * 4 * 3, dtype=np.float32).reshape(6, 4, 3)
    patches = to_patches(pixels, 2)
    assert patches.shape == (6, 12)
    np.testing.assert_array_equal(patches[3], pixels[2:4, 2:4].reshape(-1))
    np.testing.assert_array_equal(from_patches(patches, PICTURE), pixels)


def test_patches_of_a_wide_picture_are_squares_column_by_column() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    patches = to_patches(pixels, 2)
    np.testing.assert_array_equal(patches[1], pixels[2:4, :2].reshape(-1))
    np.testing.assert_array_equal(patches[4], pixels[:2, 4:].reshape(-1))
    wide = dataclasses.replace(PICTURE, height=4, width=6)
    np.testing.assert_array_equal(from_patches(patches, wide), pixels)


def test_a_picture_is_fitted_and_black_is_added() -> None:
    frames = picture_frames(np.ones((2, 4, 3), np.float32), PICTURE)
    pixels = from_patches(frames.astype(np.float32), PICTURE)
    np.testing.assert_allclose(pixels[:2], 1)
    np.testing.assert_allclose(pixels[2:], 0)


def test_grey_pictures_have_three_equal_channels_in_a_model_of_colors() -> None:
    frames = picture_frames(np.full((6, 4, 1), 0.5, np.float32), PICTURE)
    np.testing.assert_allclose(frames, 0.5)


@pytest.mark.parametrize(("height", "width"), [(3, 5), (40, 12), (1, 1)])
def test_a_scaled_picture_keeps_its_mean_color(height: int, width: int) -> None:
    pixels = np.full((10, 8, 3), 0.3, np.float32)
    np.testing.assert_allclose(scale_picture(pixels, height, width), np.full((height, width, 3), 0.3), atol=1e-6)


def test_halving_averages_the_neighborhood() -> None:
    columns = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.float32).reshape(1, 8, 1)
    weights = np.array([0.25, 0.75, 0.75, 0.25]) / 2  # of the pixels around the center of pixel 1: 2.5
    np.testing.assert_allclose(scale_picture(columns, 1, 4)[0, 1, 0], weights @ columns[0, 1:5, 0], atol=1e-6)


def test_scaling_is_by_channel_in_every_pixel_of_a_patch() -> None:
    frames = np.tile(np.array([0.5, 0.25, 4.0], np.float16), 4)[np.newaxis]
    np.testing.assert_allclose(scale_frames(frames, PICTURE), np.tile([0.0, 0.0, 1.0], 4)[np.newaxis])


def test_augmentation_depends_on_the_generator_alone_and_keeps_the_shape() -> None:
    for media, count in ((SOUND, 10), (PICTURE, 6)):
        frames = np.random.default_rng(2).normal(size=(count, media.frame_dim)).astype(np.float32)
        before = frames.copy()
        first, again, other = (augment(frames, media, np.random.default_rng(seed)) for seed in (5, 5, 6))
        np.testing.assert_array_equal(frames, before)
        np.testing.assert_array_equal(first, again)
        assert first.shape == frames.shape
        assert not np.array_equal(first, other)


def test_a_shift_repeats_the_edge() -> None:
    np.testing.assert_array_equal(shift(np.arange(5), 2, 0), [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(shift(np.arange(5), -1, 0), [1, 2, 3, 4, 4])


def test_a_picture_is_moved_and_turned() -> None:
    pixels = np.random.default_rng(3).random((5, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(transform(pixels, np.eye(2), np.zeros(2)), pixels, atol=1e-6)
    moved = transform(pixels, np.eye(2), np.array([0.5, 0.0]))
    np.testing.assert_allclose(moved[:4], (pixels[:4] + pixels[1:]) / 2, atol=1e-6)
    np.testing.assert_allclose(moved[4], pixels[4], atol=1e-6)
    quarter = transform(pixels, np.array([[0.0, 1.0], [-1.0, 0.0]]), np.zeros(2))
    np.testing.assert_allclose(quarter, np.rot90(pixels, 1), atol=1e-6)


def test_configurations_are_checked() -> None:
    with pytest.raises(UsageError, match="multiple of patch_size 2"):
        ImageConfig(height=5, width=4, channels=1, patch_size=2, mean=(0.0,), deviation=(1.0,))
    with pytest.raises(UsageError, match="40 numbers"):
        AudioConfig(mean=(0.0,), deviation=(1.0,))
    with pytest.raises(UsageError, match="positive"):
        ImageConfig(height=4, width=4, channels=1, patch_size=2, mean=(0.0,), deviation=(0.0,))
