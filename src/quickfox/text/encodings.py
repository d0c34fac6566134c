"""Decode bytes to text in chunks; refuse what is not text, saying where, what it probably is, and what to do.

Byte-order marks are removed. Independent of where the bytes come from and what the text means.
"""

import codecs
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from quickfox.errors import DataError

Reopen = Callable[[], Iterable[bytes]]
"""Reads the bytes again from their start."""

SIGNATURES = {
    b"%PDF-": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x7fELF": "binary data, a program",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
}
"""First bytes of files that are not text -> what they are."""

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is a prefix of it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

_SAMPLE_BYTES = 2**16
"""Bytes from which the encoding is guessed."""

_CANDIDATES = (
    *("cp1252", "shift_jis", "cp932", "euc_jp", "gb18030", "big5", "euc_kr", "cp949"),
    *("cp1251", "koi8-r", "cp866", "cp1250", "cp1253", "cp1255", "cp1256", "cp874", "mac_roman", "cp850", "latin-1"),
)
"""Encodings to guess from; of equally likely ones, the first."""

_COMMON = frozenset(
    "的一是不了在人有我他这個个们們中来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着著下自之年过過发發后後作里"
    "日本事者見行方思間言何今分気手目前同自分先生家心女"
    "이다는의에을가하고를은한지도로서나사그리기아어있자대시인해것수보"
    "’‘“”–—…«»„"
)
"""Frequent characters of East Asian languages, and the punctuation of typography."""


def check_is_text(head: bytes, name: str, *, has_encoding: bool) -> None:
    """Raises DataError if the first bytes of a file are not text; without a given encoding, if not UTF-8 text."""
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            raise DataError(f"{name}: {kind}, not UTF-8 text; convert it to text first")
    if head[257:262] == b"ustar":
        raise DataError(f"{name}: a tar archive, not text; unpack it first")
    if has_encoding:
        return
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            raise DataError(f"{name}: {encoding.upper()} text, not UTF-8; read it with encoding {encoding}", "encoding")
    # Latin letters in UTF-16 alternate with zero bytes, which are all at odd positions or all at even ones.
    even, odd = (2 * head[start::2].count(0) / max(1, len(head)) for start in (0, 1))
    if len(head) % 2 == 0 and max(even, odd) > 0.4 and min(even, odd) < 0.1:
        encoding = "utf-16-le" if odd > even else "utf-16-be"
        raise DataError(
            f"{name}: UTF-16 text without a byte-order mark, not UTF-8; read it with encoding {encoding}", "encoding"
        )
    if head.count(0) > 1:
        raise DataError(
            f"{name}: binary data, not UTF-8 text: {head.count(0)} zero bytes in its first {len(head)}, one at byte "
            f"{head.index(0)}"
        )


