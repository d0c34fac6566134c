"""Sound files as samples: WAV by the standard library, others by soundfile, which is imported on use.

The header is checked before memory is allocated for what it announces.
"""

import io
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError, UnavailableError

Samples = npt.NDArray[np.float32]

MAX_SECONDS = 60
"""A longer sound is refused: a model reads 12 frames of each second, and answers about one moment."""

MIN_RATE, MAX_RATE = 4000, 384000
MAX_CHANNELS = 64

_UNKNOWN_SIZE = 0x7FFF0000  # of a stream, whose writer does not know the size; larger sizes are no real ones
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_COMPRESSED = (b"fLaC", b"OggS", b"ID3", b"FORM", b"RF64", b"caff", b"\xff\xfb", b"\xff\xf3")

NOT_INSTALLED = 'needs the package {}: pip install "quickfox[media]"'


class _Format(NamedTuple):
    code: int
    channels: int
    rate: int
    bits: int


def parse_sound(data: bytes) -> tuple[Samples, int]:
    """The samples of a sound file, all channels averaged, from -1 to 1: (n,), n >= 1; and its rate in Hz.

    Raises:
        DataError: not a sound, damaged, empty, too long, or of an unusual rate.
        UnavailableError: soundfile is required and not installed.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        samples, rate = _parse_wav(data)
    elif data.startswith(_COMPRESSED):
        samples, rate = _parse_other(data)
    else:
        raise DataError("not a sound file: give WAV, FLAC or Ogg")
    check_sound(rate, samples.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        mono = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise DataError("the sound has samples that are not numbers")
    return np.clip(mono, -1, 1), rate


def check_sound(rate: int, shape: tuple[int, ...]) -> None:
    """Raises DataError unless a sound of this rate, and of (samples, channels), can be read."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise DataError(f"a sample rate of {rate:,} Hz is outside {MIN_RATE:,} to {MAX_RATE:,}")
    if shape[0] == 0:
        raise DataError("the sound has no samples")
    if shape[0] > MAX_SECONDS * rate:
        raise DataError(f"{shape[0] / rate:,.0f} s of sound are more than {MAX_SECONDS} s: divide it")
    if not 1 <= shape[1] <= MAX_CHANNELS:
        raise DataError(f"the sound has {shape[1]} channels, not 1 to {MAX_CHANNELS}")


def _parse_wav(data: bytes) -> tuple[npt.NDArray[Any], int]:
    """The samples (n, channels) of a RIFF file from -1 to 1, and its rate; chunks other than these two are skipped."""
    form: _Format | None = None
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if name == b"data":
            if form is None:
                raise DataError("damaged WAV: the samples come before their format")
            if size < _UNKNOWN_SIZE and size > len(data) - position:
                raise DataError(f"truncated WAV: {len(data) - position:,} of {size:,} bytes of samples are there")
            return _decode_wav(memoryview(data)[position : position + size], form), form.rate
        if name == b"fmt ":
            form = _parse_format(data[position : position + size])
        position += size + size % 2  # chunks begin at even positions
    raise DataError("truncated WAV: it has no samples")


def _parse_format(chunk: bytes) -> _Format:
    if len(chunk) < 16:
        raise DataError("damaged WAV: its format is incomplete")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        (code,) = struct.unpack_from("<H", chunk, 24)
    if (code, bits) not in ((_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)):
        raise DataError(f"WAV of format {code} with {bits} bits is not supported: convert it to 16-bit PCM")
    return _Format(code, channels, rate, bits)


def _decode_wav(data: memoryview, form: _Format) -> npt.NDArray[Any]:
    width, channels = form.bits // 8, form.channels
    if channels == 0:
        raise DataError("the sound has no channels")
    count = len(data) // (width * channels)
    check_sound(form.rate, (count, channels))
    data = data[: count * width * channels]
    if form.code == _FLOAT:
        values: npt.NDArray[Any] = np.frombuffer(data, f"<f{width}")
    elif width == 1:
        values = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    elif width == 3:
        padded = np.zeros((count * channels, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = padded.view("<i4")[:, 0] / np.float32(2**31)
    else:
        values = np.frombuffer(data, f"<i{width}") / np.float32(2 ** (form.bits - 1))
    return values.reshape(count, channels)


def _parse_other(data: bytes) -> tuple[npt.NDArray[Any], int]:
    """The samples (n, channels) of a file that soundfile reads, and its rate."""
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: its library is missing
        raise UnavailableError(f"this sound file {NOT_INSTALLED.format('soundfile')}") from None
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            check_sound(file.samplerate, (file.frames, file.channels))
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.SoundFileError as error:
        raise DataError(f"damaged sound file: {str(error).rstrip('.')}") from None
