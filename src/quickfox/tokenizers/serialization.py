"""Read and write tokenizer files: readable JSON.

    {"format_version": 2, "type": "char", ...}

The other members are documented in the module of each type; `"end_of_text": true` is added if there is such a token.
The format version is 2 for `char` with an unknown token, else 1. The file of `bpe` is the tokenizer.json of the
`tokenizers` library.
"""

import hashlib
import json
import re
import reprlib
from pathlib import Path
from typing import Any

from quickfox.errors import DataError, NewerFormatError
from quickfox.files.atomic import write_file
from quickfox.files.json import parse_json, read_bounded
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.bpe import BpeTokenizer, is_definition
from quickfox.tokenizers.byte_level import ByteTokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.word import WordTokenizer

FORMAT_VERSION = 2
MAX_TOKENIZER_BYTES = 20 * 2**20
"""Enough for every Unicode character as an escape, and for the subwords of the largest models."""

_END_OF_TEXT = "end_of_text"


def format_tokenizer(tokenizer: Tokenizer) -> bytes:
    """The content of the tokenizer's file, in UTF-8; characters that are not printable are escaped."""
    if isinstance(tokenizer, BpeTokenizer):
        value = tokenizer.to_json()
    else:
        end = {} if tokenizer.end_of_text is None else {_END_OF_TEXT: True}
        version = FORMAT_VERSION if tokenizer.unknown_token else 1  # earlier programs can read the others
        value = {"format_version": version, "type": tokenizer.kind, **tokenizer.to_json(), **end}
    text = json.dumps(value, ensure_ascii=False, indent=1)
    printable = re.sub(r"[^\n -~]", lambda match: _escape_unprintable(match[0]), text)
    return f"{printable}\n".encode()


def parse_tokenizer(data: bytes, where: str) -> Tokenizer:
    """The tokenizer in a file; unknown members are errors.

    Args:
        data: the content of the file.
        where: its name, for error messages.

    Raises:
        DataError: not a tokenizer, or of a newer format.
    """
    value = parse_json(data, where, MAX_TOKENIZER_BYTES)
    try:
        return BpeTokenizer(value) if is_definition(value) else _parse_own(value)
    except DataError as error:
        raise type(error)(f"{where}: {error}") from None


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads the tokenizer file `path`.

    Raises:
        NoInputError: there is no such file.
        DataError: not a tokenizer file, or of a newer format.
        StorageError: reading failed.
    """
    return parse_tokenizer(read_bounded(path, MAX_TOKENIZER_BYTES), str(path))


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """The sha256 of the tokenizer's file, in hexadecimal."""
    return hashlib.sha256(format_tokenizer(tokenizer)).hexdigest()


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Writes the tokenizer to the file `path`, atomically.

    Raises:
        DataError: the file would be larger than one that is read.
        CannotCreateError, StorageError: writing failed.
    """
    data = format_tokenizer(tokenizer)
    if len(data) > MAX_TOKENIZER_BYTES:
        raise DataError(
            f"{path}: the tokenizer takes {len(data):,} bytes, and the limit is {MAX_TOKENIZER_BYTES:,}: choose a "
            f"smaller vocabulary_size",
            "vocabulary_size",
        )
    write_file(path, data)


def _parse_own(value: Any) -> Tokenizer:
    if not isinstance(value, dict) or "format_version" not in value or "type" not in value:
        raise DataError("not a vocabulary; `llm build-vocab` writes one")
    members = dict(value)
    version, kind = members.pop("format_version"), members.pop("type")
    if type(version) is not int or version < 1:
        raise DataError(f"format_version cannot be {reprlib.repr(version)}")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"written by a newer version of quickfox (format {reprlib.repr(version)}): upgrade quickfox"
        )
    has_end_of_text = members.pop(_END_OF_TEXT, False)
    if not isinstance(has_end_of_text, bool):
        raise DataError(f"{_END_OF_TEXT} cannot be {reprlib.repr(has_end_of_text)}")
    match kind:
        case "char":
            _check_members(members, {"min_count", "characters"} | ({"unknown_probability"} if version > 1 else set()))
            if type(members["min_count"]) is not int:
                raise DataError(f"min_count cannot be {reprlib.repr(members['min_count'])}")
            vocabulary = Vocabulary(_strings(members, "characters"), members["min_count"])
            return CharacterTokenizer(vocabulary, has_end_of_text, _probability(members.get("unknown_probability")))
        case "word":
            _check_members(members, {"words"})
            return WordTokenizer(_strings(members, "words"), has_end_of_text)
        case "byte":
            _check_members(members, set())
            return ByteTokenizer(has_end_of_text)
    raise DataError(f"unknown type of tokenizer {reprlib.repr(kind)}")


def _strings(members: dict[str, Any], name: str) -> tuple[str, ...]:
    value = members[name]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{name} must be a list of strings")
    return tuple(value)


def _probability(value: Any) -> float | None:
    if value is not None and not isinstance(value, float):
        raise DataError(f"unknown_probability cannot be {reprlib.repr(value)}")
    return value


def _escape_unprintable(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _check_members(value: dict[str, Any], expected: set[str]) -> None:
    if unknown := sorted(value.keys() - expected):
        raise DataError(f"unknown member {reprlib.repr(unknown[0])}")
    if missing := sorted(expected - value.keys()):
        raise DataError(f"member {missing[0]!r} is missing")


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a tokenizer is, ready for JSON: its kind, its characters if they are its tokens, its end-of-text token."""
    description: dict[str, Any] = {"kind": tokenizer.kind}
    if isinstance(tokenizer, CharacterTokenizer):
        description["min_count"] = tokenizer.vocabulary.min_count
        description["characters"] = list(tokenizer.vocabulary.characters)
    return description | {"end_of_text": tokenizer.end_of_text}