def decode_chunks(chunks: Iterable[bytes], encoding: str, name: str, reopen: Reopen) -> Iterator[str]:
    """The text of the bytes in non-empty chunks, without its byte-order mark; line ends are unchanged.

    Args:
        chunks: the bytes.
        encoding: their encoding.
        name: of the file, for messages.
        reopen: reads the bytes again, for the message of an error.

    Raises:
        DataError: the bytes are not of this encoding, or the text has a zero character.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    bytes_read = characters = 0
    is_start = True
    for chunk, is_last in _mark_last(chunks):
        bytes_read += len(chunk)
        try:
            text = decoder.decode(chunk, final=is_last)
        except UnicodeDecodeError as error:
            offset = bytes_read - len(error.object) + error.start  # the object starts with bytes kept from before
            raise undecodable(name, encoding, offset, reopen) from None
        except UnicodeError as error:  # UTF-16 and UTF-32 that must start with a byte-order mark
            raise DataError(f"{name}: not {encoding}: {error}") from None
        if "\0" in text:
            raise _zero_character(name, encoding, characters + text.index("\0"), reopen)
        characters += len(text)
        if is_start and text:
            text = text.removeprefix("\ufeff")
            is_start = False
        if text:
            yield text


def undecodable(name: str, encoding: str, offset: int, reopen: Reopen) -> DataError:
    """The error of a byte at `offset` that is not of the encoding: its line, and the likely encoding of the file."""
    line, sample, value = 1, bytearray(), b""
    position = 0
    for chunk in reopen():
        end = offset - position  # of what is before the byte, within this chunk
        if end > 0:
            line += chunk.count(b"\n", 0, end)
            start = chunk.rfind(b"\n", 0, end) + 1
            before = bytearray(chunk[start:end]) if start else sample + chunk[:end]
            sample = before[-_SAMPLE_BYTES:] + chunk[end : end + _SAMPLE_BYTES]
        else:
            sample += chunk[:_SAMPLE_BYTES]
        if 0 <= end < len(chunk):
            value = chunk[end : end + 1]
        position += len(chunk)
        if position >= offset + _SAMPLE_BYTES:
            break
    place = f"{name}: not {encoding.upper()} at byte {offset} (0x{value.hex()}), line {line}"
    if encoding.lower() not in ("utf-8", "utf8"):
        return DataError(f"{place}; try another encoding", "encoding")
    guess = guess_encoding(bytes(sample))
    if guess is None:
        return DataError(
            f"{place}: the file is damaged there, or of another encoding: name it with encoding", "encoding"
        )
    command = f"iconv -f {guess} -t utf-8 {shlex.quote(name)}"
    return DataError(
        f"{place}; it is probably {guess}: read it with encoding {guess}, or convert it: {command}", "encoding"
    )


def guess_encoding(sample: bytes) -> str | None:
    """The most likely encoding of text that is not UTF-8; None: it looks like damaged UTF-8, or nothing is likely."""
    replaced = sample.decode(errors="replace")
    damage = replaced.count("\ufffd")
    if sum(character > "\x7f" for character in replaced) - damage > 2 * damage:
        return None
    best, best_plausibility = None, 0.0
    for encoding in _CANDIDATES:
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(sample)  # its last character may be cut
        except UnicodeDecodeError:
            continue
        plausibility = _plausibility(text)
        if plausibility > best_plausibility:
            best, best_plausibility = encoding, plausibility
    return best


def _plausibility(text: str) -> float:
    """How much the characters beyond ASCII look like text, per byte of a legacy encoding: above 0 if they do."""
    total, size = 0.0, 0
    for before, character, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if character <= "\x7f":
            continue
        width = 2 if character >= "\u1100" else 1  # bytes in the encodings of East Asia
        size += width
        total += width * _score(before, character, after)
    return total / size if size else 0.0


def _score(before: str, character: str, after: str) -> float:
    """The plausibility of a character beyond ASCII between its neighbors, from -3 to 1."""
    if character in _COMMON:
        is_letter = unicodedata.category(character) == "Lo"
        return 1.0 if is_letter or character == "’" or not (before.isalpha() and after.isalpha()) else -1.0
    category = unicodedata.category(character)
    if category[0] == "C":
        return -3.0
    if "\uff61" <= character <= "\uff9f":  # half-width katakana, which single bytes become
        return -0.5
    if category == "Lo" and character >= "\u3000":
        return 0.8 if character < "\u3400" else 0.3  # kana, and characters that are not frequent
    if category[0] not in "LM":
        return -1.0 if before.isalpha() or after.isalpha() else -0.2
    if category == "Lu" and (before.islower() or (after.isupper() and after <= "\x7f" and before.islower())):
        return -1.0  # a capital within a word
    is_latin = character < "\u0250"
    neighbors = [neighbor for neighbor in (before, after) if neighbor.isalpha()]
    if is_latin:
        return 0.7 if all(neighbor < "\u0250" for neighbor in neighbors) else -0.5
    if any(neighbor < "\u0250" for neighbor in neighbors):
        return -1.0  # scripts mixed within a word
    return 0.8 if neighbors and category != "Lu" else 0.3


def _zero_character(name: str, encoding: str, index: int, reopen: Reopen) -> DataError:
    """The error of the zero character at `index`."""
    line, position = 1, 0
    for text in codecs.iterdecode(reopen(), encoding):
        line += text.count("\n", 0, max(0, index - position))
        position += len(text)
        if position > index:
            break
    return DataError(
        f"{name}: binary data, not text: a zero byte in line {line}, at character {index}; remove zero bytes with: "
        f"tr -d '\\000' < {shlex.quote(name)}"
    )


def _mark_last(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The chunks and then an empty one, which alone is marked."""
    for chunk in chunks:
        yield chunk, False
    yield b"", True
