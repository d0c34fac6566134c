"""Text that occurs more than once: equal and nearly equal documents, repeated passages, overlap of two corpora.

The fingerprints of a text are the hashes of its substrings of WINDOW characters, of which only those below a bound are
kept: every occurrence of a substring is kept or none, so that a sample is enough to find what is repeated (Broder 1997,
"On the resemblance and containment of documents"; Schleimer et al. 2003, "Winnowing"). The bound is halved whenever
there are too many, which bounds the memory: up to MAX_FINGERPRINTS characters every substring is kept, of 100 MB one in
32, so that a repeated passage of some hundred characters is found with near certainty.

Limits: a repetition is compared with its last occurrence only; passages with a period below MIN_DISTANCE are ignored;
the length of a passage is underestimated by up to twice the distance between fingerprints; documents with less than
MIN_SHARED fingerprints have equal ones, but no nearly equal ones.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from quickfox.diagnosis.reading import Batch
from quickfox.text.hashing import Hashes, Indices, SubstringHasher

WINDOW = 32
MAX_FINGERPRINTS = 2**22
"""Each needs 16 bytes, and the search for repetitions 40 more."""

MIN_SHARED = 8
"""Fingerprints that nearly equal documents have in common, at least."""
MIN_SIMILARITY = 0.5
"""Share of the fingerprints of two documents that both have, from which they are nearly equal: about one edit in 50
characters."""
MIN_DISTANCE = 256

_MIX = np.uint64(0xD6E8FEB86659FD93)  # spreads the low bits of polynomial hashes, which depend on few characters
_ONE = np.uint64(1)
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class Passage:
    """A passage that occurs twice.

    Attributes:
        first: position of the earlier occurrence in the corpus, in characters.
        second: position of the later one.
        length: number of characters, at least.
    """

    first: int
    second: int
    length: int


class FingerprintCollector:
    """Collects the fingerprints of a corpus and the digests of its documents, batch by batch.

    Attributes:
        characters: number of characters read.
        level: all hashes kept are below 2^(64 - level).
        document_starts: position of each document.
        names: of each document, if it is a file; a file without text is none.
        digests: of all documents but the last.
    """

    def __init__(self) -> None:
        self.characters = 0
        self.level = 0
        self.document_starts: list[int] = []
        self.names: list[str] = []
        self.digests: list[bytes] = []
        self._hashes: list[Hashes] = []
        self._positions: list[Indices] = []
        self._count = 0
        self._tail = ""
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def add(self, batch: Batch) -> None:
        """Read the next batch."""
        self._add_digests(batch)
        text = self._tail + batch.text
        offset = self.characters - len(self._tail)
        self.characters += len(batch.text)
        if len(text) >= WINDOW:
            hashes = SubstringHasher(text).hash_all(WINDOW) * _MIX
            kept = np.flatnonzero(self._is_kept(hashes))
            starts = np.array(batch.starts, np.int64) + len(self._tail)
            # A window that extends over the start of a document belongs to none.
            kept = kept[np.searchsorted(starts, kept, "right") == np.searchsorted(starts, kept + WINDOW - 1, "right")]
            self._hashes.append(hashes[kept])
            self._positions.append(kept + offset)
            self._count += len(kept)
            while self._count > MAX_FINGERPRINTS:
                self._halve()
        self._tail = text[-(WINDOW - 1) :]

    def _is_kept(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        if not self.level:
            return np.ones(len(hashes), bool)
        return hashes < _ONE << np.uint64(64 - self.level)

    def _halve(self) -> None:
        self.level += 1
        kept = [self._is_kept(hashes) for hashes in self._hashes]
        self._hashes = [np.concatenate([part[rows] for part, rows in zip(self._hashes, kept, strict=True)])]
        self._positions = [np.concatenate([part[rows] for part, rows in zip(self._positions, kept, strict=True)])]
        self._count = len(self._hashes[0])

    def _add_digests(self, batch: Batch) -> None:
        bounds = [*batch.starts, len(batch.text)]
        self._digest.update(_encode(batch.text[: bounds[0]]))
        for start, end in pairwise(bounds):
            if self.document_starts:
                self.digests.append(self._digest.digest())
            self.document_starts.append(self.characters + start)
            if batch.name:
                self.names.append(batch.name)
            self._digest = hashlib.blake2b(_encode(batch.text[start:end]), digest_size=_DIGEST_BYTES)

    def finish(self) -> "FingerprintTable":
        """The fingerprints of all batches; to be called once, after the last of them."""
        digests = [*self.digests, self._digest.digest()] if self.document_starts else []
        starts = np.array(self.document_starts, np.int64)
        return FingerprintTable(
            hashes=np.concatenate([np.zeros(0, np.uint64), *self._hashes]),
            positions=np.concatenate([np.zeros(0, np.int64), *self._positions]),
            document_starts=starts,
            document_lengths=np.diff(np.append(starts, self.characters)),
            digests=np.frombuffer(b"".join(digests), np.uint64),
            level=self.level,
            names=self.names,
        )


@dataclass(frozen=True, eq=False)
class FingerprintTable:
    """The fingerprints of a corpus, in the order of its text.

    Attributes:
        hashes: (n,) uint64, all below 2^(64 - level).
        positions: (n,) int64, where each begins, in characters from the start of the corpus.
        document_starts: (D,) int64, the position of each document.
        document_lengths: (D,) int64, in characters.
        digests: (D,) uint64, a hash of the whole text of each document.
        level: see `hashes`.
        names: of the documents, if they are files; empty for others.
    """

    hashes: Hashes
    positions: Indices
    document_starts: Indices
    document_lengths: Indices
    digests: Hashes
    level: int
    names: list[str]

    def document_name(self, number: int) -> str:
        """A document as messages name it: its file, or its number."""
        return self.names[number] if self.names else f"document {number + 1}"

    @cached_property
    def documents(self) -> Indices:
        """(n,) the number of the document of each fingerprint."""
        return np.searchsorted(self.document_starts, self.positions, "right") - 1

    @cached_property
    def originals(self) -> Indices:
        """(D,) the number of the first document with the same text as each; its own number if it is the first."""
        _, first, inverse = np.unique(self.digests, return_index=True, return_inverse=True)
        originals: Indices = first[inverse]
        return originals

    @cached_property
    def previous(self) -> Indices:
        """(n,) the index of the last earlier fingerprint with the same hash as each; -1: there is none."""
        order = np.argsort(self.hashes, kind="stable")
        is_equal = self.hashes[order[1:]] == self.hashes[order[:-1]]
        previous = np.full(len(order), -1, np.int64)
        previous[order[1:][is_equal]] = order[:-1][is_equal]
        return previous

    def near_duplicates(self) -> list[tuple[int, int]]:
        """Pairs of documents, the earlier first, that are nearly but not quite equal."""
        later = np.flatnonzero(self.previous >= 0)
        first, second = self.documents[self.previous[later]], self.documents[later]
        is_other = first != second
        count = len(self.document_starts)
        keys, shared = np.unique(first[is_other] * count + second[is_other], return_counts=True)
        first, second = keys // count, keys % count
        sizes = np.bincount(self.documents, minlength=count)
        similarity = shared / (sizes[first] + sizes[second] - shared)
        is_near = (similarity >= MIN_SIMILARITY) & (shared >= MIN_SHARED)
        is_near &= self.digests[first] != self.digests[second]
        return list(zip(first[is_near].tolist(), second[is_near].tolist(), strict=True))

    def passages(self, min_length: int) -> list[Passage]:
        """The repeated passages of at least `min_length` characters, the longest first.

        Fingerprints that follow one another at equal distances in both places are of one passage.
        """
        starts = np.maximum(self.previous, 0)
        is_repeated = (self.previous >= 0) & (self.positions - self.positions[starts] >= MIN_DISTANCE)
        continues = is_repeated[1:] & is_repeated[:-1] & (self.previous[1:] == self.previous[:-1] + 1)
        continues &= np.diff(self.positions) == np.diff(self.positions[starts])
        continues &= np.diff(self.documents) == 0
        heads = np.flatnonzero(is_repeated & ~np.append(False, continues))
        tails = np.flatnonzero(is_repeated & ~np.append(continues, False))
        lengths = self.positions[tails] - self.positions[heads] + WINDOW
        longest = np.argsort(-lengths, kind="stable")
        return [
            Passage(int(self.positions[self.previous[heads[row]]]), int(self.positions[heads[row]]), int(lengths[row]))
            for row in longest[lengths[longest] >= min_length].tolist()
        ]

    def overlap_with(self, training: "FingerprintTable") -> tuple[float, list[int]]:
        """How much of this corpus, which is held out, is in a training corpus.

        Returns:
            The share of its fingerprints; and the documents that the training corpus has too, wholly or by half.
        """
        bound = np.uint64(2 ** (64 - max(self.level, training.level)) - 1)
        kept = np.flatnonzero(self.hashes <= bound)
        is_known = np.isin(self.hashes[kept], training.hashes)
        count = len(self.document_starts)
        sizes = np.bincount(self.documents[kept], minlength=count)
        known = np.bincount(self.documents[kept][is_known], minlength=count)
        is_copy = (known >= MIN_SIMILARITY * sizes) & (sizes >= MIN_SHARED)
        is_copy |= np.isin(self.digests, training.digests)
        return float(is_known.mean()) if len(kept) else 0.0, np.flatnonzero(is_copy).tolist()


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
