"""The exponents of a mixture that are fitted to predictions of both models."""

import numpy as np
import pytest

from quickfox.config.model import DEFAULT_EXPONENTS, MAX_EXPONENT
from quickfox.models.losses import cross_entropy
from quickfox.models.mixture import Predictions, fit_exponents, softmax

VOCABULARY_SIZE = 5


def predictions_of_text(sharpness: float, tokens: int = 2000) -> Predictions:
    """Tokens that are drawn from softmax(a network + b ngram) with (a, b) = sharpness (0.8, 0.3)."""
    random = np.random.default_rng(1)
    network, ngram = (random.normal(0, 2, (tokens, VOCABULARY_SIZE)).astype(np.float32) for _ in range(2))
    probs = softmax(sharpness * (np.float32(0.8) * network + np.float32(0.3) * ngram)).astype(np.float64)
    drawn = (probs.cumsum(axis=1) > random.random((tokens, 1)) * probs.sum(axis=1, keepdims=True)).argmax(axis=1)
    return Predictions(network + random.normal(0, 9, (tokens, 1)).astype(np.float32), ngram, drawn)


def loss_with(exponents: tuple[float, float], predictions: Predictions) -> float:
    a, b = exponents
    logits = np.float32(a) * predictions.network_logits + np.float32(b) * predictions.ngram_log_probs
    return float(cross_entropy(logits, predictions.targets).mean())


def test_fitted_exponents_are_those_of_the_text() -> None:
    """Whatever the constants of the network's logits, and however the tokens are divided."""
    predictions = predictions_of_text(1.0)
    fitted = fit_exponents([predictions])
    assert fitted == pytest.approx((0.8, 0.3), abs=0.05)
    for change in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert loss_with(fitted, predictions) < loss_with((fitted[0] + change[0], fitted[1] + change[1]), predictions)
    parts = [Predictions(*(each[part::3] for each in predictions)) for part in range(3)]
    assert fit_exponents(parts) == pytest.approx(fitted, abs=1e-4)


@pytest.mark.parametrize(("sharpness", "bound"), [(5.0, MAX_EXPONENT), (-1.0, 0.0)])
def test_fitted_exponents_stay_within_their_bounds(sharpness: float, bound: float) -> None:
    predictions = predictions_of_text(sharpness)
    a, b = fit_exponents([predictions])
    assert a == bound
    best = min(np.arange(0, MAX_EXPONENT, 0.01), key=lambda other: loss_with((bound, other), predictions))
    assert b == pytest.approx(best, abs=0.02)


def test_exponents_that_no_token_depends_on_are_the_default() -> None:
    uniform = np.zeros((50, 3), np.float32)
    assert fit_exponents([Predictions(uniform, uniform, np.zeros(50, np.int64))]) == DEFAULT_EXPONENTS
    assert fit_exponents([]) == DEFAULT_EXPONENTS
