"""Predictions of a text: the surprisal that `evaluate` measures, calibration, and surprisal by character."""

import math

import numpy as np
import pytest

from quickfox.data.dataset import Tokens
from quickfox.evaluation.perplexity import measure_loss
from quickfox.evaluation.predictions import Predictions, calibration, calibration_error, character_bits, predict
from quickfox.tokenizers.byte_level import ByteTokenizer
from toy_models import fixed_distribution, markov_text, random_lstm


@pytest.mark.parametrize("length", [2, 300, 5000])
def test_the_bits_are_those_of_the_loss_in_the_order_of_the_text(length: int) -> None:
    ids = markov_text(length, 5)
    model = random_lstm(5)
    predictions = predict(model, Tokens(ids))
    np.testing.assert_array_equal(predictions.ids, ids[1:])
    assert predictions.bits.mean() * math.log(2) == pytest.approx(measure_loss(model, Tokens(ids))[0], rel=1e-5)


def test_only_targets_are_predicted() -> None:
    ids, mask = markov_text(2000, 5), np.arange(2000) % 3 == 0
    model = random_lstm(5)
    predictions = predict(model, Tokens(ids, mask))
    np.testing.assert_array_equal(predictions.ids, ids[1:][mask[1:]])
    assert predictions.bits.mean() * math.log(2) == pytest.approx(measure_loss(model, Tokens(ids, mask))[0], rel=1e-5)


def test_the_confidence_is_the_probability_of_the_most_probable_token() -> None:
    predictions = predict(fixed_distribution(0.7, 0.2, 0.1), Tokens(np.array([2, 0, 0, 1, 2], np.uint8)))
    np.testing.assert_allclose(predictions.confidences, 0.7, rtol=1e-5)
    assert predictions.is_right.tolist() == [True, True, False, False]
    np.testing.assert_allclose(predictions.bits, -np.log2([0.7, 0.7, 0.2, 0.1]), rtol=1e-5)


def test_calibration_compares_confidence_with_accuracy() -> None:
    confidences = np.array([0.71, 0.79, 0.75, 0.75, 1.0], np.float32)
    is_right = np.array([True, False, True, True, True])
    bins = calibration(Predictions(np.zeros(5, int), np.zeros(5, np.float32), confidences, is_right))
    assert [(each.count, each.accuracy) for each in bins] == [(4, 0.75), (1, 1.0)]
    assert [each.confidence for each in bins] == pytest.approx([0.75, 1.0])
    assert calibration_error(bins) == pytest.approx(0, abs=1e-6)


def test_bits_of_bytes_are_added_to_those_of_characters() -> None:
    tokenizer = ByteTokenizer().with_end_of_text()
    ids = np.array([0x84, *"aä€".encode(), 256, *b"b", 0xE2, 0x82])  # parts of characters at both ends
    bits = np.arange(1, len(ids) + 1, dtype=np.float32)
    text, found = character_bits(tokenizer, Predictions(ids, bits, bits, bits > 0))
    assert text == "aä€b"
    assert found.tolist() == [2, 3 + 4, 5 + 6 + 7, 9]
    assert character_bits(tokenizer, Predictions(ids[:1], bits[:1], bits[:1], bits[:1] > 0))[0] == ""
