"""The base class Tokenizer: text to token ids and back; and a decoder for tokens that arrive one at a time.

Every token is a sequence of UTF-8 bytes, possibly a part of a character; the concatenated bytes are the text.
"""

import codecs
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from quickfox.config.model import TokenizerKind
from quickfox.errors import DataError

TokenIds = npt.NDArray[np.unsignedinteger[Any]]
LossMask = npt.NDArray[np.bool_]
TokenCounts = npt.NDArray[np.int64]

CODE_POINTS = 0x110000
"""Number of Unicode code points, each of which a text may contain."""


@dataclass(frozen=True)
class UnknownToken:
    """The token of the characters that a character tokenizer does not know: an input, never an output of a model.

    With the probability e that the next character is unknown, each of the unknown characters has the probability
    e / (CODE_POINTS - V), and each of the V known ones (1 - e) times that of the model without this token.

    Attributes:
        token_id: its id.
        probability: e, in (0, 1).
        num_known: V, the number of known characters.
    """

    token_id: int
    probability: float
    num_known: int

    @property
    def nats(self) -> float:
        """The cross-entropy of an unknown character."""
        return math.log((CODE_POINTS - self.num_known) / self.probability)

    def add_cost(self, losses: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.integer[Any]]) -> None:
        """Completes cross-entropies, (...) nats, of a model without this token, in place; `targets` has their shape."""
        losses -= math.log1p(-self.probability)
        losses[targets == self.token_id] = self.nats


class Tokenizer(ABC):
    """Converts text to token ids and back: decode(encode(text)) == text for every text it can encode."""

    kind: ClassVar[TokenizerKind]

    @property
    @abstractmethod
    def tokens(self) -> Sequence[bytes]:
        """The UTF-8 bytes of each token, by id: none of the end-of-text token, U+FFFD of the unknown token."""

    @property
    @abstractmethod
    def known_characters(self) -> Container[str]:
        """The characters it can encode."""

    @abstractmethod
    def encode(self, text: str, unknown: Counter[str] | None = None) -> TokenIds:
        """The token ids of a text.

        Args:
            text: any text; the name of the end-of-text token in it is ordinary text.
            unknown: if given, characters that cannot be encoded are counted here; they become the unknown token, or are
                skipped if there is none.

        Returns:
            (number of tokens,) token ids, of `token_dtype`.

        Raises:
            DataError: a character cannot be encoded, and `unknown` is not given.
        """

    def encode_all(self, texts: Sequence[str], unknown: Counter[str] | None = None) -> tuple[TokenIds, TokenCounts]:
        """The token ids of several texts; faster than `encode` of each, if they are short.

        Args:
            texts: any texts; no token extends over two of them.
            unknown: as for `encode`.

        Returns:
            (number of all tokens,) token ids of the texts joined, of `token_dtype`; (number of texts,) the number of
            tokens of each text.

        Raises:
            DataError: as `encode`.
        """
        ids = [self.encode(text, unknown) for text in texts]
        return np.concatenate([np.empty(0, self.token_dtype), *ids]), np.fromiter(map(len, ids), np.int64, len(ids))

    @abstractmethod
    def with_end_of_text(self) -> Self:
        """The same tokenizer with an end-of-text token, which is appended if missing."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The members of its file except the kind, as JSON values."""

    def safe_length(self, text: str) -> int:
        """The length of the longest part at the start of a text whose tokens do not depend on what follows the text."""
        return len(text)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; ids are 0 ... vocabulary_size - 1."""
        return len(self.tokens)

    @property
    def token_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smallest unsigned integer type that holds every token id."""
        return np.min_scalar_type(self.vocabulary_size - 1)

    @property
    def end_of_text(self) -> int | None:
        """The id of the end-of-text token; None: there is none."""
        return None if self.tokens[-1] else len(self.tokens) - 1

    @property
    def unknown_token(self) -> UnknownToken | None:
        """The token of unknown characters; None: there is none."""
        return None

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes of a token; empty for the end-of-text token.

        Raises:
            DataError: the id is out of range.
        """
        if not 0 <= token_id < len(self.tokens):
            raise DataError(f"token id {token_id} is outside the vocabulary of {len(self.tokens)} tokens")
        return self.tokens[token_id]

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> str:
        """The text of token ids, (number of tokens,); bytes that are not UTF-8 become U+FFFD.

        Raises:
            DataError: an id is out of range.
        """
        # Plain Python: sampling decodes a few tokens at a time, for which array operations cost more.
        numbers = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return b"".join(map(self.token_bytes, numbers)).decode(errors="replace")


def start_of_text(tokenizer: Tokenizer) -> TokenIds:
    """The tokens a model reads before a text: the end-of-text token or a line feed; empty if it has neither."""
    if tokenizer.end_of_text is not None:
        return np.array([tokenizer.end_of_text], tokenizer.token_dtype)
    return tokenizer.encode("\n" if "\n" in tokenizer.known_characters else "")


class StreamingDecoder:
    """Decodes tokens one at a time; a character is returned with the token that has its last byte.

    The concatenated results, and U+FFFD for an unfinished character at the end, equal `decode` of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        """Appends a token and returns the text it completes."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def peek(self, token_id: int) -> str:
        """The text that `add` would return, without appending the token."""
        state = self._decoder.getstate()
        text = self.add(token_id)
        self._decoder.setstate(state)
        return text
