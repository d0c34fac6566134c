"""The recurrent models in NumPy compared with their equations, one scalar at a time."""

import itertools
import math

import numpy as np
import pytest

from quickfox.config.model import ModelConfig
from quickfox.models import recurrent
from quickfox.models.recurrent import RecurrentLanguageModel
from quickfox.models.recurrent_cells import RecurrentKernel
from toy_models import random_parameters

Parameters = dict[str, np.ndarray]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


Vector = list[float]


def rnn_unit(unit: int, x: Vector, u: Vector, b: np.ndarray, h: Vector, c: Vector) -> tuple[float, float]:
    return math.tanh(x[unit] + u[unit] + b[unit]), 0.0


def gru_unit(unit: int, x: Vector, u: Vector, b: np.ndarray, h: Vector, c: Vector) -> tuple[float, float]:
    update, reset, candidate = (gate * len(h) + unit for gate in range(3))
    z = sigmoid(x[update] + b[0, update] + u[update] + b[1, update])
    r = sigmoid(x[reset] + b[0, reset] + u[reset] + b[1, reset])
    g = math.tanh(x[candidate] + b[0, candidate] + r * (u[candidate] + b[1, candidate]))
    return z * h[unit] + (1 - z) * g, 0.0


def lstm_unit(unit: int, x: Vector, u: Vector, b: np.ndarray, h: Vector, c: Vector) -> tuple[float, float]:
    i, f, g, o = (x[gate * len(h) + unit] + u[gate * len(h) + unit] + b[gate * len(h) + unit] for gate in range(4))
    cell = sigmoid(f) * c[unit] + sigmoid(i) * math.tanh(g)
    return sigmoid(o) * math.tanh(cell), cell


UNITS = {"rnn": rnn_unit, "gru": gru_unit, "lstm": lstm_unit}


def naive_logits(config: ModelConfig, parameters: Parameters, token_ids: list[int]) -> np.ndarray:
    """(T, V) logits of one text by the equations, without table, rearranged weights or vectorization."""
    size, layers = config.hidden_dim, range(config.num_layers)
    h = [[0.0] * size for _ in layers]
    c = [[0.0] * size for _ in layers]
    logits = []
    for token_id in token_ids:
        x = parameters["embedding.weight"][token_id].tolist()
        for layer in layers:
            w, u, b = (parameters[f"recurrent.{layer}.{name}"] for name in ("input_kernel", "recurrent_kernel", "bias"))
            columns = range(w.shape[1])
            from_input = [sum(x[k] * float(w[k, j]) for k in range(len(x))) for j in columns]
            from_state = [sum(h[layer][k] * float(u[k, j]) for k in range(size)) for j in columns]
            unit_of = UNITS[config.architecture]
            new = [unit_of(unit, from_input, from_state, b, h[layer], c[layer]) for unit in range(size)]
            h[layer], c[layer] = [state for state, _ in new], [cell for _, cell in new]
            x = h[layer]
        logits.append(np.array(x) @ parameters["output.kernel"] + parameters["output.bias"])
    return np.array(logits)


@pytest.fixture(params=itertools.product(UNITS, [1, 2, 3]), ids="{0[0]}, layers={0[1]}".format)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    architecture, num_layers = request.param
    return ModelConfig(
        architecture=architecture, vocabulary_size=5, embedding_dim=3, hidden_dim=4, num_layers=num_layers
    )


@pytest.fixture
def parameters(config: ModelConfig) -> Parameters:
    return random_parameters(config, scale=0.6)


@pytest.fixture
def model(config: ModelConfig, parameters: Parameters) -> RecurrentLanguageModel:
    return RecurrentLanguageModel(config, parameters)


def test_one_unit_by_hand() -> None:
    """A cell with known gates: i = f = o = sigmoid(0) = 1/2, g = tanh(ln 2) = 3/5."""
    parameters = {
        "embedding.weight": np.array([[1.0]], np.float32),
        "recurrent.0.input_kernel": np.array([[0.0, 0.0, math.log(2), 0.0]], np.float32),
        "recurrent.0.recurrent_kernel": np.zeros((1, 4), np.float32),
        "recurrent.0.bias": np.zeros(4, np.float32),
        "output.kernel": np.array([[10.0]], np.float32),
        "output.bias": np.array([1.0], np.float32),
    }
    model = RecurrentLanguageModel(ModelConfig(vocabulary_size=1, embedding_dim=1, hidden_dim=1), parameters)
    logits, ((h, c),) = model.forward(np.array([[0, 0]]), model.initial_state(1))
    assert c.item() == pytest.approx(0.5 * (0.5 * 0.6) + 0.5 * 0.6)  # the forget gate halves the first step's 0.3
    assert h.item() == pytest.approx(0.5 * math.tanh(0.45))
    assert logits[0, :, 0].tolist() == pytest.approx([1 + 5 * math.tanh(0.3), 1 + 5 * math.tanh(0.45)])


