"""Between text and token ids, and the file that keeps a tokenizer beside its model.

A tokenizer file is JSON that a person can read and check:

    {"format_version": 1, "type": "char", "min_count": 1, "characters": ["\\n", " ", "!", ...]}

A character's place in the list is its token id. Knows no models; of files only its own.
"""

import json
import re
import reprlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quickfox.durable import write_file
from quickfox.errors import DataError
from quickfox.strict_json import read_json
from quickfox.text.vocabulary import CodePoints, Vocabulary, code_points, describe_characters

FORMAT_VERSION = 1
MAX_TOKENIZER_BYTES = 20 * 2**20
"""Room for every character that there is, each as an escape."""

TokenIds = npt.NDArray[np.unsignedinteger[Any]]

_UNKNOWN = -1


@dataclass(frozen=True)
class CharacterTokenizer:
    """One token a character."""

    vocabulary: Vocabulary

    @property
    def vocabulary_size(self) -> int:
        """Number of different tokens; ids are 0 ... vocabulary_size - 1."""
        return len(self.vocabulary.characters)

    @property
    def token_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smallest unsigned integer type that holds every token id."""
        return np.min_scalar_type(self.vocabulary_size - 1)

    def encode(self, text: str, unknown: Counter[str] | None = None) -> TokenIds:
        """The token ids of a text.

        Args:
            text: any text.
            unknown: when given, characters that are not in the vocabulary are left out and counted here.

        Returns:
            (number of known characters,) token ids, of `token_dtype`.

        Raises:
            DataError: the text has characters that are not in the vocabulary, and `unknown` is not given.
        """
        codes = code_points(text)
        ids = self._ids_by_code_point[np.minimum(codes, len(self._ids_by_code_point) - 1)]
        is_known = ids != _UNKNOWN
        if not is_known.all():
            missing = _count_code_points(codes[~is_known])
            if unknown is None:
                names = describe_characters(character for character, _ in missing.most_common())
                raise DataError(f"the text has characters that are not in the vocabulary: {names}")
            unknown.update(missing)
            ids = ids[is_known]
        return ids.astype(self.token_dtype)

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> str:
        """The text of token ids, (number of tokens,); the inverse of `encode`.

        Raises:
            DataError: an id is not that of a token.
        """
        numbers = ids.tolist() if isinstance(ids, np.ndarray) else ids
        characters = self.vocabulary.characters
        # Plain Python: text is decoded as it is drawn, a few tokens at a time, where array operations cost more.
        for number in numbers:
            if not 0 <= number < len(characters):
                raise DataError(f"token id {number} is outside of the vocabulary of {len(characters)} tokens")
        return "".join([characters[number] for number in numbers])

    def to_json(self) -> dict[str, Any]:
        """The content of the tokenizer's file, as values that JSON knows; `parse_tokenizer` is the inverse."""
        return {
            "format_version": FORMAT_VERSION,
            "type": "char",
            "min_count": self.vocabulary.min_count,
            "characters": list(self.vocabulary.characters),
        }

    @cached_property
    def _ids_by_code_point(self) -> npt.NDArray[np.int32]:
        """Token id of each code point up to the vocabulary's last; one more entry stands for all beyond it."""
        codes = code_points("".join(self.vocabulary.characters))
        table = np.full(int(codes[-1]) + 2, _UNKNOWN, dtype=np.int32)
        table[codes] = np.arange(len(codes))
        return table


def format_tokenizer(tokenizer: CharacterTokenizer) -> bytes:
    """The tokenizer's file, as UTF-8: characters that can be seen stand as they are, all others as JSON escapes."""
    text = json.dumps(tokenizer.to_json(), ensure_ascii=False, indent=1)
    visible = re.sub(r"[^\n -~]", lambda match: _escape_invisible(match[0]), text)
    return f"{visible}\n".encode()


def parse_tokenizer(value: Any, where: str) -> CharacterTokenizer:
    """The tokenizer that `value`, read from JSON, describes; nothing is guessed or ignored.

    Args:
        value: a decoded JSON value.
        where: the file it came from, for the message.

    Raises:
        DataError: it does not describe a tokenizer, or one of a later format.
    """
    if not isinstance(value, dict) or "format_version" not in value or "type" not in value:
        raise DataError(f"{where}: not a vocabulary; `llm build-vocab` writes one")
    version = value["format_version"]
    if not _is_integer(version) or version < 1:
        raise DataError(f"{where}: format_version cannot be {reprlib.repr(version)}")
    if version > FORMAT_VERSION:
        raise DataError(
            f"{where}: written by a later version of quickfox (format {reprlib.repr(version)}): upgrade quickfox"
        )
    if value["type"] != "char":
        raise DataError(f"{where}: unknown type of tokenizer {reprlib.repr(value['type'])}")
    _check_members(value, {"format_version", "type", "min_count", "characters"}, where)
    min_count, characters = value["min_count"], value["characters"]
    if not _is_integer(min_count):
        raise DataError(f"{where}: min_count cannot be {reprlib.repr(min_count)}")
    if not isinstance(characters, list) or not all(isinstance(character, str) for character in characters):
        raise DataError(f"{where}: characters must be a list of strings")
    try:
        return CharacterTokenizer(Vocabulary(tuple(characters), min_count))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def load_tokenizer(path: Path) -> CharacterTokenizer:
    """The tokenizer in the file `path`.

    Raises:
        NoInputError: there is no such file.
        DataError: the file is not a tokenizer.
        StorageError: reading failed.
    """
    return parse_tokenizer(read_json(path, MAX_TOKENIZER_BYTES), str(path))


def save_tokenizer(tokenizer: CharacterTokenizer, path: Path) -> None:
    """Write the tokenizer to the file `path`, whole or not at all.

    Raises:
        CannotCreateError, StorageError: writing failed.
    """
    write_file(path, format_tokenizer(tokenizer))


def _count_code_points(codes: CodePoints) -> Counter[str]:
    values, counts = np.unique(codes, return_counts=True)
    return Counter({chr(code): int(count) for code, count in zip(values, counts, strict=True)})


def _escape_invisible(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _check_members(value: dict[str, Any], expected: set[str], where: str) -> None:
    if unknown := sorted(value.keys() - expected):
        raise DataError(f"{where}: unknown member {reprlib.repr(unknown[0])}")
    if missing := sorted(expected - value.keys()):
        raise DataError(f"{where}: member {missing[0]!r} is missing")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
