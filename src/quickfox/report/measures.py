"""What a model does on held-out text, as numbers: by character class, by position, passage by passage, compared.

All of it comes from one pass over the text, see `evaluation.predictions`.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from quickfox.evaluation.baselines import baseline_bits
from quickfox.evaluation.bootstrap import standard_error
from quickfox.evaluation.memorization import Copy, longest_copies
from quickfox.evaluation.predictions import CalibrationBin, calibration, character_bits, predict
from quickfox.model import Model
from quickfox.models.parameters import EMBEDDING
from quickfox.report.loading import RunText
from quickfox.text.segmentation import iter_segments
from quickfox.tokenizers.base import Tokenizer

PASSAGE_CHARACTERS = 240
PASSAGES = 4
"""Number of passages of least and of most surprisal that are shown."""

WORD_POSITIONS = 8
LINE_POSITIONS = (0, 1, 2, 4, 8, 16, 32, 64)
NEIGHBORS, NEIGHBOR_ROWS, MAP_TOKENS = 5, 12, 90
BLOCKS = 64
"""Parts of the text whose means are compared, for intervals."""

_UNKNOWN = "\ufffd"
"""What unknown tokens are decoded to."""

NORMAL_97 = 1.96
"""The interval of 95 % reaches this many standard errors to either side."""


@dataclass(frozen=True, eq=False)
class TextMeasures:
    """A model on the held-out text.

    Attributes:
        text: the characters of the targets.
        start: number of characters before them, which are those of the first token.
        bits: (characters,) float32, the surprisal of each.
        bits_per_byte: the mean over all targets.
        error: its standard error; None: the text is too short.
        bytes: number of bytes of the text.
        calibration: see `predictions`.
    """

    text: str
    start: int
    bits: np.ndarray
    bits_per_byte: float
    error: float | None
    bytes: int
    calibration: list[CalibrationBin]


@dataclass(frozen=True)
class Group:
    """Characters that have something in common, and their mean surprisal in bits."""

    label: str
    characters: int
    bits: float


@dataclass(frozen=True, eq=False)
class Passage:
    """A part of the text with the surprisal of each of its characters, (n,)."""

    text: str
    bits: np.ndarray

    @property
    def mean_bits(self) -> float:
        """Bits per character."""
        return float(self.bits.mean())


def measure(model: Model, text: RunText) -> TextMeasures:
    """Predicts the held-out text once.

    Raises:
        DataError: no token can be predicted.
    """
    predictions = predict(model.language_model, text.held_out)
    characters, bits = character_bits(model.bundle.tokenizer, predictions)
    size = max(1, len(characters.encode()))
    sums, sizes = _blocks(characters, bits)
    bits_per_byte = float(predictions.bits.sum(dtype=np.float64)) / size
    bins = calibration(predictions)
    [first_id] = text.held_out.ids[0:1]
    first = model.bundle.tokenizer.token_bytes(int(first_id))
    start = sum(byte & 0xC0 != 0x80 for byte in first)
    return TextMeasures(characters, start, bits, bits_per_byte, standard_error(sums, sizes), size, bins)


def _blocks(text: str, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bits and the bytes of each of BLOCKS parts of a text."""
    bounds = [block * len(text) // BLOCKS for block in range(BLOCKS + 1)]
    spans = [(low, high) for low, high in pairwise(bounds) if high > low]
    sums = np.array([bits[low:high].sum(dtype=np.float64) for low, high in spans])
    return sums, np.array([float(len(text[low:high].encode())) for low, high in spans])


def compare(first: TextMeasures, second: TextMeasures) -> tuple[float, float | None] | None:
    """The bits per byte of the second model less those of the first, on the same text, and its standard error.

    The same text is the part that both have, in which either may have U+FFFD for unknown characters; None: their texts
    differ. The standard error is that of the differences, block by block: much smaller than those of the two measures,
    because a passage that is hard for one model is hard for the other.
    """
    both = first, second
    low, high = max(each.start for each in both), min(each.start + len(each.text) for each in both)
    from_start = [slice(low - each.start, max(low, high) - each.start) for each in both]
    length = min(len(each.text) for each in both)
    to_end = [slice(len(each.text) - length, None) for each in both]  # if another share of the text was held out
    for parts in (from_start, to_end):
        pairs = list(zip(*(each.text[part] for each, part in zip(both, parts, strict=True)), strict=True))
        if pairs and all(a == b or _UNKNOWN in (a, b) for a, b in pairs):
            text = "".join(b if a == _UNKNOWN else a for a, b in pairs)
            sums, sizes = _blocks(text, second.bits[parts[1]] - first.bits[parts[0]])
            return float(sums.sum() / sizes.sum()), standard_error(sums, sizes)
    return None


def passages(measures: TextMeasures) -> tuple[list[Passage], list[Passage]]:
    """The passages of least and of most surprisal, each list from its extreme on."""
    found, start = [], 0
    for segment in iter_segments([measures.text], PASSAGE_CHARACTERS):
        bits = measures.bits[start : start + len(segment)]
        start += len(segment)
        if len(segment) >= PASSAGE_CHARACTERS // 3 and segment.strip():
            found.append(Passage(segment, bits))
    found.sort(key=lambda passage: passage.mean_bits)
    count = min(PASSAGES, len(found) // 2) or len(found)
    return found[:count], found[::-1][:count]


def by_class(measures: TextMeasures) -> list[Group]:
    """The mean surprisal of letters, digits, spaces and so on."""
    return _group(measures, [character_class(character) for character in measures.text])


@lru_cache(maxsize=4096)
def character_class(character: str) -> str:
    """The class of a character by its Unicode category."""
    if character == "\n":
        return "line end"
    category = unicodedata.category(character)
    if character.isspace():
        return "space"
    names = {"Lu": "capital letter", "L": "letter", "M": "letter", "N": "digit", "P": "punctuation", "S": "symbol"}
    return names.get(category) or names.get(category[0]) or "other"


def by_word_position(measures: TextMeasures) -> list[Group]:
    """The mean surprisal of letters and digits by their position in the word."""
    labels, position = [], 0
    for character in measures.text:
        position = position + 1 if character.isalnum() else 0
        more = "+" if position >= WORD_POSITIONS else ""
        labels.append(f"{min(position, WORD_POSITIONS)}{more}" if position else "")
    return _group(measures, labels, sort=False)


def by_line_position(measures: TextMeasures) -> list[Group]:
    """The mean surprisal of characters by their position in the line, from 1."""
    labels, position = [], 0
    bounds = LINE_POSITIONS
    names = [f"{low + 1}" if high == low + 1 else f"{low + 1}-{high}" for low, high in pairwise(bounds)] + [
        f"{bounds[-1] + 1}+"
    ]
    indices = np.searchsorted(bounds, np.arange(bounds[-1] + 1), side="right") - 1
    for character in measures.text:
        labels.append(names[indices[min(position, bounds[-1])]] if character != "\n" else "")
        position = 0 if character == "\n" else position + 1
    return _group(measures, labels, sort=False)


def _group(measures: TextMeasures, labels: Sequence[str], *, sort: bool = True) -> list[Group]:
    """The groups of equal labels, other than the empty one; most frequent first, or by their first character."""
    names, groups = np.unique(np.array(labels, object).astype(str), return_inverse=True)
    counts = np.bincount(groups, minlength=len(names))
    sums = np.bincount(groups, measures.bits, len(names))
    found = [
        Group(str(name), int(count), float(total / count))
        for name, count, total in zip(names, counts, sums, strict=True)
        if name
    ]
    key: Callable[[Group], float] = (lambda group: -group.characters) if sort else _leading_number
    return sorted(found, key=key)


def _leading_number(group: Group) -> float:
    return float(group.label.partition("-")[0].rstrip("+"))


def baselines(model: Model, text: RunText, measures: TextMeasures, threads: int) -> dict[str, float]:
    """Name -> bits per byte of each baseline on the held-out text."""
    size = model.bundle.tokenizer.vocabulary_size
    bits = baseline_bits(text.training_ids, text.held_out, size, measures.text, threads)
    return {name: value / measures.bytes for name, value in bits.items()}


def copies(samples: Sequence[str], tokenizer: Tokenizer, text: RunText) -> list[Copy]:
    """The longest copy of the training text in each sample."""
    chunks = (text.training_ids[start : start + 2**18] for start in range(0, len(text.training_ids), 2**18))
    return longest_copies(samples, map(tokenizer.decode, chunks))


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """The token embeddings of a model.

    Attributes:
        tokens: ids of the most frequent tokens, most frequent first.
        positions: (n, 2) their first two principal components.
        explained: share of the variance of all n that these have.
        neighbors: of each token, its nearest ones with their cosine similarity.
    """

    tokens: list[int]
    positions: np.ndarray
    explained: float
    neighbors: list[list[tuple[int, float]]]


def map_embedding(model: Model, training_ids: np.ndarray) -> EmbeddingMap | None:
    """The embeddings of the most frequent tokens; None: the model has no network, or hardly any token."""
    embedding = model.bundle.parameters.get(EMBEDDING)
    if embedding is None or len(embedding) < 3:
        return None
    counts = np.bincount(training_ids, minlength=len(embedding))
    order = np.argsort(-counts, kind="stable")
    tokens = [token for token in order.tolist() if counts[token] and model.bundle.tokenizer.token_bytes(token)]
    tokens = tokens[:MAP_TOKENS]
    if len(tokens) < 3:
        return None
    vectors = embedding[tokens].astype(np.float64)
    centered = vectors - vectors.mean(axis=0)
    left, scales, _ = np.linalg.svd(centered, full_matrices=False)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -math.inf)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:NEIGHBOR_ROWS, :NEIGHBORS]
    return EmbeddingMap(
        tokens=tokens,
        positions=left[:, :2] * scales[:2],
        explained=float(np.square(scales[:2]).sum() / max(np.square(scales).sum(), 1e-12)),
        neighbors=[[(tokens[k], float(similar[row, k])) for k in ks if k != row] for row, ks in enumerate(nearest)],
    )
