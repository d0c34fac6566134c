"""Sounds and pictures made in tests."""

import io
import struct
import zlib
from pathlib import Path
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


def write_silence(path: Path, seconds: int, rate: int = 4000) -> None:
    """A WAV file of 8 bits, which takes no space on most disks."""
    file = wav(np.zeros(0), rate, bits=8)
    path.write_bytes(file[:-4] + struct.pack("<I", seconds * rate))
    with path.open("r+b") as opened:
        opened.truncate(len(file) + seconds * rate)


def picture_header(width: int, height: int) -> bytes:
    """A PNG file that promises a grey picture of this size, and has a few of its bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def picture(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    """A picture file of pixels (h, w) or (h, w, 3 or 4), 0 to 255."""
    file = io.BytesIO()
    image = Image.fromarray(pixels.astype(np.uint8))
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()
