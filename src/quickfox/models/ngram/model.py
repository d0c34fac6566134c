"""Inference of an n-gram model in NumPy.

    p(w | h) = alpha(w | h) + gamma(h) p(w | h')

over all contexts h, the longest first, that occur in the tables (see `kneser_ney`). The state of a text is the index
of its last k tokens among the k-grams, for each order k below the highest, so that reading a token is one search in
each order.

A mixture does not extend sampled texts by n-grams of the highest order. Its alpha counts how often an n-gram occurs in
the training text, that of the other orders how many different tokens precede it, which is 1 for all n-grams of a
passage that occurs several times. Without the highest order, samples copy less (see benchmarks/LOG.md).
"""

from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.language_model import Prior, State
from quickfox.models.ngram.counting import ABSENT
from quickfox.models.ngram.tables import context_sums

MIN_GAMMA = 2.0**-24
"""Smallest gamma(h): below, float32 rounding would give tokens that never follow h the probability 0."""

MIN_SCALE = 1e-20
"""Smallest product of gamma over several contexts, for the same reason."""

MIN_UNIGRAM = 1e-17
"""Smallest probability of a token without context: below, its product with MIN_SCALE would not be a normal float32."""

MIN_SAMPLED_ORDER = 4
"""Orders up to this one are all used for sampled texts."""

LEFT_OUT = -2
"""In a state, in place of the longest context: it is not looked for."""

_FEW_ENTRIES = 16  # of one context, up to which a loop in Python is faster than array operations
_SHORT_CONTEXT = 3  # tokens of contexts whose distributions are kept: in sampling, such contexts recur
_MAX_BYTES_OF_SHORT_ROWS = 2**24


