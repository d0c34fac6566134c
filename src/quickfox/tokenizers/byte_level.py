"""Byte-level tokenizers, which encode every character: the base of `word` and `bpe`, and one token per UTF-8 byte."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError
from quickfox.text.vocabulary import SURROGATES, describe_characters
from quickfox.tokenizers.base import TokenIds, out_of_vocabulary_error

SINGLE_BYTES = tuple(bytes([value]) for value in range(256))


class _EveryCharacter:
    """The set of all characters; surrogates are not characters."""

    def __contains__(self, character: object) -> bool:
        return isinstance(character, str) and len(character) == 1 and ord(character) not in SURROGATES


class ByteLevelTokenizer(ABC):
    """Base of the byte, word and subword tokenizers; see the `Tokenizer` protocol for its members."""

    @property
    @abstractmethod
    def tokens(self) -> Sequence[bytes]:
        """The UTF-8 bytes of each token, by id."""

    @abstractmethod
    def _encode_known(self, text: str) -> npt.ArrayLike:
        """The token ids of a text without surrogates."""

    @property
    def vocabulary_size(self) -> int:
        return len(self.tokens)

    @property
    def token_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.min_scalar_type(self.vocabulary_size - 1)

    @property
    def known_characters(self) -> Container[str]:
        return _EveryCharacter()

    def encode(self, text: str, unknown: Counter[str] | None = None) -> TokenIds:
        return np.asarray(self._encode_known(_without_surrogates(text, unknown)), self.token_dtype)

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> str:
        numbers = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return b"".join(map(self.token_bytes, numbers)).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < len(self.tokens):
            raise out_of_vocabulary_error(token_id, len(self.tokens))
        return self.tokens[token_id]


def _without_surrogates(text: str, unknown: Counter[str] | None) -> str:
    """The text without surrogates, counted in `unknown`; raises DataError if there are any and `unknown` is None."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        surrogates = Counter(character for character in text if ord(character) in SURROGATES)
    if unknown is None:
        raise DataError(f"the text has unpaired surrogates: {describe_characters(surrogates)}")
    unknown.update(surrogates)
    return "".join(character for character in text if ord(character) not in SURROGATES)


@dataclass(frozen=True)
class ByteTokenizer(ByteLevelTokenizer):
    """One token per byte, whose value is the token id; 256 is the end of text, if `has_end_of_text`.

    {"format_version": 1, "type": "byte"}
    """

    has_end_of_text: bool = False

    @property
    def kind(self) -> Literal["byte"]:
        return "byte"

    @cached_property
    def tokens(self) -> Sequence[bytes]:
        return (*SINGLE_BYTES, b"") if self.has_end_of_text else SINGLE_BYTES

    @property
    def end_of_text(self) -> int | None:
        return len(SINGLE_BYTES) if self.has_end_of_text else None

    def with_end_of_text(self) -> "ByteTokenizer":
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        return {}

    def _encode_known(self, text: str) -> npt.ArrayLike:
        return np.frombuffer(text.encode(), np.uint8)
