"""One token per character; the index of a character in the vocabulary is its token id.

{"format_version": 1, "type": "char", "min_count": 1, "characters": ["\\n", " ", "!", ...]}
"""

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from quickfox.errors import DataError
from quickfox.text.vocabulary import Vocabulary, code_points, describe_characters
from quickfox.tokenizers.base import TokenIds, Tokenizer


@dataclass(frozen=True)
class CharacterTokenizer(Tokenizer):
    """Tokenizer of characters.

    Attributes:
        vocabulary: the characters.
        has_end_of_text: whether an end-of-text token is appended to them.
    """

    kind = "char"
    vocabulary: Vocabulary
    has_end_of_text: bool = False

    @cached_property
    def tokens(self) -> tuple[bytes, ...]:
        end = [b""] if self.has_end_of_text else []
        return (*(character.encode() for character in self.vocabulary.characters), *end)

    @cached_property
    def known_characters(self) -> Container[str]:
        return frozenset(self.vocabulary.characters)

    def encode(self, text: str, unknown: Counter[str] | None = None) -> TokenIds:
        if text.isascii():  # `translate` is five times as fast as a NumPy table
            ids = np.frombuffer(text.encode().translate(self._ids_by_ascii), np.uint8)
        else:
            ids = self._ids_by_code_point.take(code_points(text), mode="clip")
        unknown_id = np.iinfo(ids.dtype).max
        if np.max(ids, initial=0) == unknown_id:
            is_known = ids != unknown_id
            missing = Counter(map(chr, np.sort(code_points(text)[~is_known]).tolist()))
            if unknown is None:
                names = describe_characters(character for character, _ in missing.most_common())
                raise DataError(f"the text has characters that are not in the vocabulary: {names}")
            unknown.update(missing)
            ids = ids[is_known]
        return ids.astype(self.token_dtype, copy=False)

    def with_end_of_text(self) -> Self:
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        return {"min_count": self.vocabulary.min_count, "characters": list(self.vocabulary.characters)}

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
