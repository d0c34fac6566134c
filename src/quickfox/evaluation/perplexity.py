"""How well a model predicts a text: nats per token, perplexity, bits per character and per byte.

The rule is that of validation in training: every token but the first is predicted once from the text before it, with
the state zero at the start and then carried. As a baseline, the text is also compressed by gzip and xz.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from quickfox.data.batching import ValidationWindow, count_validation_segments, iter_validation_windows
from quickfox.data.dataset import Tokens, collect_tokens, input_dtype
from quickfox.data.encoding import EncodedChunk
from quickfox.data.token_file import TokenSource
from quickfox.errors import DataError, NoInputError
from quickfox.evaluation.bootstrap import standard_error
from quickfox.evaluation.signals import SignalReader, measure_documents
from quickfox.models.language_model import LanguageModel, LayerTrace, State, TraceableNetwork, replace_first
from quickfox.models.losses import cross_entropy
from quickfox.text.compression import CompressionBaseline
from quickfox.tokenizers.base import Tokenizer

SEGMENTS = 64
"""Segments of the text processed as a batch."""

WINDOW = 16
"""Maximum number of tokens of each segment per forward pass."""

WARM_UP = 256
"""Tokens read before each segment to compute its state; more if the model's context is larger."""

COUNTED_TOKENS = 2**20
"""Tokens counted at a time."""

MAX_EXPONENT = 709.0
"""The perplexity of more nats, of a model that is certain of wrong tokens, is infinite."""

MIN_BINS = 30
"""Bins of losses for the standard error, if the text is long enough; more improve it little (Schmeiser 1982)."""


Output = TypeVar("Output")


