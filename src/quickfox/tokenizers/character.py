"""One token per character; the index of a character in the vocabulary is its token id.

{"format_version": 1, "type": "char", "min_count": 1, "characters": ["\\n", " ", "!", ...]}
"""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError
from quickfox.text.vocabulary import CodePoints, Vocabulary, code_points, describe_characters
from quickfox.tokenizers.base import TokenIds, out_of_vocabulary_error


@dataclass(frozen=True)
class CharacterTokenizer:
    """Tokenizer of characters.

    Attributes:
        vocabulary: the characters.
        has_end_of_text: whether an end-of-text token is appended to them.
    """

    vocabulary: Vocabulary
    has_end_of_text: bool = False

    @property
    def kind(self) -> Literal["char"]:
        return "char"

    @property
    def vocabulary_size(self) -> int:
        return len(self._tokens)

    @property
    def token_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.min_scalar_type(self.vocabulary_size - 1)

    @property
    def end_of_text(self) -> int | None:
        return len(self.vocabulary.characters) if self.has_end_of_text else None

    @cached_property
    def known_characters(self) -> Container[str]:
        return frozenset(self.vocabulary.characters)

    def encode(self, text: str, unknown: Counter[str] | None = None) -> TokenIds:
        if text.isascii():  # `translate` is five times as fast as a NumPy table
            ids = np.frombuffer(text.encode().translate(self._ids_by_ascii), np.uint8)
        else:
            ids = self._ids_by_code_point.take(code_points(text), mode="clip")
        unknown_id = np.iinfo(ids.dtype).max
        if ids.max(initial=0) == unknown_id:
            is_known = ids != unknown_id
            missing = _count_code_points(code_points(text)[~is_known])
            if unknown is None:
                names = describe_characters(character for character, _ in missing.most_common())
                raise DataError(f"the text has characters that are not in the vocabulary: {names}")
            unknown.update(missing)
            ids = ids[is_known]
        return ids.astype(self.token_dtype, copy=False)

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> str:
        numbers = ids.tolist() if isinstance(ids, np.ndarray) else ids
        # Plain Python: sampling decodes a few tokens at a time, for which array operations cost more.
        return "".join([self._token(number) for number in numbers])

    def token_bytes(self, token_id: int) -> bytes:
        return self._token(token_id).encode()

    def with_end_of_text(self) -> "CharacterTokenizer":
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        return {"min_count": self.vocabulary.min_count, "characters": list(self.vocabulary.characters)}

    def _token(self, token_id: int) -> str:
        if not 0 <= token_id < len(self._tokens):
            raise out_of_vocabulary_error(token_id, len(self._tokens))
        return self._tokens[token_id]

    @cached_property
    def _tokens(self) -> tuple[str, ...]:
        return (*self.vocabulary.characters, "") if self.has_end_of_text else self.vocabulary.characters

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
        return bytes(ids.get(code, 0xFF) if code < 128 else 0xFF for code in range(256))


def _count_code_points(codes: CodePoints) -> Counter[str]:
    values, counts = np.unique(codes, return_counts=True)
    return Counter({chr(code): int(count) for code, count in zip(values, counts, strict=True)})
