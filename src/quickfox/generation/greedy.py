"""Greedy decoding of many prompts as a batch: the most probable token at each step, until the end-of-text token.

Independent of tokenizers and text.
"""

from collections.abc import Sequence

import numpy as np

from quickfox.generation.sampler import argmax
from quickfox.models.language_model import LanguageModel, select_rows
from quickfox.models.mixture import begin_sampling

BATCH_SIZE = 64
"""Prompts continued at a time; as `completion.MAX_BATCH_SIZE`."""

_PREFILL_TOKENS = 16
"""Tokens of each prompt per call of the model: bounds the memory of the logits."""


def complete_greedily(
    model: LanguageModel, prompts: Sequence[np.ndarray], end_of_text: int, max_tokens: int
) -> list[list[int]]:
    """The token ids that follow each prompt, without the end-of-text token.

    They are those of `Sampler` at temperature 0 without penalties, up to rounding.

    Args:
        model: the language model.
        prompts: (n,) token ids of each, n >= 1.
        end_of_text: id of the token that ends a continuation.
        max_tokens: number of tokens after which a continuation ends without it.

    Raises:
        DataError: the model's logits are NaN or infinite.
    """
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    continuations: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(prompts), BATCH_SIZE):
        rows = by_length[start : start + BATCH_SIZE]
        batch = _complete_batch(model, [prompts[row] for row in rows], end_of_text, max_tokens)
        for row, token_ids in zip(rows, batch, strict=True):
            continuations[row] = token_ids
    return continuations


def _complete_batch(
    model: LanguageModel, prompts: Sequence[np.ndarray], end_of_text: int, max_tokens: int
) -> list[list[int]]:
    """`complete_greedily` for prompts in ascending order of length.

    All rows are at the same position: while one reads the rest of its prompt, shorter ones are continued already.
    """
    position = len(prompts[0])
    inputs = np.stack([prompt[:position] for prompt in prompts]).astype(np.int64)  # (B, T)
    state = model.initial_state(len(prompts))
    for start in range(0, position, _PREFILL_TOKENS):
        logits, state = model.forward(inputs[:, start : start + _PREFILL_TOKENS], state)
    continuations: list[list[int]] = [[] for _ in prompts]
    unfinished = list(range(len(prompts)))  # the prompt of each row
    while True:
        has_read_prompt = np.array([position >= len(prompts[index]) for index in unfinished])
        state = begin_sampling(model, state, has_read_prompt)
        next_ids = argmax(logits[:, -1])  # (B, T, V) -> B
        for row, index in enumerate(unfinished):
            if position < len(prompts[index]):
                next_ids[row] = int(prompts[index][position])
            elif next_ids[row] != end_of_text:
                continuations[index].append(next_ids[row])
        kept = [
            row
            for row, index in enumerate(unfinished)
            if position < len(prompts[index])
            or (next_ids[row] != end_of_text and len(continuations[index]) < max_tokens)
        ]
        if not kept:
            return continuations
        unfinished = [unfinished[row] for row in kept]
        state = select_rows(state, np.array(kept))
        logits, state = model.forward(np.array([next_ids[row] for row in kept])[:, np.newaxis], state)
        position += 1
