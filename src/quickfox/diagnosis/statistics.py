"""Measures of a text that say what a model can learn from it: scripts, entropies, what gzip and xz make of it.

Entropies and compressed sizes are those of a sample of at most SAMPLE_CHARACTERS, chunks taken at equal distances.
"""

import math
import unicodedata
from collections import Counter

import numpy as np
import numpy.typing as npt

from quickfox.diagnosis.reading import Batch
from quickfox.text.compression import CompressionBaseline
from quickfox.text.hashing import SubstringHasher

SAMPLE_CHARACTERS = 2**22
ENTROPY_ORDER = 5


def script_shares(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    """The share of each script among the letters of a text, the largest first.

    The script is the first word of a letter's Unicode name, such as LATIN or CJK; Python has no other table of scripts.

    Args:
        counts: (0x110000,) the number of each code point.
    """
    scripts: Counter[str] = Counter()
    for code in np.flatnonzero(counts).tolist():
        character = chr(code)
        if character.isalpha():
            name = unicodedata.name(character, "UNNAMED").split(" ")[0]
            scripts[name.split("-")[0].lower()] += int(counts[code])
    total = scripts.total()
    return {script: count / total for script, count in scripts.most_common()}


def entropy(counts: npt.NDArray[np.int64]) -> float:
    """The entropy of a distribution, in bits, from the number of each of its values."""
    present = counts[counts > 0]
    total = int(present.sum())
    return float(math.log2(total) - (present * np.log2(present)).sum() / total) if total else 0.0


def conditional_entropy(text: str, order: int) -> float:
    """The entropy of a character given the `order` characters before it, in bits, of the counts in the text itself.

    It is H(order + 1 characters) - H(order characters); for an order above 2 or 3 a short text has far too little,
    because most contexts occur once.
    """
    if len(text) <= order:
        return 0.0
    hasher = SubstringHasher(text)
    longer, shorter = (
        np.unique(hasher.hash_all(length)[: len(text) - order], return_counts=True)[1] for length in (order + 1, order)
    )
    return entropy(longer) - entropy(shorter)


class Sample:
    """Chunks of a text at equal distances, SAMPLE_CHARACTERS together, collected batch by batch."""

    def __init__(self, size: int) -> None:
        """Args: size: of the whole text, about, in bytes."""
        self._share = min(1.0, SAMPLE_CHARACTERS / max(1, size))
        self._chunks: list[str] = []
        self._seen = self._kept = 0

    def add(self, batch: Batch) -> None:
        """Read the next batch."""
        self._seen += len(batch.text)
        missing = min(math.ceil(self._seen * self._share), SAMPLE_CHARACTERS) - self._kept
        if missing > 0:
            self._chunks.append(batch.text[:missing])
            self._kept += len(self._chunks[-1])

    def measures(self) -> dict[str, float]:
        """Its length in characters, and entropies and compressed sizes in bits per character."""
        text = "".join(self._chunks)
        compression = CompressionBaseline()
        compression.add(text)
        gzip, xz = compression.bits_per_character()
        return {
            "sample_characters": len(text),
            "entropy_order_5": conditional_entropy(text, ENTROPY_ORDER),
            "gzip_bits_per_character": gzip,
            "xz_bits_per_character": xz,
        }
