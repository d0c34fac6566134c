"""Baselines: the losses of simple models on a text, by hand."""

import gzip
import math

import numpy as np
import pytest

from quickfox.data.dataset import Tokens
from quickfox.evaluation.baselines import baseline_bits

TEXT = "abababac" * 200


def test_baselines_are_those_computed_by_hand() -> None:
    ids = np.array(["abc".index(character) for character in TEXT], np.uint8)
    bits = baseline_bits(ids, Tokens(ids[:801]), 3, TEXT[1:801], 1)
    assert list(bits) == ["uniform", "order-0", "order-5", "gzip", "xz"]
    assert bits["uniform"] == pytest.approx(800 * math.log2(3))
    counts = np.bincount(ids) / len(ids)
    assert bits["order-0"] == pytest.approx(-800 * (counts * np.log2(counts)).sum(), rel=0.01)
    assert bits["order-5"] < 0.5 * bits["order-0"]  # not 0: the phase of the period may be further back
    assert bits["gzip"] == 8 * len(gzip.compress(TEXT[1:801].encode(), 9))


def test_a_text_without_targets_has_no_baselines_of_text() -> None:
    ids = np.zeros(9, np.uint8)
    assert baseline_bits(ids, Tokens(ids[:1]), 2, "", 1) == {"uniform": 0.0}
