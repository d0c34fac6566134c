"""Configuration of sound or pictures in prompts: how a signal becomes frames, vectors of numbers that a model reads.

With its settings, the frames of a signal are a pure function of it (see the package `media`).
"""

from dataclasses import dataclass
from typing import Literal

from quickfox.config.schema import check_settings, setting
from quickfox.errors import UsageError

MediaKind = Literal["audio", "image"]

MAX_IMAGE_SIDE = 1024
MAX_BANDS = 512


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """How sound is read: its frames are the logarithms of mel band energies, a few windows of time in one frame.

    Attributes:
        sample_rate: samples per second to which the sound is converted.
        window_samples: length of the Hann windows.
        hop_samples: samples from the start of a window to the next.
        num_bands: number of mel bands.
        stacked: windows in a frame.
        mean, deviation: of each band in the training set, which are scaled to 0 and 1.

    Raises:
        UsageError: a value is outside its range.
    """

    sample_rate: int = setting(default=16000, bounds=(1000, 192000))
    window_samples: int = setting(default=400, bounds=(16, 2**16))
    hop_samples: int = setting(default=160, bounds=(1, 2**16))
    num_bands: int = setting(default=40, bounds=(1, MAX_BANDS))
    stacked: int = setting(default=8, bounds=(1, 64))
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        check_settings(self)
        _check_scale(self.mean, self.deviation, self.num_bands)

    @property
    def kind(self) -> MediaKind:
        return "audio"

    @property
    def frame_dim(self) -> int:
        """F, numbers in a frame."""
        return self.num_bands * self.stacked

    @property
    def num_positions(self) -> int:
        """Number of kinds of frames with a learned vector of their own: all frames of a sound share one."""
        return 1


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How a picture is read: it is scaled and padded to one size, and its frames are square patches, along its
    shorter side first.

    Attributes:
        height, width: in pixels, multiples of `patch_size`.
        channels: 1, grey, or 3, red, green and blue.
        patch_size: pixels of a side of a patch.
        mean, deviation: of each channel in the training set, which are scaled to 0 and 1.

    Raises:
        UsageError: a value is outside its range.
    """

    height: int = setting(bounds=(1, MAX_IMAGE_SIDE))
    width: int = setting(bounds=(1, MAX_IMAGE_SIDE))
    channels: int = setting(bounds=(1, 3))
    patch_size: int = setting(bounds=(1, 64))
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        check_settings(self)
        _check_scale(self.mean, self.deviation, self.channels)
        for name in ("height", "width"):
            if getattr(self, name) % self.patch_size:
                raise UsageError(
                    f"{name} {getattr(self, name)} of a picture is not a multiple of patch_size {self.patch_size}", name
                )
        if self.channels == 2:
            raise UsageError("channels must be 1 or 3, not 2", "channels")

    @property
    def kind(self) -> MediaKind:
        return "image"

    @property
    def frame_dim(self) -> int:
        """F, numbers in a frame."""
        return self.patch_size**2 * self.channels

    @property
    def num_positions(self) -> int:
        """Number of kinds of frames with a learned vector of their own: one for each place of a patch."""
        return (self.height // self.patch_size) * (self.width // self.patch_size)


KIND_NAMES: dict[MediaKind, str] = {"audio": "sound", "image": "pictures"}
"""What the signals of a kind are called in messages."""

MediaConfig = AudioConfig | ImageConfig

NUM_BORDERS = 2  # the begin and the end of a signal


def num_media_inputs(media: MediaConfig | None) -> int:
    """Number of input ids above those of the vocabulary: begin of a signal, its end, and the kinds of frames."""
    return 0 if media is None else NUM_BORDERS + media.num_positions


def _check_scale(mean: tuple[float, ...], deviation: tuple[float, ...], count: int) -> None:
    """Raises UsageError unless there are `count` means and positive deviations."""
    if len(mean) != count or len(deviation) != count:
        raise UsageError(f"mean and deviation must have {count} numbers each", "mean", "deviation")
    if not all(0 < value < 1e9 for value in deviation) or not all(abs(value) < 1e9 for value in mean):
        raise UsageError("deviation must be positive and finite, and mean finite", "deviation", "mean")
