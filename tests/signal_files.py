"""Sounds and pictures made in tests."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image


def tone(frequency: float, seconds: float, rate: int = 16000) -> np.ndarray:
    """A sine of half the full scale, (n,) float32."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16000, bits: int = 16, *, is_float: bool = False) -> bytes:
    """A RIFF file of samples (n,) or (n, channels) from -1 to 1."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    scaled = np.asarray(samples, np.float64) * 2.0 ** (bits - 1)
    if is_float:
        data = samples.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = np.clip(scaled + 128, 0, 255).astype(np.uint8).tobytes()
    else:
        limit = 2 ** (bits - 1) - 1
        integers = np.clip(scaled, -limit, limit).astype("<i4").reshape(-1, 1)
        data = integers.view(np.uint8)[:, : bits // 8].tobytes()
    width = bits // 8 * channels
    form = struct.pack("<HHIIHH", 3 if is_float else 1, channels, rate, rate * width, width, bits)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def picture(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    """A picture file of pixels (h, w) or (h, w, 3 or 4), 0 to 255."""
    file = io.BytesIO()
    image = Image.fromarray(pixels.astype(np.uint8))
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()
