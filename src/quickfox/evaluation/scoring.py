"""The surprisal of each character of many texts, which finds the unusual lines of a log.

The surprisal of a token is -log2 p(token | the text before it), its information content in bits (Shannon 1948, "A
mathematical theory of communication"), distributed evenly over the token's characters. Every text is scored
independently: the state is zero, and the end-of-text token or else a line feed or the unknown token is read first, if
the model has one, so that the first character is predicted too.

Texts of similar length are processed as a batch, on several threads. A text of more than SEGMENT tokens is divided into
segments, each processed after the WARM_UP tokens before it, whose final state is (very nearly) that of the text read
from its start, as in `perplexity`. Independent of files and lines.
"""

import dataclasses
import itertools
import math
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from quickfox.evaluation.perplexity import WARM_UP, WINDOW
from quickfox.models.language_model import LanguageModel, select_rows
from quickfox.models.losses import cross_entropy
from quickfox.text.segmentation import align_chunks
from quickfox.text.vocabulary import code_points
from quickfox.tokenizers.base import TokenIds, Tokenizer, start_of_text

BATCH_SIZE = 128
"""Maximum number of segments in a batch."""

SEGMENT = 4096
"""Maximum number of tokens of a segment."""

_WINDOW_LOGITS = 2**22  # bounds the memory of a window for large vocabularies: 32 MiB in float64


@dataclass(frozen=True, eq=False)
class Score:
    """The surprisal of a text.

    Attributes:
        bits: (number of characters,) float32, the surprisal of each; 0 where it is not defined: if no token is read
            before the text, for the characters of the first token, and for unknown characters of a model of an earlier
            version, which has no token for them.
        tokens: number of predicted tokens.
        characters: number of characters of these tokens.
        unknown_characters: number of characters that the model does not know.
    """

    bits: np.ndarray
    tokens: int
    characters: int
    unknown_characters: int

    @property
    def total_bits(self) -> float:
        """The surprisal of the whole text."""
        return float(self.bits.sum(dtype=np.float64))

    @property
    def bits_per_character(self) -> float | None:
        """The mean surprisal of a character; None if none was predicted."""
        return self.total_bits / self.characters if self.characters else None

    @property
    def perplexity(self) -> float | None:
        """2 ** (mean surprisal of a token); None if none was predicted."""
        if not self.tokens:
            return None
        with np.errstate(over="ignore"):  # infinite if the model is certain of wrong tokens
            return float(np.exp2(self.total_bits / self.tokens))

    @property
    def peak(self) -> int | None:
        """Index of the character with the highest surprisal; None if none was predicted."""
        return int(np.argmax(self.bits)) if self.characters else None


@dataclass(frozen=True)
class Peak:
    """The character of highest surprisal of a text.

    Attributes:
        line, column: its position, from 1.
        character: the character.
        bits: its surprisal.
    """

    line: int
    column: int
    character: str
    bits: float


def find_peak(text: str, score: Score, first_line: int = 1) -> Peak | None:
    """The character of highest surprisal; None if no character is predicted. `first_line`: number of the first line."""
    index = score.peak
    if index is None:
        return None
    line = first_line + text.count("\n", 0, index)
    return Peak(line, index - text.rfind("\n", 0, index), text[index], float(score.bits[index]))


def describe_score(text: str, score: Score, first_line: int = 1) -> dict[str, Any]:
    """The score of a text, ready for JSON; an infinite perplexity is None."""
    peak = find_peak(text, score, first_line)
    return {
        "characters": score.characters,
        "tokens": score.tokens,
        "unknown_characters": score.unknown_characters,
        "bits_per_character": score.bits_per_character,
        "perplexity": None if score.perplexity == math.inf else score.perplexity,
        "most_surprising": peak and dataclasses.asdict(peak),
    }


def score(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    unknown: Counter[str] | None = None,
    threads: int = 1,
    prefixes: Sequence[np.ndarray] | None = None,
) -> list[Score]:
    """The surprisal of each text; independent of the other texts, up to rounding.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        texts: any number of them, of any length; lines without their line ends.
        unknown: if given, characters that the tokenizer does not know are counted here.
        threads: number of batches processed at the same time, >= 1; if more than one, NumPy should use one thread.
        prefixes: (n,) input ids that are read before each text, such as those of its signal; None: none.

    Raises:
        DataError: a character is unknown, and `unknown` is not given.
    """
    start = start_of_text(tokenizer)
    if not len(start) and tokenizer.unknown_token is not None:
        start = np.array([tokenizer.unknown_token.token_id], tokenizer.token_dtype)
    encoded = [_encode(tokenizer, text, unknown) for text in texts]
    starts = [np.concatenate([start, prefix]) for prefix in prefixes] if prefixes else [start] * len(texts)
    surprisals = [
        np.zeros(len(before) + len(ids), np.float32) for before, (ids, _) in zip(starts, encoded, strict=True)
    ]
    warm_up = max(WARM_UP, model.context or 0)
    segments = []  # in which every token but the first of each text is predicted once
    for before, (ids, _), surprisal in zip(starts, encoded, surprisals, strict=True):
        all_ids = np.concatenate([before, ids])
        for first in range(max(1, len(before)), len(all_ids), SEGMENT):
            end = min(first + SEGMENT, len(all_ids))
            segments.append(_Segment(all_ids[max(0, first - warm_up) : end], surprisal[first:end]))
    _fill_surprisals(model, tokenizer, segments, threads)
    token_lengths = np.array([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocabulary_size)])
    scores = []
    for text, before, (ids, unknown_counts), surprisal in zip(texts, starts, encoded, surprisals, strict=True):
        lengths = token_lengths[ids]
        is_left_out = np.zeros(len(text), bool)
        if unknown_counts:
            is_unknown = np.isin(code_points(text), code_points("".join(unknown_counts)))
            if tokenizer.unknown_token is None:
                is_left_out = is_unknown
            else:
                characters = itertools.compress(text, is_unknown)
                lengths[ids == tokenizer.unknown_token.token_id] = [len(_utf8(character)) for character in characters]
        scores.append(
            _make_score(
                text,
                surprisal[len(before) :],
                lengths,
                is_left_out,
                unknown_characters=unknown_counts.total(),
                predicts_first=len(start) > 0,
            )
        )
    return scores


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _encode(tokenizer: Tokenizer, text: str, unknown: Counter[str] | None) -> tuple[TokenIds, Counter[str]]:
    """The token ids of a text, (n,), and the characters left out."""
    unknown_counts: Counter[str] = Counter()
    ids = [tokenizer.encode(chunk, None if unknown is None else unknown_counts) for chunk in align_chunks([text])]
    if unknown is not None:
        unknown.update(unknown_counts)
    return np.concatenate([np.zeros(0, tokenizer.token_dtype), *ids]), unknown_counts


