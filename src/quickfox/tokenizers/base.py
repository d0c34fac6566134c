"""What a tokenizer is: a map from text to token ids and back, by which losses are compared and texts are streamed.

Every token stands for bytes of UTF-8, those of whole characters or not; a text is what its tokens' bytes are together.
"""

import codecs
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from quickfox.config.model import TokenizerKind
from quickfox.errors import DataError

TokenIds = npt.NDArray[np.unsignedinteger[Any]]
LossMask = npt.NDArray[np.bool_]


class Tokenizer(Protocol):
    """Between text and token ids: for every text that it accepts, decode(encode(text)) == text."""

    @property
    def kind(self) -> TokenizerKind:
        """What its tokens are: characters, bytes, words or, by byte-pair encoding, subwords."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Number of different tokens; ids are 0 ... vocabulary_size - 1."""
        ...

    @property
    def token_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smallest unsigned integer type that holds every token id."""
        ...

    @property
    def end_of_text(self) -> int | None:
        """The id of the token that ends a text and stands for nothing in it; None: there is none."""
        ...

    @property
    def known_characters(self) -> Container[str]:
        """The characters that it can encode."""
        ...

    def encode(self, text: str, unknown: Counter[str] | None = None) -> TokenIds:
        """The token ids of a text.

        Args:
            text: any text. What it says is never taken for the end-of-text token.
            unknown: when given, characters that cannot be encoded are left out and counted here.

        Returns:
            (number of tokens,) token ids, of `token_dtype`.

        Raises:
            DataError: the text has characters that cannot be encoded, and `unknown` is not given.
        """
        ...

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> str:
        """The text of token ids, (number of tokens,); bytes that are no UTF-8 become U+FFFD.

        Raises:
            DataError: an id is not that of a token.
        """
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for, in UTF-8; nothing for the end of text.

        Raises:
            DataError: the id is not that of a token.
        """
        ...

    def with_end_of_text(self) -> "Tokenizer":
        """The same tokenizer, with an end-of-text token after its other tokens if it had none."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What its file says besides the kind, as values that JSON knows."""
        ...


def start_of_text(tokenizer: Tokenizer) -> TokenIds:
    """What a model reads before a text: the end of the text before it, or a line end; nothing if it knows neither."""
    if tokenizer.end_of_text is not None:
        return np.array([tokenizer.end_of_text], tokenizer.token_dtype)
    return tokenizer.encode("\n", Counter())


def out_of_vocabulary_error(token_id: int, vocabulary_size: int) -> DataError:
    """The error of an id that is not that of a token."""
    return DataError(f"token id {token_id} is outside of the vocabulary of {vocabulary_size} tokens")


class StreamingDecoder:
    """The text of tokens that come one at a time: a character is told of when the last of its bytes is there.

    All that is told, and U+FFFD for what is left of an unfinished character, is what `decode` makes of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        """What one more token adds to the text."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def peek(self, token_id: int) -> str:
        """What a token would add to the text."""
        state = self._decoder.getstate()
        text = self.add(token_id)
        self._decoder.setstate(state)
        return text
