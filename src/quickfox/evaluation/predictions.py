"""What a model predicts at each token of a text: surprisal per token and per character, and calibration.

The rule is that of `perplexity`. Calibration compares the probability of the most probable token with how often it is
the right one (Guo et al. 2017, "On calibration of modern neural networks").
"""

import math
from dataclasses import dataclass

import numpy as np

from quickfox.data.dataset import Tokens
from quickfox.evaluation.perplexity import iter_logits
from quickfox.models.language_model import LanguageModel
from quickfox.tokenizers.base import Tokenizer

CALIBRATION_BINS = 10


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of the n targets of a text, in the order of the text.

    Attributes:
        ids: (n,) the targets.
        bits: (n,) float32, the surprisal of each.
        confidences: (n,) float32, the probability of the most probable token.
        is_right: (n,) bool, whether that is the target.
    """

    ids: np.ndarray
    bits: np.ndarray
    confidences: np.ndarray
    is_right: np.ndarray


@dataclass(frozen=True)
class CalibrationBin:
    """The tokens predicted with a confidence within an interval.

    Attributes:
        count: number of these tokens.
        confidence: the mean of their confidences.
        accuracy: the share of those predicted rightly.
    """

    count: int
    confidence: float
    accuracy: float


def predict(model: LanguageModel, tokens: Tokens) -> Predictions:
    """The predictions of a text.

    Raises:
        DataError: no token can be predicted.
    """
    columns: list[
        tuple[np.ndarray, ...]
    ] = []  # of each window: target or not, id, bits, confidence, right or not; (S, T)
    for window, logits in iter_logits(model, tokens.ids, tokens.loss_mask):
        highest = logits.max(axis=-1)
        totals = np.exp(logits - highest[..., None]).sum(axis=-1)
        targets = np.take_along_axis(logits, window.y[..., None], axis=-1)[..., 0]
        losses = np.log(totals) + highest - targets
        if tokens.unknown_token is not None:
            tokens.unknown_token.add_cost(losses, window.y)
        bits = losses / math.log(2)
        columns.append((window.weight > 0, window.y, bits, 1 / totals, targets >= highest))
    is_target, *rest = (np.concatenate(column, axis=1) for column in zip(*columns, strict=True))
    ids, bits, confidences, is_right = (column[is_target] for column in rest)  # segment by segment
    return Predictions(ids, bits.astype(np.float32), confidences, is_right)


def calibration(predictions: Predictions) -> list[CalibrationBin]:
    """The tokens in intervals of equal length of their confidence; empty ones are left out."""
    bins = np.minimum((predictions.confidences * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    confidences = np.bincount(bins, predictions.confidences, CALIBRATION_BINS)
    right = np.bincount(bins, predictions.is_right, CALIBRATION_BINS)
    return [
        CalibrationBin(int(count), float(confidence / count), float(hits / count))
        for count, confidence, hits in zip(counts, confidences, right, strict=True)
        if count
    ]


def calibration_error(bins: list[CalibrationBin]) -> float:
    """The expected calibration error: the mean distance of accuracy and confidence over all tokens."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / total


def character_bits(tokenizer: Tokenizer, predictions: Predictions) -> tuple[str, np.ndarray]:
    """The text of the targets, and the surprisal of each of its characters.

    The bits of a token are distributed evenly over its bytes; those of the end of a text, which has none, are left
    out. So are the bytes of an incomplete character at either end.
    """
    tokens = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocabulary_size)]
    lengths = np.array(list(map(len, tokens)))[predictions.ids]  # (n,)
    data = b"".join(tokens[token_id] for token_id in predictions.ids.tolist())
    byte_bits = np.repeat(predictions.bits / np.maximum(lengths, 1), lengths)  # (bytes,)
    first_bytes = np.flatnonzero(np.frombuffer(data, np.uint8) & 0xC0 != 0x80)  # of each character
    if not len(first_bytes):
        return "", byte_bits[:0]
    text = data[first_bytes[0] :].decode(errors="ignore")
    return text, np.add.reduceat(byte_bits, first_bytes)[: len(text)]
