"""How well a model predicts a text: nats per token, perplexity, bits per character and per byte.

The rule is that of validation in training: every token but the first is predicted once, from the text before it,
with the state zero at the start and then carried. NumPy only.

A yardstick comes with it: what gzip and xz make of the same text, who know nothing of it but what they have read.
"""

import lzma
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from quickfox.data.batching import iter_validation_windows, validation_segments
from quickfox.data.dataset import Encoded, Tokens, collect_tokens
from quickfox.data.token_file import TokenSource
from quickfox.errors import DataError, NoInputError
from quickfox.models.losses import cross_entropy
from quickfox.models.registry import LanguageModel
from quickfox.models.state import replace_row
from quickfox.tokenizers.base import Tokenizer

LANES = 64
WINDOW = 16
WARM_UP = 256
"""Places in the text read side by side, tokens a window, tokens that each lane reads ahead of its place (see batching),
or as many as the model's context holds."""

BLOCKS = 30
"""For the standard error the text is cut into at least so many blocks: more gain little (Schmeiser 1982)."""

_GZIP_FORMAT = 31  # zlib's window of 2**15 bytes, with the header and the checksum of a gzip file around its data


@dataclass(frozen=True)
class Evaluation:
    """What was measured; in all, tokens * nats_per_token = ln 2 * characters * bits_per_character, bytes alike.

    Attributes:
        tokens: predicted tokens: all but the first.
        characters: that these tokens stand for.
        bytes: of these characters in UTF-8.
        unknown_characters: left out, because the model does not know them.
        nats_per_token: mean cross-entropy.
        perplexity: exp of it: as uncertain as a choice among so many equally likely tokens.
        bits_per_character: comparable between tokenizers.
        bits_per_byte: comparable between writing systems too.
        standard_error: of nats_per_token, as an estimate for all text of this kind; None: too short to say.
        gzip_bits_per_character: of the whole text, unknown characters too, as `gzip -9 | wc -c` counts bytes.
        xz_bits_per_character: the same for `xz -9`.
    """

    tokens: int
    characters: int
    bytes: int
    unknown_characters: int
    nats_per_token: float
    perplexity: float
    bits_per_character: float
    bits_per_byte: float
    standard_error: float | None
    gzip_bits_per_character: float
    xz_bits_per_character: float


def evaluate(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Iterable[Encoded], unknown_counts: Counter[str]
) -> Evaluation:
    """Measure how well `model` predicts a text.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        pieces: the text, encoded by that tokenizer piece by piece.
        left_out: the characters that the tokenizer does not know, counted when all pieces have been read.

    Raises:
        NoInputError: the text is empty.
        DataError: nothing is left to predict.
        StorageError: a long text cannot be kept in a temporary file.
    """
    size = _TextSize()
    masks: list[np.ndarray] = []

    def read() -> Iterator[np.ndarray]:
        for piece in pieces:
            size.add(piece.text)
            if piece.loss_mask is not None:
                masks.append(piece.loss_mask)
            yield piece.ids

    ids = collect_tokens(read(), tokenizer.token_dtype)
    if size.characters == 0:
        raise NoInputError("the text is empty: there is nothing to evaluate")
    tokens = Tokens(ids, np.concatenate(masks) if masks else None)
    nats_per_token, error = measure_loss(model, tokens.ids, tokens.loss_mask)
    counts = np.bincount(ids[1:] if tokens.loss_mask is None else ids[1:][tokens.loss_mask[1:]])
    characters, num_bytes = _sizes(tokenizer, counts)
    bits = nats_per_token * tokens.num_targets / math.log(2)
    with np.errstate(over="ignore"):  # infinite for a model that is sure of what never comes
        perplexity = float(np.exp(nats_per_token))
    return Evaluation(
        tokens=tokens.num_targets,
        characters=characters,
        bytes=num_bytes,
        unknown_characters=unknown_counts.total(),
        nats_per_token=nats_per_token,
        perplexity=perplexity,
        bits_per_character=bits / characters,
        bits_per_byte=bits / num_bytes,
        standard_error=error,
        gzip_bits_per_character=8 * size.gzip.finish() / size.characters,
        xz_bits_per_character=8 * size.xz.finish() / size.characters,
    )


