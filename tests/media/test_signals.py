"""Files of sounds and pictures: every kind that is read, and every fault as one line."""

import contextlib
import io
import struct
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickfox.errors import DataError, NoInputError, QuickfoxError, StorageError, UnavailableError, UsageError
from quickfox.media import pictures
from quickfox.media.pictures import parse_picture
from quickfox.media.signals import Sound, choose_media, decode_input, read_signal
from quickfox.media.sound import parse_sound
from quickfox.text.documents import Document, Signal
from quickfox.text.sources import FileSource
from signal_files import picture, picture_header, tone, wav

SOUND = tone(440, 0.1)
PIXELS = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3))


@pytest.mark.parametrize(
    ("bits", "is_float", "tolerance"),
    [(8, False, 1e-2), (16, False, 1e-4), (24, False, 1e-6), (32, False, 1e-6), (32, True, 0), (64, True, 0)],
)
def test_wav_of_every_width(bits: int, is_float: bool, tolerance: float) -> None:
    samples, rate = parse_sound(wav(SOUND, 16000, bits, is_float=is_float))
    assert rate == 16000
    np.testing.assert_allclose(samples, SOUND, atol=tolerance)


def test_channels_are_averaged() -> None:
    samples, _ = parse_sound(wav(np.stack([SOUND, np.zeros_like(SOUND)] * 4, axis=1)))
    np.testing.assert_allclose(samples, SOUND / 2, atol=1e-4)


def test_the_wav_files_of_pythons_library_are_read() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((2, 2, 8000, 0, "NONE", ""))
        writer.writeframes(np.array([[100, 300], [-100, 100]], "<i2").tobytes())
    samples, rate = parse_sound(file.getvalue())
    assert rate == 8000
    np.testing.assert_allclose(samples * 2**15, [200, 0])


def test_a_stream_of_unknown_length_and_other_chunks_are_read() -> None:
    data = bytearray(wav(SOUND))
    position = data.index(b"data")
    data[position + 4 : position + 8] = struct.pack("<I", 0xFFFFFFFF)
    data[12:12] = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    np.testing.assert_allclose(parse_sound(bytes(data))[0], SOUND, atol=1e-4)


def test_flac_and_ogg_are_read() -> None:
    soundfile = pytest.importorskip("soundfile")
    for kind, tolerance in (("FLAC", 1e-4), ("OGG", 0.05)):
        file = io.BytesIO()
        soundfile.write(file, SOUND, 16000, format=kind)
        samples, rate = parse_sound(file.getvalue())
        assert rate == 16000
        np.testing.assert_allclose(samples, SOUND, atol=tolerance)


def set_format(position: int, code: str, value: int) -> bytes:
    data = bytearray(wav(SOUND))
    struct.pack_into(code, data, 20 + position, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a sound file"),
        (b"hello, world, this is text", "not a sound file"),
        (wav(SOUND)[:1000], "truncated WAV: 956 of 3,200 bytes"),
        (wav(SOUND)[:40], "truncated WAV: it has no samples"),
        (wav(SOUND)[:30], "damaged WAV: its format is incomplete"),
        (wav(SOUND[:0]), "no samples"),
        (wav(SOUND, 1), "1 Hz is outside"),
        (wav(SOUND, 1_000_000), "1,000,000 Hz is outside"),
        (wav(np.full(10, np.nan), bits=32, is_float=True), "not numbers"),
        (wav(np.zeros(4000 * 3600), 4000, 8), "3,600 s of sound are more than 60 s"),
        (set_format(0, "<H", 7), "format 7 with 16 bits"),
        (set_format(2, "<H", 0), "no channels"),
        (b"fLaC" + bytes(100), "damaged sound file"),
    ],
)
def test_faults_of_sounds(data: bytes, message: str) -> None:
    pytest.importorskip("soundfile")
    check_fault(parse_sound, data, message)


def check_fault(parse: Callable[[bytes], object], data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as failure:
        parse(data)
    assert len(str(failure.value).splitlines()) == 1


def test_without_its_package_a_format_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert len(parse_sound(wav(SOUND))[0]) == len(SOUND)  # the standard library reads it
    for parse, data in ((parse_sound, b"fLaC"), (parse_picture, b"")):
        with pytest.raises(UnavailableError, match=r'pip install "quickfox\[media\]"'):
            parse(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (picture(PIXELS), PIXELS / 255),
        (picture(PIXELS, "WEBP", lossless=True), PIXELS / 255),
        (picture(PIXELS[:, :, 0]), PIXELS[:, :, :1] / 255),
        (picture(np.stack([PIXELS[:, :, 0]] * 3, axis=2)), PIXELS[:, :, :1] / 255),  # grey in colors
        (picture(np.full((1, 1, 3), 255), mode="P"), np.ones((1, 1, 1))),
        (picture(np.zeros((2, 2, 4))), np.ones((2, 2, 1))),  # transparent
        (picture(np.zeros((2, 2)), transparency=0), np.ones((2, 2, 1))),  # of a grey that is transparent
        (picture(np.full((2, 2, 3), 255), "JPEG", "CMYK"), np.ones((2, 2, 1))),
        (picture(np.eye(4) * 255, mode="1"), np.eye(4)[:, :, np.newaxis]),
    ],
)
def test_pictures_of_every_mode(data: bytes, expected: np.ndarray) -> None:
    np.testing.assert_allclose(parse_picture(data), expected, atol=0.02)