class _Order:
    """The n-grams of one order >= 2, grouped by their context, an n-gram of the order below.

    Its memoryviews are faster than arrays to read single elements from.
    """

    def __init__(self, order: int, parameters: Mapping[str, np.ndarray]) -> None:
        self.offsets, self.tokens, self.alphas = (
            parameters[f"ngram.{order}.{name}"] for name in ("offsets", "tokens", "probs")
        )
        self.offsets_view, self.tokens_view, self.alphas_view = self.offsets.data, self.tokens.data, self.alphas.data

    @cached_property
    def gammas(self) -> np.ndarray:
        """gamma of each context, and 1 at the index ABSENT, the last: (m + 1,) float32; computed on first use."""
        gammas = 1.0 - context_sums(self.offsets, self.alphas)
        return np.append(np.maximum(gammas, MIN_GAMMA), 1.0).astype(np.float32)

    @cached_property
    def _search_steps(self) -> int:
        """Steps of a binary search among the n-grams of any context."""
        return int(np.diff(self.offsets).max(initial=0)).bit_length()

    def find(self, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The index of the n-gram of each context and token, or ABSENT: integers of one shape -> int64."""
        if len(self.tokens) == 0:
            return np.full(contexts.shape, ABSENT)
        low, end = (self.offsets[contexts + step].astype(np.int64) for step in (0, 1))  # of an absent context, any
        high = end
        for _ in range(self._search_steps):  # a binary search for all at once
            middle = (low + high) >> 1
            is_less = (self._token_at(middle) < tokens) & (low < high)
            low, high = np.where(is_less, middle + 1, low), np.where(is_less, high, middle)
        is_found = (low < end) & (contexts != ABSENT) & (self._token_at(low) == tokens)
        return np.where(is_found, low, ABSENT)

    def _token_at(self, index: np.ndarray) -> np.ndarray:
        tokens: np.ndarray = self.tokens[np.minimum(index, len(self.tokens) - 1)]
        return tokens


class NgramLanguageModel:
    """An n-gram model as a `language_model.LanguageModel`; for its arguments see `registry.build_language_model`."""

    context: int | None = None

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> None:
        self._unigrams = np.maximum(parameters["ngram.1.probs"], np.float32(MIN_UNIGRAM))  # (V,)
        self._orders = [_Order(order, parameters) for order in range(2, len(config.ngrams) + 1)]
        self._lengths = [np.array([[length]]) for length in range(len(self._orders) + 1)]
        # The distributions (V,) after short contexts, by the length of the context and its index.
        self._short_rows: list[dict[int, np.ndarray]] = [{} for _ in range(_SHORT_CONTEXT + 1)]
        self._short_rows_left = _MAX_BYTES_OF_SHORT_ROWS // self._unigrams.nbytes

    def initial_state(self, batch_size: int) -> State:
        return ((np.full((batch_size, len(self._orders)), ABSENT, np.int32),),)

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        probs, new_state = self.probs(token_ids, state)
        return np.log(probs, out=probs), new_state

    def probs(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """As `forward`, with probabilities (B, T, V) float32 in place of their logarithms."""
        contexts, new_state = self.read(token_ids, state)
        return self.distributions(contexts), new_state

    def prior(self, token_ids: np.ndarray, state: State) -> tuple[Prior, State]:
        """As `forward`, with all that an n-gram gate reads."""
        if token_ids.size == 1:
            return self._prior_of_one(token_ids.item(0), state)
        contexts, new_state = self.read(token_ids, state)
        probs = self.distributions(contexts)
        return Prior(np.log(probs, out=probs), context_lengths(contexts)), new_state

    def target_probs(self, token_ids: np.ndarray, targets: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """The probability of one token after each token read, faster than `probs`.

        Args:
            token_ids, state: as for `forward`.
            targets: (B, T) integers, 0 <= id < V.

        Returns:
            (B, T) float32; and the state after the last token.
        """
        contexts, new_state = self.read(token_ids, state)
        probs = self._unigrams[targets]
        for order, context in zip(self._orders, np.moveaxis(contexts, -1, 0), strict=True):
            found = order.find(context, targets)
            probs = order.gammas[context] * probs
            probs[found != ABSENT] += order.alphas[found[found != ABSENT]]
        return np.maximum(probs, MIN_SCALE * self._unigrams[targets]), new_state

    def read(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """The contexts after each token, (B, T, K - 1) int32, the shortest first, and the state after the last.

        A context is the index of the last tokens among the n-grams of that order, or ABSENT.
        """
        ((before,),) = state
        contexts = np.empty((token_ids.shape[0], token_ids.shape[1] + 1, len(self._orders)), np.int32)
        contexts[:, 0] = before
        if self._orders:
            contexts[:, 1:, 0] = token_ids
        for length, order in enumerate(self._orders[:-1], start=1):  # of the contexts that are extended
            contexts[:, 1:, length] = order.find(contexts[:, :-1, length - 1], token_ids)
        after = contexts[:, -1]
        if (is_left_out := (before == LEFT_OUT).any(axis=1)).any():
            contexts[is_left_out, 1:, -1] = ABSENT
            after = after.copy()
            after[is_left_out, -1] = LEFT_OUT
        return contexts[:, 1:], ((after,),)

    def leave_out_highest_order(self, state: State, rows: np.ndarray | slice = slice(None)) -> State:
        """The state of texts to which sampled tokens are appended; see above.

        Args:
            state: of B texts; not changed.
            rows: which texts; the others keep their state.
        """
        ((contexts,),) = state
        if len(self._orders) + 1 <= MIN_SAMPLED_ORDER:
            return state
        contexts = contexts.copy()
        contexts[rows, -1] = LEFT_OUT
        return ((contexts,),)

    def _prior_of_one(self, token: int, state: State) -> tuple[Prior, State]:
        """`prior` for one token of one text: loops, which are faster than array operations (see benchmarks/LOG.md)."""
        ((before,),) = state
        *extended, longest = before[0].tolist() or [ABSENT]
        if longest == LEFT_OUT:
            extended.pop()
        contexts = [token] if self._orders else []
        for order, context in zip(self._orders, extended):  # noqa: B905 - `strict` takes time, here and below
            found = ABSENT
            if context != ABSENT:
                tokens, end = order.tokens_view, order.offsets_view[context + 1]
                index = bisect_left(tokens, token, order.offsets_view[context], end)
                if index < end and tokens[index] == token:
                    found = index
            contexts.append(found)
        row = self._row(contexts)
        length = len(contexts)
        while length and contexts[length - 1] == ABSENT:
            length -= 1
        if longest == LEFT_OUT:
            contexts.append(LEFT_OUT)
        prior = Prior(np.log(row, out=row)[np.newaxis, np.newaxis], self._lengths[length])
        return prior, ((np.array([contexts], np.int32),),)

    def distributions(self, contexts: np.ndarray) -> np.ndarray:
        """The distributions after contexts (B, T, K - 1), as `read` returns them: (B, T, V) float32."""
        flat = contexts.reshape(contexts.shape[0] * contexts.shape[1], len(self._orders))
        return self._rows(flat).reshape(*contexts.shape[:2], -1)

    def _rows(self, contexts: np.ndarray) -> np.ndarray:
        """The distributions after contexts (N, K - 1): (N, V) float32."""
        scale = np.ones(len(contexts), np.float32)  # the product of gamma over the longer contexts
        cells, shares = [], []
        for order, column in zip(reversed(self._orders), reversed(contexts.T), strict=True):
            rows, lengths, starts, index = read_entries(order.offsets, column)
            if len(rows) == 0:
                continue
            alphas = order.alphas[index]
            cells.append(np.repeat(rows * len(self._unigrams), lengths) + order.tokens[index])
            shares.append(alphas * np.repeat(scale[rows], lengths))
            scale[rows] *= np.maximum(1.0 - np.add.reduceat(alphas, starts, dtype=np.float64), MIN_GAMMA)
        probs: np.ndarray = np.maximum(scale, MIN_SCALE)[:, None] * self._unigrams  # (N, V)
        flat = probs.reshape(-1)
        for cell, share in zip(cells, shares, strict=True):
            flat[cell] += share  # the cells of one order are distinct
        return probs

    def _row(self, contexts: list[int]) -> np.ndarray:
        """The distribution after one context of each length, up to any, (V,) float32, as a new array."""
        row, known = self._unigrams, 0
        for length in range(min(_SHORT_CONTEXT, len(contexts)), 0, -1):
            short_row = self._short_rows[length].get(contexts[length - 1])
            if short_row is not None:
                row, known = short_row, length
                break
        for length in range(known + 1, min(_SHORT_CONTEXT, len(contexts)) + 1):
            if (context := contexts[length - 1]) != ABSENT:
                row = self._extend(row, contexts, length - 1, length)
                if self._short_rows_left > 0:
                    self._short_rows_left -= 1
                    self._short_rows[length][context] = row
        return self._extend(row, contexts, _SHORT_CONTEXT, len(contexts))

    def _extend(self, row: np.ndarray, contexts: list[int], first_length: int, length: int) -> np.ndarray:
        """`_row` after the contexts up to `length`, given that after those up to `first_length`, as a new array."""
        scale = 1.0  # the product of gamma over the longer contexts
        shares: list[tuple[Any, Any, float]] = []
        while length > first_length:
            length -= 1
            context = contexts[length]
            if context == ABSENT:
                continue
            order = self._orders[length]
            first, end = order.offsets_view[context], order.offsets_view[context + 1]
            if end - first > _FEW_ENTRIES:
                alphas = order.alphas[first:end]
                shares.append((order.tokens[first:end].astype(np.intp), alphas, scale))
                total = float(alphas.sum(dtype=np.float64))
            else:
                few = order.alphas_view[first:end].tolist()
                shares.append((order.tokens_view[first:end], few, scale))
                total = sum(few)
            scale *= max(1.0 - total, MIN_GAMMA)
        extended: np.ndarray = row * max(scale, MIN_SCALE)
        view: Any = extended.data
        for tokens, alphas, share in shares:
            if len(alphas) > _FEW_ENTRIES:
                extended[tokens] += alphas * np.float32(share)
            else:
                for token, alpha in zip(tokens, alphas):  # noqa: B905
                    view[token] += alpha * share
        return extended


def read_entries(offsets: np.ndarray, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The n-grams of one order that extend contexts.

    Args:
        offsets: of the order, see `tables`.
        contexts: (N,) integers, of which ABSENT and those that no n-gram extends are left out.

    Returns:
        Of each of the n other contexts, its position in `contexts`, the number of its n-grams and the position of the
        first of them in `index`, (n,) each; and `index`, the numbers of the n-grams of all these contexts.
    """
    first, end = (offsets[contexts + step].astype(np.int64) for step in (0, 1))  # of an absent context, last and first
    rows = np.flatnonzero(first < end)
    first = first[rows]
    lengths = end[rows] - first
    starts = np.cumsum(lengths) - lengths
    index = np.arange(lengths.sum()) + np.repeat(first - starts, lengths)
    return rows, lengths, starts, index


def context_lengths(contexts: np.ndarray) -> np.ndarray:
    """The length of the longest context found: (B, T, K - 1), as `NgramLanguageModel.read` returns it -> (B, T)."""
    if contexts.shape[-1] == 0:
        return np.zeros(contexts.shape[:-1], np.intp)
    # The context of one token, the one that was read, is always found.
    lengths: np.ndarray = contexts.shape[-1] - (contexts[..., ::-1] != ABSENT).argmax(axis=-1)
    return lengths
