"""How surprising texts are to a model, character by character: what makes the odd line of a log stand out.

The surprise of a token is -log2 p(token | the text before it), its information content in bits (Shannon 1948); the
characters of a token share it evenly. Every text is scored by itself, as if it stood at the start of a line: the
state is zero, and a line end is read first, if the model knows one, so that its first character is predicted too.

Texts are read side by side, those of similar length together, on several threads. One of more than PIECE tokens is
cut into pieces, each read after the WARM_UP tokens before it, by the end of which the state is (very nearly) that of
the text read from its start, as in `evaluation`. Knows no files and no lines. NumPy only.
"""

import itertools
import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from quickfox.models.losses import cross_entropy
from quickfox.models.registry import LanguageModel
from quickfox.models.state import State
from quickfox.text.segmentation import iter_blocks
from quickfox.text.vocabulary import code_points
from quickfox.tokenizers.base import Tokenizer, start_of_text

ROWS = 128
WINDOW = 16
"""Most texts read side by side on one thread, and most tokens of each that are read in one call of the model."""

PIECE = 4096
WARM_UP = 256
"""Tokens of a long text that are read in one go, and tokens before them that are read first, for the state alone."""

_WINDOW_LOGITS = 2**22  # bounds the memory of a call for large vocabularies: 32 MiB in float64


@dataclass(frozen=True, eq=False)
class Score:
    """How surprising a text was.

    Attributes:
        bits: (characters of the text,) float32, the surprise of each. 0 where none was measured: for what the model
            does not know, and, if it knows no line end, for what the first token stands for.
        tokens: predicted tokens.
        characters: that these tokens stand for.
        unknown_characters: left out, because the model does not know them.
    """

    bits: np.ndarray
    tokens: int
    characters: int
    unknown_characters: int

    @property
    def total_bits(self) -> float:
        """The surprise of the whole text."""
        return float(self.bits.sum(dtype=np.float64))

    @property
    def bits_per_character(self) -> float | None:
        """The mean surprise of a character; None if none was predicted."""
        return self.total_bits / self.characters if self.characters else None

    @property
    def perplexity(self) -> float | None:
        """2 ** (mean surprise of a token): as uncertain as a choice among so many; None if none was predicted."""
        if not self.tokens:
            return None
        with np.errstate(over="ignore"):  # infinite for a model that is sure of what never comes
            return float(np.exp2(self.total_bits / self.tokens))

    @property
    def peak(self) -> int | None:
        """The place of the most surprising character in the text, from 0; None if none was predicted."""
        return int(self.bits.argmax()) if self.characters else None


def score(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    unknown: Counter[str] | None = None,
    threads: int = 1,
) -> list[Score]:
    """How surprising each of the texts is to `model`; what the others are changes nothing but for rounding.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        texts: any number of them, of any length; lines without their line ends.
        unknown: if given, characters that the tokenizer does not know are left out and counted here.
        threads: that read texts at a time, >= 1. With more than one NumPy should not use threads of its own.

    Raises:
        DataError: a character is unknown, and `unknown` is not given.
    """
    start = start_of_text(tokenizer)
    encoded = [_encode(tokenizer, text, unknown) for text in texts]
    surprises = [np.zeros(len(start) + len(text.ids), np.float32) for text in encoded]
    pieces = [
        piece
        for text, surprise in zip(encoded, surprises, strict=True)
        for piece in _cut(np.concatenate([start, text.ids]), surprise, max(WARM_UP, model.context or 0))
    ]
    _read(model, tokenizer.vocabulary_size, pieces, threads)
    token_lengths = np.array([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocabulary_size)])
    return [
        _attribute(text, encoding, surprise, len(start), token_lengths)
        for text, encoding, surprise in zip(texts, encoded, surprises, strict=True)
    ]


@dataclass(frozen=True)
class _Encoding:
    """The token ids of a text, (n,), and the characters that were left out."""

    ids: np.ndarray
    unknown_counts: Counter[str]


def _encode(tokenizer: Tokenizer, text: str, unknown: Counter[str] | None) -> _Encoding:
    unknown_counts: Counter[str] = Counter()
    ids = [tokenizer.encode(block, None if unknown is None else unknown_counts) for block in iter_blocks([text])]
    if unknown is not None:
        unknown.update(unknown_counts)
    return _Encoding(np.concatenate([np.zeros(0, tokenizer.token_dtype), *ids]), unknown_counts)