def test_sixteen_bits_of_grey_are_kept() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(file, "PNG")
    np.testing.assert_allclose(parse_picture(file.getvalue())[0, :, 0], [0, 257 / 65535, 1], atol=1e-6)


def animation() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 200)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a picture"),
        (b"GIF89a", "not a picture|damaged picture"),
        (picture(PIXELS)[:60], "damaged picture"),
        (animation(), "animated"),
        (picture_header(2**15 + 1, 1), "32,769 x 1 pixels is too large"),
    ],
)
def test_faults_of_pictures(data: bytes, message: str) -> None:
    check_fault(parse_picture, data, message)


def test_an_animation_that_is_cut_off_anywhere_is_refused() -> None:
    data = animation()
    for length in range(len(data) - 1):
        with contextlib.suppress(DataError):  # or it is one picture
            assert parse_picture(data[:length]).shape == (4, 4, 1)


def test_a_huge_picture_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_to_pixels", lambda _image: pytest.fail("the pixels were decoded"))
    for side in (9000, 20_000):  # more than our limit, more than Pillow's
        file = io.BytesIO()
        Image.new("1", (side, side)).save(file, "PNG")
        check_fault(parse_picture, file.getvalue(), "pixels")


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"text")
    (tmp_path / "folder").mkdir()
    cases: list[tuple[str, type[QuickfoxError], str]] = [
        ("x.wav", DataError, "x.wav: not a sound file"),
        ("y.wav", NoInputError, "y.wav: no such file"),
        ("folder", StorageError, "cannot read .*folder: Is a directory"),
    ]
    for name, kind, message in cases:
        with pytest.raises(kind, match=f"^spoken.jsonl, line 7: .*{message}"):
            read_signal(Signal("audio", FileSource(tmp_path / name), "spoken.jsonl, line 7"))


def documents(folder: Path, *arrays: np.ndarray) -> list[Document]:
    for number, pixels in enumerate(arrays):
        (folder / f"{number}.png").write_bytes(picture(pixels))
    sources = [FileSource(folder / f"{number}.png") for number in range(len(arrays))]
    return [Document((("a", True),), Signal("image", source, "")) for source in sources]


def test_the_size_and_color_of_pictures_are_those_of_the_training_set(tmp_path: Path) -> None:
    media = choose_media(documents(tmp_path, PIXELS[:, :, 0], PIXELS[:, :3, 0]), "image")
    assert (media.height, media.width, media.channels, media.patch_size) == (6, 8, 1, 2)
    media = choose_media(documents(tmp_path, np.zeros((100, 200)), PIXELS), "image")
    assert (media.height, media.width, media.channels, media.patch_size) == (32, 64, 3, 4)


def test_arrays_of_a_program(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(wav(SOUND))
    from_file, from_array = decode_input(str(tmp_path / "x.wav"), "audio"), decode_input((SOUND, 16000), "audio")
    assert isinstance(from_file, Sound)
    assert isinstance(from_array, Sound)
    np.testing.assert_allclose(from_file.samples, from_array.samples, atol=1e-4)
    for dtype in (np.uint8, np.int64, np.int16):
        np.testing.assert_allclose(decode_input(PIXELS.astype(dtype), "image"), PIXELS / 255, atol=1e-6)
    np.testing.assert_allclose(decode_input(PIXELS.astype(np.uint16) * 257, "image"), PIXELS / 255, atol=1e-6)
    np.testing.assert_allclose(decode_input(np.eye(3), "image"), np.eye(3)[:, :, np.newaxis])


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (SOUND, "audio", r"\(samples, rate\)"),
        ((np.zeros((2, 2, 2)), 16000), "audio", "dimensions"),
        ((np.array(["a"]), 16000), "audio", "int16, int32 or finite floats"),
        ((np.zeros(3, np.uint8), 16000), "audio", "int16, int32 or finite floats"),
        (np.full((2, 2), 256), "image", "integers from 0 to 255"),
        (np.full((2, 2), -1), "image", "integers from 0 to 255"),
        (np.zeros(5), "image", r"\(height, width\)"),
        (np.full((2, 2), np.inf), "image", "finite"),
    ],
)
def test_faults_of_arrays(value: object, kind: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decode_input(value, kind)  # type: ignore[arg-type]  # wrong on purpose
