"""Back a prompt up to its last token border that no continuation can move, and constrain the next tokens to its rest.

What a prompt ends with, a part of a word or a space, is tokenized as no text in training is: " qu" is tokens of its
own, while " quick" is one. So the tokens after the last safe border are taken off, and the next tokens must spell the
text that was taken off, whatever they add to it ("token healing", Lundberg 2023, "The art of prompt design: prompt
boundaries and token healing"). Independent of models.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quickfox.tokenizers.base import Tokenizer, start_of_text

MAX_HEALED_TOKENS = 64
"""Maximum number of tokens that are taken off: a bound for texts without borders."""


@dataclass(frozen=True)
class HealedPrompt:
    """A prompt for generation.

    Attributes:
        token_ids: (n,) of the prompt up to the border; at least one if the prompt had any, or the text may begin.
        rest: the bytes after it, which the next tokens must spell.
    """

    token_ids: np.ndarray
    rest: bytes = b""


def heal_prompt(tokenizer: Tokenizer, prompt_ids: Sequence[int] | np.ndarray) -> HealedPrompt:
    """Takes off the tokens of a prompt, (n,), that depend on what follows it."""
    ids = np.asarray(prompt_ids, np.int64)
    ends = np.flatnonzero((ids == tokenizer.end_of_text) | (ids >= tokenizer.vocabulary_size))  # of texts, of signals
    first = max(len(ids) - MAX_HEALED_TOKENS, int(ends[-1]) + 1 if len(ends) else 0)
    tail = [tokenizer.token_bytes(token_id) for token_id in ids[first:].tolist()]
    within = len(list(itertools.takewhile(_begins_within_character, tail)))
    first, tail = first + within, tail[within:]
    text = b"".join(tail)
    try:
        kept_bytes = len(text.decode()[: tokenizer.safe_length(text.decode())].encode())
        kept, size = 0, 0
        while kept < len(tail) and size + len(tail[kept]) <= kept_bytes:
            size += len(tail[kept])
            kept += 1
        text[size:].decode()
    except UnicodeDecodeError:  # the prompt, or what would be taken off of one that is given as ids, is no whole text
        return HealedPrompt(ids)
    token_ids = ids[: first + kept]
    return HealedPrompt(token_ids if len(token_ids) else start_of_text(tokenizer).astype(np.int64), text[size:])


def _begins_within_character(token: bytes) -> bool:
    return token[:1] != b"" and token[0] & 0xC0 == 0x80


def agreeing_tokens(tokens: Sequence[bytes], rest: bytes) -> np.ndarray:
    """The ids of the tokens that begin with `rest`, or that `rest` begins with; (n,) integers."""
    head = rest[:1]
    found = [
        token_id
        for token_id, token in enumerate(tokens)
        if token[:1] == head and token and (token.startswith(rest) or rest.startswith(token))
    ]
    return np.array(found, np.int64)


class PromptRests:
    """What the next tokens of several texts must spell.

    Args:
        rest: the bytes of the rest of the prompt, of all texts.
        num_texts: number of texts, B.
        token_bytes: the bytes of each token; may be missing if there is no rest.
    """

    def __init__(self, rest: bytes, num_texts: int, token_bytes: Sequence[bytes]) -> None:
        self._rests = [rest] * num_texts
        self._token_bytes = token_bytes

    def mask(self, logits: np.ndarray) -> np.ndarray:
        """Logits (B, V) with -inf for the tokens that do not agree with the rest of their text."""
        if not any(self._rests):
            return logits
        masked = logits.copy()
        for rest in set(self._rests) - {b""}:
            disagrees = np.ones(logits.shape[1], bool)
            disagrees[agreeing_tokens(self._token_bytes, rest)] = False
            for row, other in enumerate(self._rests):
                if other == rest:
                    masked[row, disagrees] = -np.inf
        return masked

    def append(self, token_ids: Sequence[int]) -> None:
        """Append one token to each text."""
        if any(self._rests):
            lengths = [len(self._token_bytes[token_id]) for token_id in token_ids]
            self._rests = [rest[length:] for rest, length in zip(self._rests, lengths, strict=True)]

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep only the texts `rows`."""
        self._rests = [self._rests[row] for row in rows]

    def extend(self, other: "PromptRests") -> None:
        """Add the texts of `other`, which has the same tokens, as the last ones."""
        self._rests = self._rests + other._rests
        self._token_bytes = self._token_bytes or other._token_bytes
