"""One token per character; the index of a character in the vocabulary is its token id.

    {"format_version": 2, "type": "char", "min_count": 1, "unknown_probability": 0.001, "characters": ["\\n", " ", ...]}

The last token stands for all unknown characters; files of format version 1 have no such token and no
`unknown_probability`.
"""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError
from quickfox.text.vocabulary import Vocabulary, code_points, describe_characters
from quickfox.tokenizers.base import TokenCounts, TokenIds, Tokenizer, UnknownToken

_UNKNOWN_BYTES = "\ufffd".encode()


@dataclass(frozen=True)
class CharacterTokenizer(Tokenizer):
    """Tokenizer of characters.

    Attributes:
        vocabulary: the characters.
        has_end_of_text: whether an end-of-text token is appended to them.
        unknown_probability: of an unknown character, in (0, 1), see `UnknownToken`; None: there is no token for them.

    Raises:
        DataError: the probability is out of range.
    """

    kind = "char"
    vocabulary: Vocabulary
    has_end_of_text: bool = False
    unknown_probability: float | None = None

    def __post_init__(self) -> None:
        if self.unknown_probability is not None and not 0.0 < self.unknown_probability < 1.0:
            raise DataError(f"unknown_probability must be between 0 and 1, not {self.unknown_probability}")

    @cached_property
    def tokens(self) -> tuple[bytes, ...]:
        end = [b""] if self.has_end_of_text else []
        unknown = [] if self.unknown_probability is None else [_UNKNOWN_BYTES]
        return (*(character.encode() for character in self.vocabulary.characters), *end, *unknown)

    @property
    def end_of_text(self) -> int | None:
        return len(self.vocabulary.characters) if self.has_end_of_text else None

    @cached_property
    def unknown_token(self) -> UnknownToken | None:
        if self.unknown_probability is None:
            return None
        return UnknownToken(len(self.tokens) - 1, self.unknown_probability, len(self.vocabulary.characters))

    @cached_property
    def known_characters(self) -> Container[str]:
        return frozenset(self.vocabulary.characters)

    def encode(self, text: str, unknown: Counter[str] | None = None) -> TokenIds:
        if text.isascii():  # `translate` is five times as fast as a NumPy table
            ids = np.frombuffer(text.encode().translate(self._ids_by_ascii), np.uint8)
        else:
            ids = self._ids_by_code_point.take(code_points(text), mode="clip")
        missing_id = np.iinfo(ids.dtype).max
        if np.max(ids, initial=0) == missing_id:
            is_known = ids != missing_id
            missing = Counter(map(chr, np.sort(code_points(text)[~is_known]).tolist()))
            if unknown is None:
                names = describe_characters(character for character, _ in missing.most_common())
                raise DataError(f"the text has characters that are not in the vocabulary: {names}")
            unknown.update(missing)
            if self.unknown_token is not None:
                ids = ids.astype(self.token_dtype)  # before, the unknown token may not fit
                ids[~is_known] = self.unknown_token.token_id
                return ids
            ids = ids[is_known]
        return ids.astype(self.token_dtype, copy=False)

    def encode_all(self, texts: Sequence[str], unknown: Counter[str] | None = None) -> tuple[TokenIds, TokenCounts]:
        text = "".join(texts)
        missing: Counter[str] | None = None if unknown is None else Counter()
        ids = self.encode(text, missing)
        if len(ids) < len(text):  # unknown characters are skipped
            return super().encode_all(texts, unknown)
        if unknown is not None and missing:
            unknown.update(missing)
        return ids, np.fromiter(map(len, texts), np.int64, len(texts))

    def with_unknown_token(self, counts: Counter[str]) -> Self:
        """The same tokenizer with an unknown token for texts like one in which each character occurs `counts` times."""
        return replace(self, unknown_probability=unknown_probability(counts, self.known_characters))

    def with_end_of_text(self) -> Self:
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        unknown = {} if self.unknown_probability is None else {"unknown_probability": self.unknown_probability}
        return {"min_count": self.vocabulary.min_count, **unknown, "characters": list(self.vocabulary.characters)}

    @cached_property
    def _ids_by_code_point(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Token id of each code point up to the vocabulary's last, and one more entry for all code points above it.

        The largest number of the dtype, which is not a token id, marks unknown characters.
        """
        codes = code_points("".join(self.vocabulary.characters))
        dtype: np.dtype[np.unsignedinteger[Any]] = np.min_scalar_type(len(codes))
        table = np.full(int(codes[-1]) + 2, np.iinfo(dtype).max, dtype)
        table[codes] = np.arange(len(codes))
        return table

    @cached_property
    def _ids_by_ascii(self) -> bytes:
        """The same for ASCII, whose characters are the first ones and so have ids below 128."""
        ids = {ord(character): number for number, character in enumerate(self.vocabulary.characters[:128])}
        return bytes(ids.get(code, 0xFF) for code in range(256))


def unknown_probability(counts: Counter[str], known: Container[str]) -> float:
    """The probability that the next character of a text is unknown, from the count of each of its characters.

    As many characters are expected to be new as were seen once (Good 1953, "The population frequencies of species and
    the estimation of population parameters"), and those that are not in `known` are expected again:

        (1 + number of characters seen once, or unknown) / (2 + number of all)
    """
    rare = sum(count for character, count in counts.items() if count == 1 or character not in known)
    return (1 + rare) / (2 + counts.total())
