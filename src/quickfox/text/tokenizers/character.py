"""One token a character; a character's place in the vocabulary is its token id.

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
from quickfox.text.tokenizers.protocol import TokenIds, outside_of_vocabulary
from quickfox.text.vocabulary import CodePoints, Vocabulary, code_points, describe_characters

_UNKNOWN = -1


@dataclass(frozen=True)
class CharacterTokenizer:
    """The last id, after those of all characters, is the end of text, if `has_end_of_text`.

    Attributes:
        vocabulary: the characters.
        has_end_of_text: whether there is a token that ends a text.
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
        numbers = ids.tolist() if isinstance(ids, np.ndarray) else ids
        # Plain Python: text is decoded as it is drawn, a few tokens at a time, where array operations cost more.
        return "".join([self._token(number) for number in numbers])

    def token_bytes(self, token_id: int) -> bytes:
        return self._token(token_id).encode()

    def with_end_of_text(self) -> "CharacterTokenizer":
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        return {"min_count": self.vocabulary.min_count, "characters": list(self.vocabulary.characters)}

    def _token(self, token_id: int) -> str:
        if not 0 <= token_id < len(self._tokens):
            raise outside_of_vocabulary(token_id, len(self._tokens))
        return self._tokens[token_id]

    @cached_property
    def _tokens(self) -> tuple[str, ...]:
        return (*self.vocabulary.characters, "") if self.has_end_of_text else self.vocabulary.characters

    @cached_property
    def _ids_by_code_point(self) -> npt.NDArray[np.int32]:
        """Token id of each code point up to the vocabulary's last; one more entry stands for all beyond it."""
        codes = code_points("".join(self.vocabulary.characters))
        table = np.full(int(codes[-1]) + 2, _UNKNOWN, dtype=np.int32)
        table[codes] = np.arange(len(codes))
        return table


def _count_code_points(codes: CodePoints) -> Counter[str]:
    values, counts = np.unique(codes, return_counts=True)
    return Counter({chr(code): int(count) for code, count in zip(values, counts, strict=True)})
