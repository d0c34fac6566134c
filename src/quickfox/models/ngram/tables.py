"""The tables of an n-gram model as tensors: their layout, and the checks of tables read from a file.

The n-grams of order k >= 2 are sorted by their first k - 1 tokens, the context, and then by their last token:
`offsets[i]` up to `offsets[i + 1]` are those with the context i, an n-gram of order k - 1. See `models/parameters.py`
for the names, shapes and dtypes, and `kneser_ney` for the meaning of `probs`.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.errors import DataError
from quickfox.models.parameters import token_dtype

MAX_ROUNDING = 1e-5
"""Tolerance of the sums of float32 probabilities."""

_CONTEXTS_AT_A_TIME = 2**13

_UNIT = 2.0**40  # 1 as an integer: cumulative sums of integers take a fifth of the time of those of floats


def unigram_tensors(alphas: np.ndarray) -> dict[str, np.ndarray]:
    """The tensor of order 1: alpha, (V,) float64, interpolated with the uniform distribution."""
    return {"ngram.1.probs": (alphas + (1.0 - alphas.sum()) / len(alphas)).astype(np.float32)}


def order_tensors(
    order: int,
    contexts: np.ndarray,
    tokens: np.ndarray,
    alphas: np.ndarray,
    *,
    num_contexts: int,
    vocabulary_size: int,
) -> dict[str, np.ndarray]:
    """The tensors of an order >= 2.

    Args:
        order: k.
        contexts: (n,) integers, sorted: index of the context of each n-gram.
        tokens: (n,) integers, the last token.
        alphas: (n,) float64.
        num_contexts: number of n-grams of order k - 1.
        vocabulary_size: V.
    """
    offsets = np.zeros(num_contexts + 1, np.uint32)
    offsets[1:] = np.cumsum(np.bincount(contexts, minlength=num_contexts))
    return {
        f"ngram.{order}.offsets": offsets,
        f"ngram.{order}.tokens": tokens.astype(token_dtype(vocabulary_size)),
        f"ngram.{order}.probs": alphas.astype(np.float32),
    }


def check_tables(config: ModelConfig, tensors: Mapping[str, np.ndarray], where: str) -> None:
    """Checks that tables of the right shapes and dtypes are consistent.

    Args:
        config: of the model; its `ngrams` may be empty, then there are no tables.
        tensors: by name; others than the tables are ignored.
        where: name of the file, which begins error messages.

    Raises:
        DataError: the offsets are not those of the n-grams, tokens of a context are not in order or not in the
            vocabulary, or its probabilities are negative, not finite, or exceed 1.
    """
    ngrams = config.ngrams
    if not ngrams:
        return
    unigrams = tensors["ngram.1.probs"]
    if not (unigrams.min() > 0 and abs(unigrams.sum(dtype=np.float64) - 1) <= MAX_ROUNDING):  # true of NaN, too
        raise DataError(f"{where}: ngram.1.probs are not the probabilities of a distribution")
    for order, count in enumerate(ngrams[1:], start=2):
        offsets, tokens, probs = (tensors[f"ngram.{order}.{name}"] for name in ("offsets", "tokens", "probs"))
        if offsets[0] != 0 or offsets[-1] != count or (offsets[:-1] > offsets[1:]).any():
            raise DataError(f"{where}: ngram.{order}.offsets do not divide its {count} n-grams among their contexts")
        for edges in _iter_edges(offsets):
            part = slice(edges[0], edges[-1])
            is_first = np.zeros(part.stop - part.start + 1, bool)  # of its context
            is_first[edges - edges[0]] = True
            is_ordered = (tokens[part][:-1] < tokens[part][1:]) | is_first[1:-1]
            if not (is_ordered.all() and (tokens[part] < ngrams[0]).all()):
                raise DataError(f"{where}: ngram.{order}.tokens are not in the vocabulary, or not in order")
            is_probability = (probs[part] >= 0) & (probs[part] <= 1 + MAX_ROUNDING)
            if not (is_probability.all() and (_sums_between(edges, probs) <= 1 + MAX_ROUNDING).all()):
                raise DataError(f"{where}: ngram.{order}.probs are not the probabilities of a distribution")


def context_sums(offsets: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The sum of the probabilities of each context: offsets (m + 1,), probs (n,) from 0 to 1 -> (m,) float64."""
    return np.concatenate([np.zeros(0), *(_sums_between(edges, probs) for edges in _iter_edges(offsets))])


def _iter_edges(offsets: np.ndarray) -> Iterator[np.ndarray]:
    """The offsets of a number of contexts at a time, (k + 1,) int64, so that little memory is used, again and again.

    In a new process, to get memory takes longer than to compute with it.
    """
    for start in range(0, len(offsets) - 1, _CONTEXTS_AT_A_TIME):
        yield offsets[start : start + _CONTEXTS_AT_A_TIME + 1].astype(np.int64)


def _sums_between(edges: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The sum of the probabilities from each edge (k + 1,) int64 to the next: (k,) float64."""
    cumulative = np.zeros(edges[-1] - edges[0] + 1, np.int64)
    np.cumsum((probs[edges[0] : edges[-1]] * np.float32(_UNIT)).astype(np.int64), out=cumulative[1:])
    sums: np.ndarray = np.diff(cumulative[edges - edges[0]]) / _UNIT
    return sums
