"""Read and write JSON, and refuse what the standard library's reader accepts silently.

A key given twice, NaN, infinity and a number too large for a float are errors (RFC 8259 leaves them to the reader).
Files whose damage must be noticed end with the sha256 of what precedes it. Independent of what the values mean.
"""

import hashlib
import json
import math
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from quickfox.errors import DataError
from quickfox.files.errors import translate_read_errors

MAX_JSON_BYTES = 16 * 2**20
DIGEST = "sha256"
"""The last member of an object with a digest of its own."""

_SHOWN_CHARACTERS = 40

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")

_NOT_SPACE = re.compile(r"[^ \t\n\r]")

_LONGEST_LITERAL = 16
"""Characters at the end of a cut text in which a decoder may report an error: the longest is -Infinity."""


def parse_json(data: bytes, where: str, max_bytes: int = MAX_JSON_BYTES, *, allow_surrogates: bool = False) -> Any:
    """Decodes a JSON text.

    Args:
        data: the text in UTF-8.
        where: name of its file, which begins error messages.
        max_bytes: size limit, checked before parsing.
        allow_surrogates: whether strings may have unpaired surrogates, by which Python represents the bytes of a file
            name that is not UTF-8 (PEP 383).

    Raises:
        DataError: too large, not UTF-8, not JSON, a key given twice, a number that is not finite, an unpaired
            surrogate, or nesting beyond Python's recursion limit.
    """
    if len(data) > max_bytes:
        raise DataError(f"{where}: larger than the limit of {max_bytes} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _invalid(error, where) from None
    return parse_json_text(text, where, max_bytes, allow_surrogates=allow_surrogates)


def parse_json_text(text: str, where: str, max_bytes: int = MAX_JSON_BYTES, *, allow_surrogates: bool = False) -> Any:
    """Decodes a JSON text in characters; arguments and errors are those of `parse_json`."""
    # A character has at most 4 bytes.
    if len(text) > max_bytes // 4 and len(text.encode(errors="surrogatepass")) > max_bytes:
        raise DataError(f"{where}: larger than the limit of {max_bytes} bytes")
    try:
        if text.startswith("\ufeff"):
            raise DataError("not valid JSON: a byte-order mark (BOM) at its start")
        value = _DECODER.decode(text)
        if not allow_surrogates:
            _check_surrogates(value, text, 0, len(text))
    except (RecursionError, ValueError, DataError) as error:
        raise _invalid(error, where) from None
    return value


def _check_surrogates(value: Any, text: str, start: int, end: int) -> None:
    """Raises UnicodeEncodeError if a string of the value that text[start:end] encodes has an unpaired surrogate."""
    if _SURROGATE.search(text, start, end):  # is rare, and encoding takes as long as decoding
        json.dumps(value, ensure_ascii=False).encode()


def iter_json_array(
    chunks: Iterable[str], name: str, max_characters: int = MAX_JSON_BYTES
) -> Iterator[tuple[str, Any]]:
    """Decodes the elements of a JSON array one at a time, each after `name` and its line.

    Args:
        chunks: the text of the array, in chunks of any length.
        name: of its file, which begins error messages.
        max_characters: limit of an element.

    Raises:
        DataError: not an array, an element as for `parse_json`, or the array does not end.
    """
    text = _JsonText(iter(chunks), name, max_characters)
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
    else:
        separator = ","
        while separator == ",":
            yield text.read_value()
            separator = text.expect(",]")
    if text.peek():
        raise DataError(f"{name}, line {text.line}: not valid JSON: text after the end of the array")


class _JsonText:
    """A JSON text that is read piece by piece; only the part that is being decoded is in memory."""

    def __init__(self, chunks: Iterator[str], name: str, max_characters: int) -> None:
        self._chunks = chunks
        self._name = name
        self._max_characters = max_characters
        self._text = ""
        self._position = 0
        self.line = 1  # of the position

    def peek(self) -> str:
        """The next character that is not whitespace, which is not consumed; empty at the end."""
        while True:
            match = _NOT_SPACE.search(self._text, self._position)
            self._advance(match.start() if match else len(self._text))
            if match:
                return match[0]
            if not self._extend():
                return ""

    def expect(self, characters: str) -> str:
        """Consumes one of these characters."""
        found = self.peek()
        if not found:
            raise self._endless()
        if found not in characters:
            wanted = " or ".join(map(repr, characters))
            raise DataError(f"{self._name}, line {self.line}: not valid JSON: expected {wanted}, found {found!r}")
        self._advance(self._position + 1)
        return found

    def read_value(self) -> tuple[str, Any]:
        """Consumes a value."""
        if not self.peek():
            raise self._endless()
        where = f"{self._name}, line {self.line}"
        try:
            while True:
                try:
                    value, end = _DECODER.raw_decode(self._text, self._position)
                    break
                except json.JSONDecodeError as error:
                    is_cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _LONGEST_LITERAL
                    # Each attempt has twice the text, so that decoding takes linear time.
                    if not is_cut or not self._extend(2 * (len(self._text) - self._position)):
                        raise
                if len(self._text) - self._position > 2 * self._max_characters:
                    raise DataError(f"larger than the limit of {self._max_characters} bytes")
            _check_surrogates(value, self._text, self._position, end)
        except (RecursionError, ValueError, DataError) as error:
            raise _invalid(error, where) from None
        self._advance(end)
        return where, value

    def _endless(self) -> DataError:
        return DataError(f"{self._name}, line {self.line}: not valid JSON: the array does not end")

    def _advance(self, position: int) -> None:
        self.line += self._text.count("\n", self._position, position)
        self._position = position

    def _extend(self, characters: int = 1) -> bool:
        """Appends chunks until there are so many characters after the position; false at the end of the text."""
        parts = [self._text[self._position :]]
        length = len(parts[0])
        grown = False
        while length < characters or not grown:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            length += len(chunk)
            grown = True
        self._text, self._position = "".join(parts), 0
        return grown


def _invalid(error: RecursionError | ValueError | DataError, where: str) -> DataError:
    """The error of a text that cannot be decoded."""
    if isinstance(error, RecursionError):
        return DataError(f"{where}: not valid JSON: nested too deeply")
    if isinstance(error, json.JSONDecodeError | UnicodeError):
        return DataError(f"{where}: not valid JSON: {error}")
    if isinstance(error, DataError):
        return DataError(f"{where}: {error}")
    return DataError(f"{where}: an integer has too many digits")  # Python's limit of 4300


def read_json(path: Path, *, allow_surrogates: bool = False) -> Any:
    """Decodes the JSON file `path`; arguments and errors are those of `parse_json` and `read_bounded`."""
    return parse_json(read_bounded(path, MAX_JSON_BYTES), str(path), allow_surrogates=allow_surrogates)


def read_bounded(path: Path, max_bytes: int, position: int = 0, length: int | None = None) -> bytes:
    """Reads the regular file `path`, of at most `max_bytes`, from a position on, to its end or at most `length` bytes.

    Raises:
        NoInputError: there is no such file.
        DataError: a directory, a pipe or a device, or larger than `max_bytes`.
        StorageError: reading failed.
    """
    with translate_read_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe could block
            raise DataError(f"{path}: not a regular file")
        if status.st_size > max_bytes:
            raise DataError(f"{path}: {status.st_size} bytes are more than the limit of {max_bytes}")
        with path.open("rb") as file:
            file.seek(position)
            rest = max(0, status.st_size - position)
            return file.read(rest if length is None else min(length, rest))


def format_json(value: Mapping[str, Any]) -> bytes:
    """Encodes an object as indented ASCII JSON, always the same bytes for the same value."""
    return (json.dumps(dict(value), ensure_ascii=True, allow_nan=False, indent=2) + "\n").encode("ascii")


def format_json_with_digest(value: Mapping[str, Any]) -> bytes:
    """Encodes an object as `format_json` does, with a last member `sha256`: that of the object without it."""
    return format_json({**value, DIGEST: hashlib.sha256(format_json(value)).hexdigest()})


def check_digest(value: Mapping[str, Any], data: bytes, where: str) -> None:
    """Raises DataError unless `data` are the bytes that `format_json_with_digest` made of the parsed object `value`."""
    if data != format_json_with_digest({name: member for name, member in value.items() if name != DIGEST}):
        raise DataError(f"{where}: damaged: its sha256 does not match its content")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise DataError(f"{name[:_SHOWN_CHARACTERS]!r} is given twice")
    return members


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise DataError(f"{digits[:_SHOWN_CHARACTERS]} is too large a number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise DataError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_float=_finite_float, parse_constant=_refuse_constant
)
