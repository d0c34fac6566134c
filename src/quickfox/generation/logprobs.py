"""Tokens with their log-probabilities and the most probable alternatives. Independent of how they were generated."""

from collections.abc import Sequence

import numpy as np

from quickfox.generation.sampler import log_softmax
from quickfox.generation.stopping import Token
from quickfox.tokenizers.base import Tokenizer


def make_tokens(
    tokenizer: Tokenizer,
    token_ids: Sequence[int],
    texts: Sequence[str],
    logits: np.ndarray | None,
    num_alternatives: int | None,
    rests: Sequence[bytes] = (),
) -> list[Token]:
    """Tokens, with their log-probabilities by the model.

    Args:
        tokenizer: of the model.
        token_ids: n token ids.
        texts: the text that each adds.
        logits: (n, V) of the model before each token; None: without log-probabilities.
        num_alternatives: number of most probable tokens at each position; None: none.
        rests: the rest of the prompt that each token begins with, which is not part of its text; missing: none. The
            alternatives of such a token begin with it, too.
    """
    if logits is None:
        return [Token(token_id, text) for token_id, text in zip(token_ids, texts, strict=True)]
    logprobs = log_softmax(logits)
    count = num_alternatives or 0
    top_ids = np.argsort(-logprobs, axis=-1, kind="stable")[:, :count].tolist() if count else [[]] * len(texts)
    rests = rests or [b""] * len(texts)
    for row, rest in enumerate(rests):
        if rest and count:
            longer = np.array(
                [other for other, token in enumerate(tokenizer.tokens) if _adds_to(token, rest)], np.int64
            )
            top_ids[row] = longer[np.argsort(-logprobs[row, longer], kind="stable")[:count]].tolist()
    return [
        Token(
            token_id,
            text,
            float(row[token_id]),
            tuple((_text_after(tokenizer, other, rest), float(row[other])) for other in others if row[other] > -np.inf),
        )
        for token_id, text, row, others, rest in zip(token_ids, texts, logprobs, top_ids, rests, strict=True)
    ]


def _adds_to(token: bytes, rest: bytes) -> bool:
    return token.startswith(rest) and len(token) > len(rest)


def _text_after(tokenizer: Tokenizer, token_id: int, rest: bytes) -> str:
    """The text of a token without the rest of the prompt that it begins with."""
    if not rest:
        return tokenizer.decode([token_id])
    return tokenizer.token_bytes(token_id)[len(rest) :].decode(errors="replace")
