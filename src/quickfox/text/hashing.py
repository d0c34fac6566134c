"""Polynomial hashes modulo 2^64 of all substrings of one length (Karp & Rabin 1987, "Efficient randomized
pattern-matching algorithms").
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from quickfox.text.vocabulary import code_points

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
"""The base of the polynomials and its inverse modulo 2^64; an arbitrary odd number, as only those have an inverse."""


class SubstringHasher:
    """Hashes the substrings of a text; that of the characters c, d, e is c + d b + e b^2.

    With the prefix sums of c b + d b^2 + ... over the whole text, the hash of a substring is the difference of two of
    them, scaled.
    """

    def __init__(self, text: str) -> None:
        codes = code_points(text).astype(np.uint64)  # (n,)
        self._sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes * _powers(_BASE, len(codes)), out=self._sums[1:])
        self._scales = _powers(_INVERSE, len(codes))

    def hash_all(self, length: int) -> Hashes:
        """The hashes of the n - length + 1 substrings of `length` characters, >= 1, in the order of the text; 1-d."""
        differences = self._sums[length:] - self._sums[:-length]
        return differences * self._scales[: len(differences)]

    def hash_at(self, starts: Indices, length: int) -> Hashes:
        """The hashes of the substrings of `length` characters at the indices `starts`, all within the text."""
        return (self._sums[starts + length] - self._sums[starts]) * self._scales[starts]


@lru_cache(maxsize=4)  # saves a third of the time of `would_copy`, whose arguments hardly vary
def _powers(base: int, count: int) -> Hashes:
    """b, b^2, ..., b^count modulo 2^64; must not be changed."""
    return np.multiply.accumulate(np.full(count, base, np.uint64))
