"""The tokens of the texts so far: their counts, for the penalties, and their n-grams, for the n-gram ban.

Independent of models and text; stores only what the enabled processors need.
"""

from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np

from quickfox.config.sampling import SamplingConfig

Ngrams = dict[tuple[int, ...], list[int]]
"""The first n - 1 tokens of each n-gram -> the tokens that completed it."""


class TokenHistory:
    """The tokens of several texts with a common prompt, which grow by one token at a time.

    Args:
        prompt_ids: (n,) token ids that all texts begin with.
        num_texts: B, the number of texts.
        vocabulary_size: V.
        config: enables the penalties and the n-gram ban.
    """

    def __init__(self, prompt_ids: np.ndarray, num_texts: int, vocabulary_size: int, config: SamplingConfig) -> None:
        self._is_counting = bool(
            config.repetition_penalty != 1.0 or config.presence_penalty or config.frequency_penalty
        )
        self.counts = np.zeros((num_texts, vocabulary_size if self._is_counting else 0))
        """(B, V) float64: number of occurrences of each token among the last `penalty_window` of each text."""
        self._window = window = config.penalty_window
        self._counted: list[deque[int]] = [deque() for _ in range(num_texts)]  # of each text, the oldest first
        self._ngram = ngram = config.no_repeat_ngram
        self._prefixes: list[deque[int]] = [deque(maxlen=(ngram or 1) - 1) for _ in range(num_texts)]  # n - 1 last ids
        self._ngrams: list[Ngrams] = [defaultdict(list) for _ in range(num_texts)]  # without those of the prompt
        self._prompt_ngrams: list[Ngrams] = [defaultdict(list)] * num_texts  # one table, which all texts share
        prompt_ids = prompt_ids[prompt_ids < vocabulary_size]  # not the signals in it
        if self._is_counting:
            for token_id in prompt_ids[0 if window is None else -window :].tolist():
                self._count([token_id] * num_texts)
        if ngram is not None and num_texts:
            prefix = self._prefixes[0]
            _add_ngrams(self._prompt_ngrams[0], prefix, prompt_ids.tolist())
            self._prefixes = [prefix.copy() for _ in range(num_texts)]

    def append(self, token_ids: list[int]) -> None:
        """Append one token to each text."""
        if self._is_counting:
            self._count(token_ids)
        if self._ngram is not None:
            for prefix, ngrams, token_id in zip(self._prefixes, self._ngrams, token_ids, strict=True):
                _add_ngrams(ngrams, prefix, [token_id])

    def _count(self, token_ids: list[int]) -> None:
        # A loop over rows: for a single text, the usual case, four times as fast as indexing with arrays.
        for row, token_id in enumerate(token_ids):
            self.counts[row, token_id] += 1
            if self._window is not None:
                counted = self._counted[row]
                counted.append(token_id)
                if len(counted) > self._window:
                    self.counts[row, counted.popleft()] -= 1

    def banned_tokens(self) -> list[list[int]]:
        """For each text, the token ids that would complete an n-gram that it already contains."""
        assert self._ngram is not None, "the n-gram ban is not enabled"
        tables = zip(self._prefixes, self._prompt_ngrams, self._ngrams, strict=True)
        return [in_prompt.get(tuple(prefix), []) + own.get(tuple(prefix), []) for prefix, in_prompt, own in tables]

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep only the texts `rows`, in that order; a text may be selected more than once."""
        self.counts = self.counts[rows]
        self._counted = [self._counted[row].copy() for row in rows]
        self._prefixes = [self._prefixes[row].copy() for row in rows]
        self._prompt_ngrams = [self._prompt_ngrams[row] for row in rows]
        self._ngrams = [
            defaultdict(list, {prefix: list(ids) for prefix, ids in self._ngrams[row].items()}) for row in rows
        ]

    def extend(self, other: "TokenHistory") -> None:
        """Add the texts of another history with the same configuration, as the last rows."""
        self.counts = np.concatenate([self.counts, other.counts])
        self._counted += other._counted
        self._prefixes += other._prefixes
        self._prompt_ngrams += other._prompt_ngrams
        self._ngrams += other._ngrams


def _add_ngrams(ngrams: Ngrams, prefix: deque[int], token_ids: list[int]) -> None:
    """Adds the n-grams that end in each of the tokens; `prefix` holds the n - 1 tokens before, and moves on."""
    for token_id in token_ids:
        if len(prefix) == prefix.maxlen:
            ngrams[tuple(prefix)].append(token_id)
        prefix.append(token_id)
