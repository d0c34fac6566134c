"""The validation loss of a network, alone or with n-grams, is that of the NumPy model with the same tensors."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from quickfox.config.model import DEFAULT_EXPONENTS, ModelConfig
from quickfox.data.dataset import Tokens
from quickfox.evaluation.perplexity import measure_loss
from quickfox.models.language_model import LanguageModel
from quickfox.models.losses import cross_entropy
from quickfox.models.registry import build_language_model
from quickfox.training.engine.ngrams import NgramEstimation, NgramTables
from quickfox.training.engine.progress import ValidationStoppedError
from quickfox.training.engine.validation import FIT_TOKENS, FIT_WARM_UP, Validation, ValidationLoss
from quickfox.training.networks.registry import build_network
from toy_models import markov_text, random_parameters

V = 5
LSTM = ModelConfig(vocabulary_size=V, embedding_dim=4, hidden_dim=8)
GATED = dataclasses.replace(LSTM, ngram_gate=4)
TRANSFORMER = ModelConfig(
    architecture="transformer", vocabulary_size=V, embedding_dim=8, hidden_dim=8, num_heads=2, context=24
)
TRAINING_TOKENS = Tokens(markov_text(300, V))
ONE_SEGMENT, SEVERAL_SEGMENTS = 300, 1500  # tokens of a validation text

each_model = pytest.mark.parametrize(
    "model", [LSTM, GATED, TRANSFORMER], ids=["lstm", "lstm with a gate", "transformer"]
)
pytestmark = pytest.mark.usefixtures("run_eagerly")


def estimate(tokens: Tokens = TRAINING_TOKENS) -> NgramTables:
    return NgramEstimation.start(4, V, tokens, Tokens(tokens.ids[:0])).tables


def weights_of(model: ModelConfig) -> dict[str, np.ndarray]:
    return random_parameters(model, scale=0.7)


def measure(
    model: ModelConfig, tokens: Tokens, tables: NgramTables | None, threads: int = 2, window: int = 16
) -> ValidationLoss | None:
    """The validation loss of a network with random weights."""
    network = build_network(model, random_seed=0, precision="float32")
    for name, value in weights_of(model).items():
        network.parameters()[name].assign(value)
    return Validation(
        network, tokens, [window], threads, tables and NgramEstimation.restore(tables, TRAINING_TOKENS)
    ).loss()


def numpy_model(
    model: ModelConfig, tables: NgramTables | None, exponents: tuple[float, float] = DEFAULT_EXPONENTS
) -> LanguageModel:
    """The same model in NumPy, whose mixture begins with these exponents."""
    if tables is None:
        return build_language_model(model, weights_of(model))
    config = dataclasses.replace(model, ngrams=tables.ngrams, exponents=exponents)
    return build_language_model(config, weights_of(model) | tables.tensors)


def loss_with_carried_state(model: LanguageModel, tokens: Tokens) -> float:
    """The mean loss of a text read at once, from its start to its end."""
    ids = tokens.ids[None].astype(np.int64)
    logits, _ = model.forward(ids[:, :-1], model.initial_state(1))
    losses = cross_entropy(logits, ids[:, 1:])[0]
    return float(losses.mean() if tokens.loss_mask is None else losses[tokens.loss_mask[1:]].mean())


def validation_text(length: int, *, masked: bool = False) -> Tokens:
    mask = np.random.default_rng(0).random(length) < 0.5
    return Tokens(markov_text(length, V, random_seed=1), mask if masked else None)


def exactly(loss: float) -> Any:
    return pytest.approx(loss, abs=1e-4)


@each_model
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [2, ONE_SEGMENT])
def test_one_segment_has_the_losses_of_the_whole_text(model: ModelConfig, length: int, masked: bool) -> None:
    tokens, tables = validation_text(length, masked=masked), estimate()
    measured = measure(model, tokens, tables)
    assert measured is not None
    mixture, network = numpy_model(model, tables, measured.exponents), numpy_model(model, None)
    assert measured.loss == exactly(loss_with_carried_state(mixture, tokens))
    assert measured.loss == exactly(measure_loss(mixture, tokens)[0])
    assert measured.network_loss == exactly(loss_with_carried_state(network, tokens))
    assert measured.loss != exactly(measured.network_loss)


@each_model
@pytest.mark.parametrize("masked", [False, True])
def test_several_segments_have_the_loss_of_evaluation(model: ModelConfig, masked: bool) -> None:
    tokens, tables = validation_text(SEVERAL_SEGMENTS, masked=masked), estimate()
    measured = measure(model, tokens, tables)
    assert measured is not None
    mixture, network = (
        measure_loss(numpy_model(model, each, measured.exponents), tokens)[0] for each in (tables, None)
    )
    assert measured.loss == pytest.approx(mixture, abs=0.005)
    assert measured.network_loss == pytest.approx(network, abs=0.005)
    assert measured.loss < measured.network_loss - 0.05
    default, _ = measure_loss(numpy_model(model, tables), tokens)
    assert mixture < default - 0.01, "the fitted exponents are better than those of a model without any"


@pytest.mark.parametrize("model", [LSTM, GATED], ids=["lstm", "lstm with a gate"])
def test_exponents_start_anew_and_the_state_is_carried_from_window_to_window(model: ModelConfig) -> None:
    """The loss does not depend on the length of a window, and is the same when it is measured again."""
    tokens, tables = validation_text(ONE_SEGMENT), estimate()
    losses = [measure(model, tokens, tables, window=window).loss for window in (8, 16, 64)]
    assert losses == [exactly(losses[0])] * 3
    network = build_network(model, random_seed=0, precision="float32")
    validation = Validation(network, tokens, [16], 2, NgramEstimation.restore(tables, TRAINING_TOKENS))
    assert validation.loss() == validation.loss()


@pytest.mark.parametrize("model", [LSTM, GATED], ids=["lstm", "lstm with a gate"])
def test_microbatches_affect_rounding_only(model: ModelConfig) -> None:
    tokens, tables = validation_text(SEVERAL_SEGMENTS), estimate()
    one, three = (measure(model, tokens, tables, threads=threads) for threads in (1, 3))
    assert one.loss == exactly(three.loss)
    assert one.network_loss == exactly(three.network_loss)


@each_model
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [2, ONE_SEGMENT, SEVERAL_SEGMENTS])
def test_without_tables_the_loss_is_that_of_the_network(model: ModelConfig, length: int, masked: bool) -> None:
    tokens = validation_text(length, masked=masked)
    measured = measure(model, tokens, None)
    assert measured is not None
    expected = measure_loss(numpy_model(model, None), tokens)[0]
    assert measured.loss == measured.network_loss
    assert measured.loss == pytest.approx(expected, abs=1e-4 if length <= ONE_SEGMENT else 0.005)


@pytest.mark.parametrize(
    "tokens",
    [Tokens(TRAINING_TOKENS.ids[:0]), Tokens(TRAINING_TOKENS.ids[:1]), Tokens(np.ones(9, int), np.arange(9) == 0)],
)
@pytest.mark.parametrize("tables", [None, estimate()], ids=["network", "mixture"])
def test_a_text_without_targets_has_no_loss(tokens: Tokens, tables: NgramTables | None) -> None:
    assert measure(LSTM, tokens, tables) is None


def test_a_stop_is_noticed_at_each_window_and_each_pass_of_the_fit() -> None:
    """However large the vocabulary, and with it the time of all passes together."""
    network = build_network(LSTM, random_seed=0, precision="float32")
    tokens = validation_text(SEVERAL_SEGMENTS)
    validation = Validation(network, tokens, [16], 1, NgramEstimation.restore(estimate(), TRAINING_TOKENS))
    polls = itertools.count(1)
    assert validation.loss(lambda: next(polls) < 0) is not None
    windows = -(-(FIT_WARM_UP + FIT_TOKENS) // 16) + sum(1 for _ in validation._windows())
    most = next(polls) - 1
    assert most >= windows + 2, "a fit takes at least two passes"
    for last in range(1, most, 5):
        polls = itertools.count(1)
        with pytest.raises(ValidationStoppedError):
            validation.loss(lambda polls=polls, last=last: next(polls) >= last)  # type: ignore[misc]
        assert next(polls) == last + 1
