"""Picture files as pixels, by Pillow, which is imported on use; the header is checked before the pixels are decoded."""

import io
import struct
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError, UnavailableError
from quickfox.media.sound import NOT_INSTALLED

Pixels = npt.NDArray[np.float32]

MAX_PIXELS = 2**25
"""A larger picture is refused: its pixels would take much memory, and a model reads a small copy of it."""

MAX_SIDE = 2**15
"""The weights of scaling are a matrix with a column for each pixel of a side."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def parse_picture(data: bytes) -> Pixels:
    """The pixels of a picture file from 0 to 1: (height, width, 1) if it is grey, else (height, width, 3).

    What is transparent is white.

    Raises:
        DataError: not a picture, damaged, animated or too large.
        UnavailableError: Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UnavailableError(f"a picture {NOT_INSTALLED.format('pillow')}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                check_picture(image.height, image.width)
                if getattr(image, "n_frames", 1) > 1:
                    raise DataError("the picture is animated: give one of its frames")
                return _to_pixels(image)
    except UnidentifiedImageError:
        raise DataError("not a picture: give PNG, JPEG or WebP") from None
    except Image.DecompressionBombError:
        raise DataError(f"the picture has more than {MAX_PIXELS:,} pixels: make it smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error) as error:  # of Pillow's decoders
        raise DataError(f"damaged picture: {error}") from None


def check_picture(height: int, width: int) -> None:
    """Raises DataError unless a picture of this size can be read."""
    if height < 1 or width < 1:
        raise DataError("the picture has no pixels")
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        limit = f"at most {MAX_PIXELS:,} are read, and {MAX_SIDE:,} a side"
        raise DataError(f"a picture of {width:,} x {height:,} pixels is too large: {limit}")


def _to_pixels(image: Any) -> Pixels:
    if image.mode.startswith(("I", "F")):  # 16 bits of grey, which Pillow would cut off
        values: Pixels = np.clip(np.asarray(image, np.float32) / np.float32(65535), 0, 1)
        return values[:, :, np.newaxis]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"), np.float32) / np.float32(255)
        opacity = pixels[:, :, 3:]
        pixels = pixels[:, :, :3] * opacity + (1 - opacity)
    elif image.mode in ("1", "L"):
        return np.asarray(image.convert("L"), np.float32)[:, :, np.newaxis] / np.float32(255)
    else:
        pixels = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    is_grey = np.array_equal(pixels[:, :, 0], pixels[:, :, 1]) and np.array_equal(pixels[:, :, 1], pixels[:, :, 2])
    return pixels[:, :, :1] if is_grey else pixels
