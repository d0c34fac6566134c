"""What happens inside a network, compared with NumPy's own functions on the activations of one pass over the text."""

from typing import Any

import numpy as np
import pytest

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.config.model import ModelConfig, ngram_config
from quickfox.errors import DataError, UsageError
from quickfox.evaluation.activations import (
    align,
    attention_weights,
    find_units,
    network_of,
    summarize_gates,
    unit_activations,
)
from quickfox.evaluation.bootstrap import Estimate
from quickfox.evaluation.features import feature_values
from quickfox.models.language_model import TraceableNetwork
from quickfox.models.registry import build_network
from quickfox.tokenizers.build import build_tokenizer
from quickfox.tokenizers.byte_level import ByteTokenizer
from toy_models import NGRAM_TABLES, random_parameters

TEXT = "".join(np.random.default_rng(3).choice([*'ab "\n'], size=900))
TOKENIZER = build_tokenizer("char", [TEXT], None)
IDS = TOKENIZER.encode(TEXT, None)


def network(architecture: str = "lstm", **changes: Any) -> TraceableNetwork:
    settings: dict[str, Any] = {"embedding_dim": 6, "hidden_dim": 6, "num_layers": 2} | changes
    config = ModelConfig(architecture=architecture, vocabulary_size=TOKENIZER.vocabulary_size, **settings)
    return build_network(config, random_parameters(config, scale=0.5))


def test_tokens_and_characters_are_aligned() -> None:
    start = TOKENIZER.with_end_of_text()
    for tokenizer, ids, text, ends, tokens in [
        (ByteTokenizer(), ByteTokenizer().encode("aä", None), "aä", [0, 1, 1], [0, 2]),
        (ByteTokenizer(), ByteTokenizer().encode("äa", None)[1:], "a", [-1, 0], [1]),  # starts within a character
        (ByteTokenizer(), ByteTokenizer().encode("aä", None)[:2], "a", [0, 0], [0]),  # ends within one
        (start, np.array([start.end_of_text, *start.encode("ab", None)]), "ab", [-1, 0, 1], [1, 2]),
        (start, np.array([start.end_of_text]), "", [-1], []),
    ]:
        found = align(tokenizer, ids)
        assert (found.text, found.ends.tolist(), found.tokens.tolist()) == (text, ends, tokens)


def test_activations_of_a_unit_are_those_of_one_pass() -> None:
    model = network()
    traces, _ = model.trace(IDS[np.newaxis], model.initial_state(1))
    np.testing.assert_allclose(unit_activations(model, IDS, "1.4"), traces[1].units[0, :, 4], atol=1e-6)


@pytest.mark.parametrize("unit", ["2.0", "0.6", "0", "a.b", "0.-1", "0.1.2", "", "0.99999999999999999999"])
def test_a_unit_out_of_range_names_the_range(unit: str) -> None:
    with pytest.raises(UsageError, match=r"from 0\.0 to 1\.5, not"):
        unit_activations(network(), IDS, unit)


@pytest.mark.parametrize("feature", ["quotes", "line-length", "a+"])
def test_units_are_found_by_their_correlation(feature: str) -> None:
    model = network()
    traces, _ = model.trace(IDS[np.newaxis, :-1], model.initial_state(1))
    activations = np.concatenate([trace.units[0] for trace in traces], axis=-1)
    expected = [np.corrcoef(each, feature_values(feature, TEXT)[:-1])[0, 1] for each in activations.T]
    found = find_units(model, TOKENIZER, IDS, feature, count=12)
    assert {each.unit for each in found} == {f"{layer}.{unit}" for layer in range(2) for unit in range(6)}
    sizes = [abs(each.correlation.value) for each in found]
    assert sizes == sorted(sizes, reverse=True)
    for each in found:
        layer, unit = map(int, each.unit.split("."))
        # The text is read in segments, whose states are warmed up.
        assert each.correlation.value == pytest.approx(expected[6 * layer + unit], abs=1e-3)
        assert each.correlation.low < each.correlation.value < each.correlation.high
        assert each.correlation.high - each.correlation.low < 0.5


def test_a_constant_unit_has_no_correlation() -> None:
    config = ModelConfig(vocabulary_size=TOKENIZER.vocabulary_size, embedding_dim=2, hidden_dim=2)
    zeros = {name: 0 * value for name, value in random_parameters(config).items()}
    found = find_units(build_network(config, zeros), TOKENIZER, IDS, "quotes", 5)
    assert [each.correlation for each in found] == [Estimate(0.0, 0.0, 0.0)] * 2


def test_a_constant_feature_is_an_error() -> None:
    with pytest.raises(DataError, match="'digits' has the value 0 in the whole text"):
        find_units(network(), TOKENIZER, IDS, "digits", 5)


@pytest.mark.parametrize(("architecture", "gates"), [("lstm", 3), ("gru", 2)])
def test_gates_are_summarized(architecture: str, gates: int) -> None:
    model = network(architecture)
    traces, _ = model.trace(IDS[np.newaxis, :-1], model.initial_state(1))
    found = summarize_gates(model, IDS)
    assert len(found) == 2 * gates
    pairs = [(trace, gate) for trace in traces for gate in trace.gates]
    for each, (layer, gate) in zip(found, pairs, strict=True):
        values = layer.gates[gate][0]
        assert (each.layer, each.gate) == (layer.name, gate)
        np.testing.assert_allclose(each.mean, values.mean(axis=0), atol=1e-3)
        np.testing.assert_allclose(each.is_open, (values > 0.9).mean(axis=0), atol=0.01)
        np.testing.assert_allclose(each.is_closed, (values < 0.1).mean(axis=0), atol=0.01)


@pytest.mark.parametrize(("architecture", "layers"), [("transformer", 2), ("attention-rnn", 1)])
def test_attention_is_causal_and_sums_to_one(architecture: str, layers: int) -> None:
    model = network(architecture, num_heads=2, context=10, hidden_dim=8, embedding_dim=8)
    found = attention_weights(model, IDS[:7])
    assert len(found) == layers
    for _, weights in found:
        assert weights.shape == (2, 7, 7)
        np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)
        assert not np.triu(weights, k=1).any()
        assert np.ptp(weights[:, -1]) > 0


def test_what_a_network_does_not_have_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="attention: this network has none"):
        attention_weights(network(), IDS[:7])
    for model in (network("rnn"), network("transformer", num_heads=2, context=10, hidden_dim=8, embedding_dim=8)):
        with pytest.raises(UsageError, match="gates: this network has none"):
            summarize_gates(model, IDS)
    config = ngram_config(4)
    bundle = ModelBundle(config, TOKENIZER, NGRAM_TABLES, step=1, validation_loss=None, sampling={})
    with pytest.raises(UsageError, match="an n-gram model has no units"):
        network_of(bundle)
