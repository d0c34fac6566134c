"""Byte-level tokenizers, which encode every character: the base of `word` and `bpe`, and one token per UTF-8 byte."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError
from quickfox.text.vocabulary import SURROGATES, describe_characters
from quickfox.tokenizers.base import TokenCounts, TokenIds, Tokenizer

SINGLE_BYTES = tuple(bytes([value]) for value in range(256))
_BYTES_AND_END = (*SINGLE_BYTES, b"")


class _EveryCharacter:
    """The set of all characters; surrogates are not characters."""

    def __contains__(self, character: object) -> bool:
        return isinstance(character, str) and len(character) == 1 and ord(character) not in SURROGATES


class ByteLevelTokenizer(Tokenizer):
    """Base of the byte, word and subword tokenizers."""

    @abstractmethod
    def _encode_known(self, texts: Sequence[str]) -> tuple[npt.ArrayLike, Sequence[int]]:
        """The token ids of all texts, which have no surrogates, and the number of tokens of each text."""

    @property
    def known_characters(self) -> Container[str]:
        return _EveryCharacter()

    def encode(self, text: str, unknown: Counter[str] | None = None) -> TokenIds:
        return self.encode_all([text], unknown)[0]

    def encode_all(self, texts: Sequence[str], unknown: Counter[str] | None = None) -> tuple[TokenIds, TokenCounts]:
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            texts = [_without_surrogates(text, unknown) for text in texts]
        ids, counts = self._encode_known(texts)
        return np.asarray(ids, self.token_dtype), np.asarray(counts, np.int64)


def _without_surrogates(text: str, unknown: Counter[str] | None) -> str:
    """The text without surrogates, counted in `unknown`; raises DataError if there are any and `unknown` is None."""
    surrogates = Counter(character for character in text if ord(character) in SURROGATES)
    if surrogates and unknown is None:
        raise DataError(f"the text has unpaired surrogates: {describe_characters(surrogates)}")
    if unknown is not None:
        unknown.update(surrogates)
    return "".join(character for character in text if ord(character) not in SURROGATES)


@dataclass(frozen=True)
class ByteTokenizer(ByteLevelTokenizer):
    """One token per byte, whose value is the token id; 256 is the end of text, if `has_end_of_text`.

    {"format_version": 1, "type": "byte"}
    """

    kind = "byte"
    has_end_of_text: bool = False

    @property
    def tokens(self) -> Sequence[bytes]:
        return _BYTES_AND_END if self.has_end_of_text else SINGLE_BYTES

    def with_end_of_text(self) -> Self:
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        return {}

    def _encode_known(self, texts: Sequence[str]) -> tuple[npt.ArrayLike, Sequence[int]]:
        text = "".join(texts)
        counts = [len(each) if text.isascii() else len(each.encode()) for each in texts]
        return np.frombuffer(text.encode(), np.uint8), counts