@dataclass(frozen=True)
class Evaluation:
    """The measures of a text; tokens * nats_per_token = ln 2 * characters * bits_per_character, likewise with bytes.

    Attributes:
        tokens: number of predicted tokens: all but the first.
        characters: number of characters of these tokens.
        bytes: number of bytes of these characters in UTF-8.
        unknown_characters: number of characters that the model does not know. They are predicted as its unknown token;
            a model of an earlier version, without that token, leaves them out.
        nats_per_token: mean cross-entropy.
        perplexity: exp(nats_per_token).
        bits_per_character: comparable between tokenizers.
        bits_per_byte: comparable between writing systems too.
        standard_error: of nats_per_token, as an estimate for all text of this kind; None: the text is too short.
        gzip_bits_per_character: of the whole text, unknown characters included, by the size of `gzip -9`.
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
    model: LanguageModel,
    tokenizer: Tokenizer,
    chunks: Iterable[EncodedChunk],
    unknown: Counter[str] | None = None,
    reader: SignalReader | None = None,
) -> Evaluation:
    """Measure how well `model` predicts a text.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        chunks: the text, encoded by that tokenizer.
        unknown: counts the unknown characters of `chunks` while these are read; None: there are none.
        reader: reads signals; None: the model reads text only.

    Raises:
        NoInputError: the text is empty.
        DataError: no token can be predicted.
        StorageError: a long text cannot be stored in a temporary file.
    """
    previously_unknown = 0 if unknown is None else unknown.total()
    baseline = CompressionBaseline()
    masks: list[np.ndarray] = []
    frames: list[np.ndarray | None] = []
    unknown_token = tokenizer.unknown_token
    surplus_bytes = 0  # of the unknown token over the characters it stands for

    def read() -> Iterator[np.ndarray]:
        nonlocal surplus_bytes
        is_first = True
        for chunk in chunks:
            baseline.add(chunk.text)
            if unknown_token is not None:
                surplus_bytes += _count_surplus_bytes(chunk, tokenizer, unknown_token.token_id, int(is_first))
            if chunk.loss_mask is not None:
                masks.append(chunk.loss_mask)
            is_first = is_first and len(chunk.ids) == 0
            frames.append(chunk.frames)
            yield chunk.ids

    ids = collect_tokens(read(), input_dtype(tokenizer, reader and reader.media))
    if baseline.characters == 0:
        raise NoInputError("the text is empty: evaluation requires at least 2 tokens")
    tokens = Tokens(ids, np.concatenate(masks) if masks else None, unknown_token)
    if reader is not None:
        tokens = tokens.with_frames(frames, reader.media, tokenizer)
    nats_per_token, error = measure_documents(reader.bind, tokens) if reader else measure_loss(model, tokens)
    characters, num_bytes = _size_of_targets(tokenizer, tokens)
    bits = nats_per_token * tokens.num_targets / math.log(2)
    gzip, xz = baseline.bits_per_character()
    return Evaluation(
        tokens=tokens.num_targets,
        characters=characters,
        bytes=num_bytes - surplus_bytes,
        unknown_characters=0 if unknown is None else unknown.total() - previously_unknown,
        nats_per_token=nats_per_token,
        perplexity=math.exp(nats_per_token) if nats_per_token < MAX_EXPONENT else math.inf,
        bits_per_character=bits / characters,
        bits_per_byte=bits / (num_bytes - surplus_bytes),
        standard_error=error,
        gzip_bits_per_character=gzip,
        xz_bits_per_character=xz,
    )


def _size_of_targets(tokenizer: Tokenizer, tokens: Tokens) -> tuple[int, int]:
    """Number of characters and bytes of the predicted tokens; raises DataError if they have no whole character."""
    characters, num_bytes = _text_size(tokenizer, _count_targets(tokens))
    if characters == 0:
        raise DataError(
            f"a longer text is required: its predicted tokens, {tokens.num_targets:,}, have no whole character"
        )
    return characters, num_bytes


def _count_targets(tokens: Tokens) -> np.ndarray:
    """How often each token id, (at most V,), is a target. Counts in parts: `bincount` copies its argument as int64."""
    counts = np.zeros(0, np.int64)
    for start in range(1, len(tokens), COUNTED_TOKENS):
        end = min(start + COUNTED_TOKENS, len(tokens))
        ids = tokens.ids[start:end]
        part = np.bincount(ids if tokens.loss_mask is None else ids[tokens.loss_mask[start:end]])
        counts, part = sorted((counts, part), key=len)
        part[: len(counts)] += counts
        counts = part
    return counts


def _text_size(tokenizer: Tokenizer, counts: np.ndarray) -> tuple[int, int]:
    """Number of characters and bytes of a text in which each token id occurs `counts` times, (at most V,)."""
    texts = [tokenizer.token_bytes(token_id) for token_id in range(len(counts))]
    first_bytes = [sum(value & 0xC0 != 0x80 for value in text) for text in texts]  # one per character
    return int(np.dot(counts, first_bytes)), int(np.dot(counts, [len(text) for text in texts]))


def _count_surplus_bytes(chunk: EncodedChunk, tokenizer: Tokenizer, unknown_token: int, first_target: int) -> int:
    """By how many bytes more the unknown tokens of a chunk have than their characters in UTF-8.

    Only of targets: from the token `first_target` of the chunk on.
    """
    is_unknown = chunk.ids == unknown_token
    if not is_unknown.any():
        return 0
    is_target = np.arange(len(chunk.ids)) >= first_target
    if chunk.loss_mask is not None:
        is_target &= chunk.loss_mask
    surplus = len(tokenizer.token_bytes(unknown_token)) - _unknown_sizes(chunk, tokenizer)
    return int(surplus[is_target[is_unknown]].sum())


def token_sizes(chunk: EncodedChunk, tokenizer: Tokenizer, token_bytes: np.ndarray) -> np.ndarray:
    """The bytes in UTF-8 of what each token of a chunk stands for, (n,) int64; `token_bytes` (V,) of every token."""
    sizes = token_bytes[chunk.ids]
    if tokenizer.unknown_token is not None:
        is_unknown = chunk.ids == tokenizer.unknown_token.token_id
        if is_unknown.any():
            sizes[is_unknown] = _unknown_sizes(chunk, tokenizer)
    return sizes


def _unknown_sizes(chunk: EncodedChunk, tokenizer: Tokenizer) -> np.ndarray:
    """The bytes in UTF-8 of the unknown characters of a chunk, in the order of its unknown tokens."""
    characters = (character for character in chunk.text if character not in tokenizer.known_characters)
    return np.array([len(character.encode()) for character in characters])


def measure_loss(model: LanguageModel, tokens: Tokens) -> tuple[float, float | None]:
    """The mean cross-entropy, in nats per token, of every target of a text, and its standard error.

    Args:
        model: the language model; it never predicts the unknown token.
        tokens: of the text.

    Returns:
        The mean; and its standard error, None if the text fills less than two bins.

    Raises:
        DataError: no token can be predicted.
    """
    segments = count_validation_segments(len(tokens), SEGMENTS, _warm_up(model))
    bins = math.ceil(MIN_BINS / segments)  # per segment
    bin_sums, bin_counts = np.zeros((2, bins, segments))
    total = 0.0
    num_targets = tokens.num_targets
    if num_targets == 0:
        raise DataError(
            f"a text of at least 2 tokens is required to measure a loss, one of them a target; this one has "
            f"{len(tokens)}"
        )
    for window, logits in iter_logits(model, tokens.ids, tokens.loss_mask):
        losses = cross_entropy(logits, window.y)  # (S, T)
        if tokens.unknown_token is not None:
            tokens.unknown_token.add_cost(losses, window.y)
        # The same in all segments; the last after all targets, when the rest of the text is not part of the loss mask.
        index = min(int(bin_counts.sum() * bins / num_targets), bins - 1)
        bin_sums[index] += np.einsum("st,st->s", losses, window.weight)
        bin_counts[index] += window.weight.sum(axis=1)
        total += float(np.vdot(losses, window.weight))
    return total / num_targets, standard_error(bin_sums, bin_counts)


def iter_logits(
    model: LanguageModel, ids: TokenSource, loss_mask: TokenSource | None = None
) -> Iterator[tuple[ValidationWindow, np.ndarray]]:
    """The windows of a text, S segments of T tokens each, with the logits (S, T, V) of the model after each token.

    Args:
        model, ids, loss_mask: as for `measure_loss`.

    Raises:
        DataError: the text has fewer than two tokens.
    """
    warm_up = _warm_up(model)
    windows = iter_validation_windows(ids, SEGMENTS, WINDOW, warm_up, loss_mask)
    return _read_windows(model, model.forward, windows, count_validation_segments(len(ids), SEGMENTS, warm_up))


def iter_traces(network: TraceableNetwork, ids: np.ndarray) -> Iterator[tuple[ValidationWindow, list[LayerTrace]]]:
    """The windows of a text, S segments of T tokens each, with what each layer computes for each token.

    In place of token ids, the windows have positions in the text.

    Raises:
        DataError: the text has fewer than two tokens.
    """
    warm_up = _warm_up(network)
    windows = iter_validation_windows(np.arange(len(ids)), SEGMENTS, WINDOW, warm_up)
    segments = count_validation_segments(len(ids), SEGMENTS, warm_up)
    return _read_windows(network, lambda positions, state: network.trace(ids[positions], state), windows, segments)


def _read_windows(
    model: LanguageModel,
    read: Callable[[np.ndarray, State], tuple[Output, State]],
    windows: Iterable[ValidationWindow],
    segments: int,
) -> Iterator[tuple[ValidationWindow, Output]]:
    """Windows with what `read` computes from their x, as the state is carried through their segments."""
    state = model.initial_state(segments)
    for window in windows:
        if window.reset_first:
            state = replace_first(state, model.initial_state(1))
        output, state = read(window.x, state)
        yield window, output


def _warm_up(model: LanguageModel) -> int:
    """Number of tokens read before each segment: a multiple of WINDOW."""
    return math.ceil(max(WARM_UP, model.context or 0) / WINDOW) * WINDOW