def test_logits_match_the_equations(config: ModelConfig, parameters: Parameters, model: RecurrentLanguageModel) -> None:
    token_ids = [3, 1, 4, 1, 0, 2, 2, 4]
    logits, _ = model.forward(np.array([token_ids]), model.initial_state(1))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[0], naive_logits(config, parameters, token_ids), atol=1e-5)


def test_batch_equals_single_texts(config: ModelConfig, parameters: Parameters, model: RecurrentLanguageModel) -> None:
    token_ids = np.random.default_rng(1).integers(0, 5, size=(6, 7))
    logits, _ = model.forward(token_ids, model.initial_state(6))
    for row, text in zip(logits, token_ids.tolist(), strict=True):
        np.testing.assert_allclose(row, naive_logits(config, parameters, text), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_single_steps_equal_the_whole_sequence(model: RecurrentLanguageModel, batch_size: int) -> None:
    token_ids = np.random.default_rng(2).integers(0, 5, size=(batch_size, 9))
    whole, last_state = model.forward(token_ids, model.initial_state(batch_size))
    state, steps = model.initial_state(batch_size), []
    for column in range(9):
        logits, state = model.forward(token_ids[:, column : column + 1], state)
        steps.append(logits)
    np.testing.assert_allclose(np.concatenate(steps, axis=1), whole, atol=1e-6)
    for layer, last_layer in zip(state, last_state, strict=True):
        np.testing.assert_allclose(layer, last_layer, atol=1e-6)


@pytest.mark.parametrize("hidden_dim", [1, 3, 300, 600])
def test_one_row_times_a_kernel_of_one_or_more_tiles(hidden_dim: int) -> None:
    random = np.random.default_rng(3)
    kernel = random.normal(size=(hidden_dim, 4 * hidden_dim)).astype(np.float32)
    layout, out = RecurrentKernel(kernel), np.empty((1, 4 * hidden_dim), np.float32)
    for _ in range(3):  # forwards, backwards, forwards
        h = random.normal(size=(1, hidden_dim)).astype(np.float32)
        assert layout.multiply(h, out) is out
        np.testing.assert_allclose(out, h.astype(np.float64) @ kernel, atol=1e-3)


def test_the_order_of_the_tiles_changes_no_bit() -> None:
    random = np.random.default_rng(4)
    layout = RecurrentKernel(random.normal(size=(400, 1600)).astype(np.float32))
    h = random.normal(size=(1, 400)).astype(np.float32)
    forwards, backwards = (layout.multiply(h, np.empty((1, 1600), np.float32)) for _ in range(2))
    np.testing.assert_array_equal(forwards, backwards)


def test_large_vocabularies_use_no_table(
    config: ModelConfig, parameters: Parameters, model: RecurrentLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_ids = np.array([[3, 1, 4, 1, 0, 2, 2, 4]])
    by_table, _ = model.forward(token_ids, model.initial_state(1))
    monkeypatch.setattr(recurrent, "_MAX_TABLE_BYTES", 1)
    without = RecurrentLanguageModel(config, parameters)
    looked_up, _ = without.forward(token_ids, without.initial_state(1))
    np.testing.assert_allclose(looked_up, by_table, atol=1e-6)


@pytest.mark.parametrize(("architecture", "names"), [("lstm", "input forget - output"), ("gru", "update reset")])
def test_traced_gates_are_those_of_the_equations(architecture: str, names: str) -> None:
    config = ModelConfig(architecture=architecture, vocabulary_size=5, embedding_dim=3, hidden_dim=4, num_layers=2)
    parameters = random_parameters(config)
    model = RecurrentLanguageModel(config, parameters)
    tokens = np.random.default_rng(1).integers(0, 5, size=(2, 6))
    traces, state = model.trace(tokens, model.initial_state(2))
    np.testing.assert_array_equal(state, model.forward(tokens, model.initial_state(2))[1])
    inputs = parameters["embedding.weight"][tokens]
    for layer, trace in enumerate(traces):
        assert trace.name == f"recurrent.{layer}"
        w, u, b = (parameters[f"{trace.name}.{name}"] for name in ("input_kernel", "recurrent_kernel", "bias"))
        before = np.concatenate([np.zeros((2, 1, 4)), trace.units[:, :-1]], axis=1)  # h before each token
        gates = 1 / (1 + np.exp(-(inputs @ w + before @ u + (b if b.ndim == 1 else b.sum(axis=0)))))
        assert set(trace.gates) == {*names.split()} - {"-"}
        for index, name in enumerate(names.split()):
            if name != "-":  # the candidate
                np.testing.assert_allclose(trace.gates[name], gates[..., 4 * index : 4 * index + 4], atol=1e-5)
        inputs = trace.units


def test_an_rnn_has_no_gates() -> None:
    config = ModelConfig(architecture="rnn", vocabulary_size=5, embedding_dim=3, hidden_dim=4)
    model = RecurrentLanguageModel(config, random_parameters(config))
    assert not model.trace(np.array([[1]]), model.initial_state(1))[0][0].gates