def _sizes(tokenizer: Tokenizer, counts: np.ndarray) -> tuple[int, int]:
    """Characters and bytes that tokens stand for; `counts`, (at most V,), says how often each occurs."""
    texts = [tokenizer.token_bytes(token_id) for token_id in range(len(counts))]
    begun = [sum(value & 0xC0 != 0x80 for value in text) for text in texts]  # a character counts where it begins
    return int(np.dot(counts, begun)), int(np.dot(counts, [len(text) for text in texts]))


def mean_loss(model: LanguageModel, ids: TokenSource) -> float:
    """The mean cross-entropy alone; see `measure_loss`."""
    return measure_loss(model, ids)[0]


def measure_loss(
    model: LanguageModel, ids: TokenSource, loss_mask: TokenSource | None = None
) -> tuple[float, float | None]:
    """The mean cross-entropy, in nats per token, of every token of `ids` but the first, and its standard error.

    Args:
        model: the language model.
        ids: (n,) token ids of the text.
        loss_mask: (n,) bool, the tokens that count; None: all.

    Returns:
        The mean; and its standard error, None if the text fills less than two blocks.

    Raises:
        DataError: there is nothing to predict.
    """
    warm_up = math.ceil(max(WARM_UP, model.context or 0) / WINDOW) * WINDOW
    lanes = validation_segments(len(ids), LANES, warm_up)
    sections = math.ceil(BLOCKS / lanes)  # a block is a section of a lane: tokens that follow each other
    block_sums, block_counts = np.zeros((2, sections, lanes))
    state = model.initial_state(lanes)
    total = weights = 0.0
    num_targets = Tokens(ids, loss_mask).num_targets
    if num_targets == 0:
        raise DataError(
            f"a text of at least 2 tokens is needed to measure a loss, one of them to be predicted; this has {len(ids)}"
        )
    for window in iter_validation_windows(ids, LANES, WINDOW, warm_up, loss_mask):
        if window.reset_first:
            state = replace_row(state, 0, model.initial_state(1))
        logits, state = model.forward(window.x, state)
        losses = cross_entropy(logits, window.y)
        section = int(weights * sections / num_targets)  # all lanes are equally far
        block_sums[section] += np.einsum("lt,lt->l", losses, window.weight)
        block_counts[section] += window.weight.sum(axis=1)
        total += float(np.vdot(losses, window.weight))
        weights += float(window.weight.sum())
    return total / weights, standard_error(block_sums, block_counts)


def standard_error(block_sums: np.ndarray, block_counts: np.ndarray) -> float | None:
    """The standard error of the mean of losses that are correlated, by the method of batch means.

    Losses close to each other are alike, so that the familiar s / sqrt(n) would be too small. The text is cut into K
    blocks, long enough to be nearly independent, of n_k losses with the sum S_k each; n = sum_k n_k, m is the mean:

        sqrt(K / (K - 1) * sum_k (S_k - m n_k)^2) / n

    which is the standard deviation of the block means over sqrt(K) where all blocks are of one length (Conway 1963;
    for blocks of several lengths it is the ratio estimator of Cochran, Sampling Techniques, 1977, chapter 6).

    Args:
        block_sums: S_k, of any shape.
        block_counts: n_k, of the same shape; a block of 0 is none.

    Returns:
        The standard error; None if there are less than two blocks.
    """
    blocks, n = np.count_nonzero(block_counts), block_counts.sum()
    if blocks < 2:
        return None
    deviations = block_sums - block_sums.sum() / n * block_counts
    return float(np.sqrt(blocks / (blocks - 1) * np.square(deviations).sum()) / n)


class _TextSize:
    """The size of a text that comes in pieces: in characters, in bytes of UTF-8, and compressed."""

    def __init__(self) -> None:
        self.characters = self.bytes = 0
        self.gzip = _CompressedSize(zlib.compressobj(9, wbits=_GZIP_FORMAT))
        self.xz = _CompressedSize(lzma.LZMACompressor(preset=9))  # 80 MB, or up to 700 MB for a text as large

    def add(self, text: str) -> None:
        data = text.encode()
        self.characters += len(text)
        self.bytes += len(data)
        self.gzip.add(data)
        self.xz.add(data)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _CompressedSize:
    """The size of a text that is compressed piece by piece, the result thrown away."""

    def __init__(self, compressor: _Compressor) -> None:
        self._compressor = compressor
        self._bytes = 0

    def add(self, data: bytes) -> None:
        self._bytes += len(self._compressor.compress(data))

    def finish(self) -> int:
        """The number of bytes of all; to be called once, at the end."""
        return self._bytes + len(self._compressor.flush())