def _attribute(text: str, encoding: _Encoding, surprise: np.ndarray, start: int, token_lengths: np.ndarray) -> Score:
    """From the surprise of the tokens, (start + n,), to that of the text's characters.

    A token's surprise is shared equally by the bytes that it stands for, and a character's is that of its bytes.
    """
    lengths = token_lengths[encoding.ids]  # (n,) bytes
    bits = surprise[start:]
    is_known = np.ones(len(text), bool)
    if encoding.unknown_counts:
        is_known = ~np.isin(code_points(text), code_points("".join(encoding.unknown_counts)))
    known = "".join(itertools.compress(text, is_known)) if encoding.unknown_counts else text
    first_bytes = _first_bytes(known)
    if len(first_bytes) < len(bits) or (lengths != 1).any():
        bits = np.repeat(bits / lengths, lengths)  # (bytes,)
        bits = np.add.reduceat(bits, first_bytes) if len(first_bytes) else bits
    of_characters = np.zeros(len(text), np.float32)
    of_characters[is_known] = bits
    not_predicted = 0 if start else 1  # tokens
    return Score(
        bits=of_characters,
        tokens=len(encoding.ids[not_predicted:]),
        characters=len(known) - int(np.searchsorted(first_bytes, lengths[:not_predicted].sum())),
        unknown_characters=encoding.unknown_counts.total(),
    )


def _first_bytes(text: str) -> np.ndarray:
    """Where in its UTF-8 each character of a text begins: (characters,)."""
    data = np.frombuffer(text.encode(), np.uint8)
    return np.flatnonzero(data & 0xC0 != 0x80)  # all bytes of a character but the first are 10xxxxxx


@dataclass(frozen=True)
class _Piece:
    """Tokens to be read in one go.

    Attributes:
        ids: (n,) token ids, read from the initial state on.
        surprise: (m,) float32, m < n: where to write the bits of the last m tokens.
    """

    ids: np.ndarray
    surprise: np.ndarray


def _cut(ids: np.ndarray, surprise: np.ndarray, warm_up: int) -> Iterator[_Piece]:
    """The pieces of a text in which every token of `ids`, (n,), but the first is predicted once; `surprise` is (n,)."""
    for begin in range(1, len(ids), PIECE):
        end = min(begin + PIECE, len(ids))
        yield _Piece(ids[max(0, begin - warm_up) : end], surprise[begin:end])


def _read(model: LanguageModel, vocabulary_size: int, pieces: list[_Piece], threads: int) -> None:
    """Fills in the surprise of all pieces.

    Several threads, each with NumPy on one core, read a quarter more a second than one with NumPy on all of them: the
    element-wise half of the work is shared too (512 units, 2 cores).
    """
    longest_first = sorted(pieces, key=lambda piece: -len(piece.ids))
    rows = min(ROWS, math.ceil(len(pieces) / threads)) or 1
    batches = [longest_first[first : first + rows] for first in range(0, len(pieces), rows)]
    window = max(1, min(WINDOW, _WINDOW_LOGITS // (rows * vocabulary_size)))
    stopped = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in pool.map(lambda batch: _read_side_by_side(model, batch, window, stopped), batches):
                pass
        except BaseException:  # a signal, for which a batch under way would take too long
            stopped.set()
            raise


def _read_side_by_side(model: LanguageModel, pieces: list[_Piece], window: int, stopped: threading.Event) -> None:
    """Fills in the surprise of pieces, the longest first; as the shorter ones end, the batch gets smaller."""
    lengths = np.array([len(piece.ids) - 1 for piece in pieces])  # (B,) tokens to predict
    tokens = np.zeros((len(pieces), lengths[0] + 1), np.int32)  # (B, longest)
    for row, piece in zip(tokens, pieces, strict=True):
        row[: len(piece.ids)] = piece.ids
    bits = np.empty((len(pieces), lengths[0]), np.float32)
    state = model.initial_state(len(pieces))
    for start in range(0, lengths[0], window):
        if stopped.is_set():
            return
        active = int(np.count_nonzero(lengths > start))
        state = _first_rows(state, active)
        inputs = tokens[:active, start : min(start + window, lengths[0])]  # (B, T)
        targets = tokens[:active, start + 1 : start + 1 + window]
        logits, state = model.forward(inputs, state)
        bits[:active, start : start + window] = cross_entropy(logits, targets) / math.log(2)
    for row, piece, length in zip(bits, pieces, lengths, strict=True):
        piece.surprise[:] = row[length - len(piece.surprise) : length]


def _first_rows(state: State, rows: int) -> State:
    """The state of the first texts only."""
    return tuple(tuple(array[:rows] for array in layer) for layer in state)