def _make_score(
    text: str,
    bits: np.ndarray,
    lengths: np.ndarray,
    is_left_out: np.ndarray,
    *,
    unknown_characters: int,
    predicts_first: bool,
) -> Score:
    """The score of a text.

    Args:
        bits: (n,) float32, the surprisal of each token of `text`; distributed evenly over the token's bytes.
        lengths: (n,) number of bytes of each token.
        is_left_out: (number of characters,) bool, whether each has no token.
        unknown_characters: see `Score`.
        predicts_first: whether the first token was predicted.
    """
    known = "".join(itertools.compress(text, ~is_left_out)) if is_left_out.any() else text
    data = np.frombuffer(_utf8(known), np.uint8)
    first_bytes = np.flatnonzero(data & 0xC0 != 0x80)  # of each character; its other bytes are 10xxxxxx
    if len(first_bytes) < len(bits) or (lengths != 1).any():
        bits = np.repeat(bits / lengths, lengths)  # (n,) -> (bytes,)
        bits = np.add.reduceat(bits, first_bytes) if len(first_bytes) else bits  # (bytes,) -> (known characters,)
    character_bits = np.zeros(len(text), np.float32)
    character_bits[~is_left_out] = bits
    skipped = 0 if predicts_first else 1  # tokens
    return Score(
        bits=character_bits,
        tokens=len(lengths[skipped:]),
        characters=len(known) - int(np.searchsorted(first_bytes, lengths[:skipped].sum())),
        unknown_characters=unknown_characters,
    )


@dataclass(frozen=True)
class _Segment:
    """A segment of a text, with its warm-up.

    Attributes:
        ids: (n,) token ids, read from the initial state on.
        surprisal: (m,) float32, m < n: a view to be filled with the bits of the last m tokens.
    """

    ids: np.ndarray
    surprisal: np.ndarray


def _fill_surprisals(model: LanguageModel, tokenizer: Tokenizer, segments: list[_Segment], threads: int) -> None:
    """Fills the surprisal of all segments.

    Several threads with single-threaded NumPy are 25 % faster than one thread with multi-threaded NumPy, because the
    elementwise half of the work is parallel too (512 units, 2 cores).
    """
    longest_first = sorted(segments, key=lambda segment: -len(segment.ids))
    batch_size = min(BATCH_SIZE, math.ceil(len(segments) / threads)) or 1
    batches = [longest_first[first : first + batch_size] for first in range(0, len(segments), batch_size)]
    window = max(1, min(WINDOW, _WINDOW_LOGITS // (batch_size * tokenizer.vocabulary_size)))
    stopped = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in pool.map(lambda batch: _fill_batch(model, tokenizer, batch, window, stopped), batches):
                pass
        except BaseException:  # a signal must not wait for the running batches
            stopped.set()
            raise


def _fill_batch(
    model: LanguageModel, tokenizer: Tokenizer, segments: list[_Segment], window: int, stopped: threading.Event
) -> None:
    """Fills the surprisal of segments sorted by descending length; the batch shrinks as shorter ones end."""
    lengths = np.array([len(segment.ids) - 1 for segment in segments])  # (B,) tokens to predict
    tokens = np.zeros((len(segments), lengths[0] + 1), np.int32)  # (B, longest)
    for row, segment in zip(tokens, segments, strict=True):
        row[: len(segment.ids)] = segment.ids
    bits = np.empty((len(segments), lengths[0]), np.float32)
    state = model.initial_state(len(segments))
    for start in range(0, lengths[0], window):
        if stopped.is_set():
            return
        active = int(np.count_nonzero(lengths > start))
        state = select_rows(state, slice(active))
        inputs = tokens[:active, start : min(start + window, lengths[0])]  # (active, T)
        targets = tokens[:active, start + 1 : start + 1 + window]
        logits, state = model.forward(inputs, state)
        targets = np.where(targets < tokenizer.vocabulary_size, targets, 0)  # signals are not predicted
        losses = cross_entropy(logits, targets)
        if tokenizer.unknown_token is not None:
            tokenizer.unknown_token.add_cost(losses, targets)
        bits[:active, start : start + window] = losses / math.log(2)
    for row, segment, length in zip(bits, segments, lengths, strict=True):
        segment.surprisal[:] = row[length - len(segment.surprisal) : length]
