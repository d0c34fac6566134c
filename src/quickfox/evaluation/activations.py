"""What happens inside a network while it reads a text: its units, how they follow a feature, its gates, its attention.

Units are those of `LayerTrace`, named LAYER.UNIT, both counted from 0. Independent of runs and of the terminal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.errors import DataError, UsageError
from quickfox.evaluation.bootstrap import Estimate, estimate
from quickfox.evaluation.features import feature_values
from quickfox.evaluation.perplexity import iter_traces
from quickfox.models.language_model import LayerTrace, TraceableNetwork
from quickfox.models.registry import build_network
from quickfox.tokenizers.base import Tokenizer

BLOCKS = 64
"""Least number of consecutive parts of a text that are resampled for an interval, if it is long enough."""

OPEN, CLOSED = 0.9, 0.1
"""A gate above OPEN is counted as open, one below CLOSED as closed (Karpathy, Johnson & Fei-Fei 2015, "Visualizing and
understanding recurrent networks")."""

LEVELS = 4
"""Colors for positive and for negative activations."""

_PREFILL = 256
_ROUNDING = 1e-10


@dataclass(frozen=True)
class UnitCorrelation:
    """The correlation (Pearson's r) of a unit with a feature, with its interval of 95 %."""

    unit: str
    correlation: Estimate


@dataclass(frozen=True, eq=False)
class GateSummary:
    """How open a gate of a layer is over a text.

    Attributes:
        layer: its name, as in the names of its parameters.
        gate: its name.
        mean: (H,) the mean of each unit, from 0, closed, to 1, open.
        is_open: (H,) the share of tokens for which it is above OPEN.
        is_closed: (H,) the share of tokens for which it is below CLOSED.
    """

    layer: str
    gate: str
    mean: np.ndarray
    is_open: np.ndarray
    is_closed: np.ndarray


def network_of(bundle: ModelBundle) -> TraceableNetwork:
    """The network of a model.

    Raises:
        UsageError: it has none.
    """
    if not bundle.config.has_network:
        raise UsageError("an n-gram model has no units, gates or attention: choose a model with a network")
    return build_network(bundle.config, bundle.parameters)


@dataclass(frozen=True, eq=False)
class Alignment:
    """The text of n tokens, and which tokens its characters come from.

    Attributes:
        text: the characters.
        ends: (n,) for each token the index of the character in which it ends; for one without characters, of the last
            character before it; -1: there is none.
        tokens: (characters,) for each character the index of the token with which it is complete.
    """

    text: str
    ends: np.ndarray
    tokens: np.ndarray


def align(tokenizer: Tokenizer, ids: np.ndarray) -> Alignment:
    """Aligns tokens, (n,) ids, with their text."""
    tokens = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocabulary_size)]
    lengths = np.array(list(map(len, tokens)), np.int64)[ids]
    data = b"".join(tokens[token_id] for token_id in ids.tolist())
    starts = np.flatnonzero(np.frombuffer(data, np.uint8) & 0xC0 != 0x80)  # the first byte of each character
    text = data[starts[0] :].decode(errors="ignore") if len(starts) else ""
    last_bytes = np.append(starts[1:], len(data))[: len(text)] - 1
    ends = np.minimum(np.searchsorted(starts, np.cumsum(lengths)), len(text)) - 1  # not in an incomplete last character
    return Alignment(text, ends, np.repeat(np.arange(len(ids)), lengths)[last_bytes])


def unit_activations(network: TraceableNetwork, ids: np.ndarray, unit: str) -> np.ndarray:
    """The activation of a unit after each token of a text that starts from the initial state: (n,) float32.

    Args:
        network: of a model.
        ids: (n,) token ids, n >= 1.
        unit: LAYER.UNIT.

    Raises:
        UsageError: there is no such unit.
    """
    layer, index = _find_unit(_layers(network), unit)
    state, parts = network.initial_state(1), []
    for start in range(0, len(ids), _PREFILL):
        traces, state = network.trace(ids[np.newaxis, start : start + _PREFILL], state)
        parts.append(traces[layer].units[0, :, index].copy())
    return np.concatenate(parts)


def activation_levels(activations: np.ndarray) -> np.ndarray:
    """Activations (n,) in steps of a color scale: from -LEVELS to LEVELS, which is the largest absolute value."""
    largest = max(float(np.abs(activations).max(initial=0.0)), 1e-12)
    return np.rint(activations * (LEVELS / largest)).astype(np.int64)


def _layers(network: TraceableNetwork) -> list[LayerTrace]:
    return network.trace(np.zeros((1, 1), np.int64), network.initial_state(1))[0]


def _find_unit(layers: Sequence[LayerTrace], unit: str) -> tuple[int, int]:
    """The layer and the index of a unit; raises UsageError."""
    last = len(layers) - 1, layers[-1].units.shape[-1] - 1
    layer, _, index = unit.partition(".")
    numbers = [
        int(text) if text.isascii() and text.isdigit() and len(text) < 10 else math.inf for text in (layer, index)
    ]
    if numbers[0] > last[0] or numbers[1] > last[1]:
        raise UsageError(f"unit must be LAYER.UNIT from 0.0 to {last[0]}.{last[1]}, not {unit!r}", "unit")
    return int(numbers[0]), int(numbers[1])


