"""What has been said: the tokens of each text so far, counted as the penalties and the n-gram ban need them.

It knows token ids only, and remembers no more than it is asked for.
"""

from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np

Followers = dict[tuple[int, ...], list[int]]


class History:
    """The tokens of several texts with one prompt, growing by a token at a time.

    Args:
        prompt_ids: (n,) token ids that all texts begin with.
        num_texts: B, the number of texts.
        vocabulary_size: V; None: `counts` is not needed.
        window: tokens that `counts` looks back; None: all.
        ngram: length of the n-grams that `repeating_tokens` looks for; None: it is not needed.
    """

    def __init__(
        self,
        prompt_ids: np.ndarray,
        num_texts: int,
        *,
        vocabulary_size: int | None,
        window: int | None,
        ngram: int | None,
    ) -> None:
        self.counts = np.zeros((num_texts, vocabulary_size or 0))
        """(B, V) float64: how often each token is among the last `window` of each text."""
        self._is_counting = vocabulary_size is not None
        self._window = window
        self._recent: deque[list[int]] = deque()  # the tokens counted, one of each text, the oldest first
        self._ngram = ngram
        self._tails: list[deque[int]] = [deque(maxlen=(ngram or 1) - 1) for _ in range(num_texts)]
        self._followers: list[Followers] = [defaultdict(list) for _ in range(num_texts)]
        needed = prompt_ids if ngram is not None else prompt_ids[-window:] if window is not None else prompt_ids
        for token_id in needed.tolist() if self._is_counting or ngram is not None else []:
            self.append([token_id] * num_texts)

    def append(self, token_ids: list[int]) -> None:
        """One more token of each text."""
        # Row by row: for one row, which is what is most often drawn, a quarter of the time of NumPy's indexing.
        if self._is_counting:
            for row, token_id in enumerate(token_ids):
                self.counts[row, token_id] += 1
            if self._window is not None:
                self._recent.append(token_ids)
                if len(self._recent) > self._window:
                    for row, token_id in enumerate(self._recent.popleft()):
                        self.counts[row, token_id] -= 1
        if self._ngram is not None:
            for tail, followers, token_id in zip(self._tails, self._followers, token_ids, strict=True):
                if len(tail) == tail.maxlen:
                    followers[tuple(tail)].append(token_id)
                tail.append(token_id)

    def repeating_tokens(self) -> list[list[int]]:
        """For each text the token ids that would make an n-gram of it come a second time."""
        assert self._ngram is not None, "the history was made without n-grams"
        return [followers.get(tuple(tail), []) for tail, followers in zip(self._tails, self._followers, strict=True)]

    def take(self, rows: Sequence[int]) -> None:
        """Go on with the texts in `rows` alone, in that order; a text may be taken twice."""
        self.counts = self.counts[rows]
        self._recent = deque([token_ids[row] for row in rows] for token_ids in self._recent)
        self._tails = [self._tails[row].copy() for row in rows]
        copies = [self._followers[row] for row in rows]
        self._followers = [defaultdict(list, {key: list(ids) for key, ids in copy.items()}) for copy in copies]