def find_units(
    network: TraceableNetwork, tokenizer: Tokenizer, ids: np.ndarray, feature: str, count: int
) -> list[UnitCorrelation]:
    """The units whose activations follow a feature of a text best, by the absolute value of their correlation.

    The interval is that of each unit by itself, not of the best of all; it resamples parts of the text, because
    neighboring tokens are not independent.

    Args:
        network, tokenizer: of a model.
        ids: (n,) token ids of a text on which the network was not trained.
        feature: see `features.feature_values`; a token has the value of its last character.
        count: number of units.

    Raises:
        UsageError: the feature is neither a name nor a regular expression.
        DataError: all tokens have the same value; or there are fewer than two.
    """
    alignment = align(tokenizer, ids)
    of_characters = feature_values(feature, alignment.text)
    values = np.concatenate([[0.0], of_characters])[alignment.ends + 1]  # 0 before the first character
    if len(values) and values.min() == values.max():
        raise DataError(
            f"find: {feature!r} has the value {values[0]:g} in the whole text: choose a longer text", "find"
        )
    names, sums = _block_sums(network, ids, values)
    correlations = _correlate(*sums.sum(axis=0))
    best = np.argsort(-np.abs(correlations), kind="stable")[:count].tolist()
    selected = sums[:, :, best]  # (blocks, 6, count)
    shape = selected.shape[1:]

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        terms = np.moveaxis(counts.reshape(*counts.shape[:-1], *shape), -2, 0)
        return {str(rank): each for rank, each in enumerate(np.moveaxis(_correlate(*terms), -1, 0))}

    estimates = estimate(selected.reshape(len(sums), -1), measure)
    return [UnitCorrelation(names[unit], estimates[str(rank)]) for rank, unit in enumerate(best)]


def _block_sums(network: TraceableNetwork, ids: np.ndarray, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the units, and sums over blocks of the text, (blocks, 6, units) float64.

    With f the value of the feature and a the activation, they are those of 1, f, f^2, a, a^2 and a f.
    """
    names: list[str] = []
    sums = np.empty(0)
    windows_read = 0
    for window, traces in iter_traces(network, ids):
        segments, length = window.x.shape
        if not names:
            names = [f"{layer}.{unit}" for layer, trace in enumerate(traces) for unit in range(trace.units.shape[-1])]
            sums = np.zeros((math.ceil(BLOCKS / segments), segments, 6, len(names)))
        if not window.weight.any():
            continue  # a warm-up
        activations = np.concatenate([trace.units for trace in traces], axis=-1, dtype=np.float64)  # (S, T, units)
        f = values[window.x]  # (S, T)
        weights = window.weight[:, np.newaxis] * np.stack([np.ones_like(f), f, np.square(f)], axis=1)  # (S, 3, T)
        block = windows_read * length * segments * len(sums) // len(ids)
        found = sums[min(block, len(sums) - 1)]  # (S, 6, units)
        found[:, :3] += weights.sum(axis=-1, keepdims=True)
        found[:, 3] += np.einsum("st,stu->su", weights[:, 0], activations)
        found[:, 4] += np.einsum("st,stu->su", weights[:, 0], np.square(activations))
        found[:, 5] += np.einsum("st,stu->su", weights[:, 1], activations)
        windows_read += 1
    return names, sums.reshape(-1, 6, len(names))


def _correlate(
    n: np.ndarray, f: np.ndarray, ff: np.ndarray, a: np.ndarray, aa: np.ndarray, af: np.ndarray
) -> np.ndarray:
    """Pearson's r of sums over a text, see `_block_sums`; 0 where a unit or the feature is constant."""
    variance_of_f, variance_of_a = n * ff - np.square(f), n * aa - np.square(a)
    is_constant = (variance_of_f <= _ROUNDING * n * ff) | (variance_of_a <= _ROUNDING * n * aa)
    product = np.where(is_constant, 1.0, variance_of_f * variance_of_a)
    correlation: np.ndarray = np.where(is_constant, 0.0, (n * af - a * f) / np.sqrt(product))
    return correlation


def summarize_gates(network: TraceableNetwork, ids: np.ndarray) -> list[GateSummary]:
    """How open each gate is over a text.

    Raises:
        UsageError: the network has no gates.
        DataError: the text has fewer than two tokens.
    """
    if not any(layer.gates for layer in _layers(network)):
        raise UsageError("gates: this network has none; lstm, gru and attention-rnn have", "gates")
    sums: dict[tuple[str, str], np.ndarray] = {}
    for window, traces in iter_traces(network, ids):
        for trace in traces:
            for gate, values in trace.gates.items():
                terms = np.stack([values, values > OPEN, values < CLOSED])  # (3, S, T, H)
                found = np.einsum("kstu,st->ku", terms, window.weight, dtype=np.float64)
                sums[trace.name, gate] = sums.get((trace.name, gate), np.zeros_like(found)) + found
    return [GateSummary(layer, gate, *(found / (len(ids) - 1))) for (layer, gate), found in sums.items()]


def attention_weights(network: TraceableNetwork, ids: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """How much each token of a text attends to itself and to the earlier ones.

    Args:
        network: of a model.
        ids: (n,) token ids, 1 <= n <= the context of the network.

    Returns:
        The name of each layer with attention, and its weights (heads, n, n) float32; rows sum to 1.

    Raises:
        UsageError: the network has no attention.
    """
    if network.context is None:
        raise UsageError("attention: this network has none; attention-rnn and transformer have", "attention")
    traces, _ = network.trace(ids[np.newaxis], network.initial_state(1))
    return [
        (trace.name, trace.attention[0, :, :, network.context :]) for trace in traces if trace.attention is not None
    ]
