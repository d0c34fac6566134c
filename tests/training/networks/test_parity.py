"""The parity suite: for every architecture, TensorFlow and NumPy compute the same logits from the same weights.

It includes networks with an n-gram gate, which read random distributions.

A new architecture fails this suite until both engines implement it.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from quickfox.config.media import NUM_BORDERS, ImageConfig
from quickfox.config.model import Architecture, ModelConfig
from quickfox.config.sampling import SamplingConfig
from quickfox.generation.sampler import generate
from quickfox.models.attention import rms_norm
from quickfox.models.inputs import Frames
from quickfox.models.language_model import NetworkLanguageModel, Prior
from quickfox.models.parameters import parameter_shapes
from quickfox.models.registry import build_language_model, build_network
from quickfox.training.tensorflow_runtime import start_tensorflow
from toy_models import NETWORK_ARCHITECTURES

pytest.importorskip("tensorflow", reason="parity needs both engines")
start_tensorflow(threads=2)

import tensorflow as tf  # noqa: E402 - TensorFlow is started first

from quickfox.training.networks.network import NO_DROPOUT, Network, State  # noqa: E402
from quickfox.training.networks.registry import build_network as build_tensorflow_network  # noqa: E402

ATOL = 1e-4
BATCH, TIME = 3, 9
CONTEXT = 4  # shorter than the text, so both engines must mask the earlier positions


def configs(architecture: Architecture) -> Iterator[ModelConfig]:
    """One layer; and two layers with a vocabulary larger than the number of tokens in a window."""
    for vocabulary_size, embedding_dim, hidden_dim, num_layers in ((7, 5, 8, 1), (40, 6, 12, 2)):
        sizes = {"vocabulary_size": vocabulary_size, "hidden_dim": hidden_dim, "num_layers": num_layers}
        if architecture == "transformer":
            for tied in (False, True):
                yield ModelConfig(
                    architecture=architecture, embedding_dim=hidden_dim, num_heads=2, context=CONTEXT,
                    tied_embeddings=tied, **sizes,
                )  # fmt: skip
        elif architecture == "attention-rnn":
            for num_heads in (1, 4):
                yield ModelConfig(
                    architecture=architecture, embedding_dim=embedding_dim, num_heads=num_heads, context=CONTEXT,
                    **sizes,
                )  # fmt: skip
        else:
            yield ModelConfig(architecture=architecture, embedding_dim=embedding_dim, **sizes)


UNGATED_CONFIGS = [config for name in NETWORK_ARCHITECTURES for config in configs(name)]
GATED_CONFIGS = [dataclasses.replace(config, ngram_gate=4) for config in UNGATED_CONFIGS]
CONFIGS = UNGATED_CONFIGS + GATED_CONFIGS
RECURRENT_CONFIGS = [config for config in UNGATED_CONFIGS if config.context is None]


def random_parameters(config: ModelConfig) -> dict[str, np.ndarray]:
    """Non-zero weights and biases."""
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(scale=0.4, size=shape).astype(np.float32) for name, shape in parameter_shapes(config).items()
    }


def random_tokens(config: ModelConfig) -> np.ndarray:
    return np.random.default_rng(1).integers(0, config.vocabulary_size, size=(BATCH, TIME)).astype(np.int32)


def random_prior(config: ModelConfig) -> Prior:
    """Distributions, and contexts of all lengths, after each of the tokens."""
    rng = np.random.default_rng(2)
    probs = rng.dirichlet(np.ones(config.vocabulary_size), size=(BATCH, TIME))
    lengths = rng.integers(0, max(config.ngram_gate, 1), size=(BATCH, TIME)).astype(np.int32)
    return Prior(np.log(np.maximum(probs, 1e-9)).astype(np.float32), lengths)


def part_of(prior: Prior, rows: slice, positions: slice) -> Prior:
    return Prior(*(array[rows, positions] for array in prior))


def numpy_model(config: ModelConfig) -> NetworkLanguageModel:
    return build_language_model(config, random_parameters(config))


def tensorflow_network(config: ModelConfig) -> Network:
    network = build_tensorflow_network(config, random_seed=0, precision="float32")
    for name, value in random_parameters(config).items():
        network.parameters()[name].assign(value)
    return network


def run_tensorflow(network: Network, token_ids: np.ndarray, state: State, prior: Prior) -> tuple[np.ndarray, State]:
    """Logits (B, T, V), and the state."""
    inputs = tuple(map(tf.constant, prior)) if network.config.ngram_gate else ()
    logits, state = network.forward(token_ids, state, prior=inputs)
    return np.transpose(logits, (1, 0, 2)), state


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_both_engines_give_the_same_logits(config: ModelConfig) -> None:
    network, model = tensorflow_network(config), numpy_model(config)
    tokens, prior = random_tokens(config), random_prior(config)
    tensorflow_logits, _ = run_tensorflow(network, tokens, network.initial_state(BATCH), prior)
    numpy_logits, _ = model.forward(tokens, model.initial_state(BATCH), prior)
    np.testing.assert_allclose(numpy_logits, tensorflow_logits, atol=ATOL)


@pytest.mark.parametrize("config", UNGATED_CONFIGS, ids=str)
@pytest.mark.usefixtures("run_eagerly")
def test_both_engines_give_the_same_hidden_states(config: ModelConfig) -> None:
    """Token by token, so that the state of TensorFlow has h of every recurrent layer at every position."""
    network, tokens = tensorflow_network(config), random_tokens(config)
    model = build_network(config, random_parameters(config))
    traces, _ = model.trace(tokens, model.initial_state(BATCH))
    state, numpy_state = network.initial_state(BATCH), model.initial_state(BATCH)
    for t in range(TIME):
        hidden, state = network.hidden(tokens[:, t : t + 1], state)
        _, numpy_state = model.trace(tokens[:, t : t + 1], numpy_state)
        for layer, numpy_layer, trace in zip(state, numpy_state, traces, strict=True):
            for array, numpy_array in zip(layer, numpy_layer, strict=True):  # keys and values of each attention
                np.testing.assert_allclose(numpy_array, array, atol=ATOL)
            if trace.attention is None:
                np.testing.assert_allclose(trace.units[:, t], layer[0], atol=ATOL)
        last = traces[-1].units[:, t]
        if config.architecture == "transformer":
            last = rms_norm(last, random_parameters(config)["norm.weight"])
        np.testing.assert_allclose(last, hidden[0], atol=ATOL)


@pytest.mark.parametrize("config", GATED_CONFIGS, ids=str)
def test_both_engines_give_the_same_logits_of_the_network_alone(config: ModelConfig) -> None:
    network, model, tokens = tensorflow_network(config), numpy_model(config), random_tokens(config)
    tensorflow_logits, _ = network.forward(tokens, network.initial_state(BATCH))
    numpy_logits, _ = model.forward(tokens, model.initial_state(BATCH))
    np.testing.assert_allclose(numpy_logits, np.transpose(tensorflow_logits, (1, 0, 2)), atol=ATOL)
    gated_logits, _ = model.forward(tokens, model.initial_state(BATCH), random_prior(config))
    assert np.abs(gated_logits - numpy_logits).max() > 1


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_initial_weights_of_a_network_load_into_the_numpy_model(config: ModelConfig) -> None:
    """Training and sampling use the same parameter names and shapes."""
    network = build_tensorflow_network(config, random_seed=3, precision="float32")
    weights = {name: variable.numpy() for name, variable in network.parameters().items()}
    assert {name: weight.shape for name, weight in weights.items()} == parameter_shapes(config)
    tokens, prior = random_tokens(config), random_prior(config)
    model = build_language_model(config, weights)
    numpy_logits, _ = model.forward(tokens, model.initial_state(BATCH), prior)
    tensorflow_logits, _ = run_tensorflow(network, tokens, network.initial_state(BATCH), prior)
    np.testing.assert_allclose(numpy_logits, tensorflow_logits, atol=ATOL)


@pytest.mark.parametrize("config", RECURRENT_CONFIGS, ids=str)
def test_stock_keras_layers_agree_with_the_kernels(config: ModelConfig) -> None:
    """A GPU runs the stock layers, a processor the kernels."""
    stack = build_tensorflow_network(config, random_seed=3, precision="float32").stack
    inputs = np.random.default_rng(2).normal(size=(TIME, BATCH, config.embedding_dim)).astype(np.float32)
    ours, our_state = stack.run(inputs, stack.initial_state(BATCH), NO_DROPOUT)
    stock, stock_state = stack.run_stock(inputs, stack.initial_state(BATCH), NO_DROPOUT)
    np.testing.assert_allclose(ours, stock, atol=ATOL)
    for layer, stock_layer in zip(our_state, stock_state, strict=True):
        np.testing.assert_allclose(layer, stock_layer, atol=ATOL)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.usefixtures("run_eagerly")
def test_windows_of_any_length_give_the_same_logits(config: ModelConfig) -> None:
    """Windows shorter and longer than the context, with the state carried between them."""
    network, model = tensorflow_network(config), numpy_model(config)
    tokens, prior = random_tokens(config), random_prior(config)
    whole, _ = model.forward(tokens, model.initial_state(BATCH), prior)
    state, numpy_state, start = network.initial_state(BATCH), model.initial_state(BATCH), 0
    for window in (2, 6, 1):
        positions = slice(start, start + window)
        part, prior_part = tokens[:, positions], part_of(prior, slice(None), positions)
        logits, state = run_tensorflow(network, part, state, prior_part)
        numpy_logits, numpy_state = model.forward(part, numpy_state, prior_part)
        expected = whole[:, positions]
        np.testing.assert_allclose(logits, expected, atol=ATOL)
        np.testing.assert_allclose(numpy_logits, expected, atol=ATOL)
        start += window
    assert start == TIME


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_numpy_step_by_step_equals_the_whole_sequence(config: ModelConfig) -> None:
    model, tokens, prior = numpy_model(config), random_tokens(config), random_prior(config)
    whole, _ = model.forward(tokens, model.initial_state(BATCH), prior)
    state, steps = model.initial_state(BATCH), []
    for t in range(TIME):
        logits, state = model.forward(tokens[:, t : t + 1], state, part_of(prior, slice(None), slice(t, t + 1)))
        steps.append(logits.copy())
    np.testing.assert_allclose(np.concatenate(steps, axis=1), whole, atol=ATOL)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_numpy_batch_equals_its_single_rows(config: ModelConfig) -> None:
    model, tokens, prior = numpy_model(config), random_tokens(config), random_prior(config)
    batch, _ = model.forward(tokens, model.initial_state(BATCH), prior)
    for row in range(BATCH):
        rows = slice(row, row + 1)
        single, _ = model.forward(tokens[rows], model.initial_state(1), part_of(prior, rows, slice(None)))
        np.testing.assert_allclose(single[0], batch[row], atol=ATOL)


PICTURES = ImageConfig(height=4, width=4, channels=1, patch_size=2, mean=(0.5,), deviation=(0.2,))
MEDIA_CONFIGS = [dataclasses.replace(config, image=PICTURES) for config in UNGATED_CONFIGS]


@pytest.mark.parametrize("config", MEDIA_CONFIGS, ids=str)
def test_both_engines_give_the_same_logits_after_the_frames_of_signals(config: ModelConfig) -> None:
    """The frames lie beside the ids in TensorFlow, and in the table of inputs in NumPy."""
    rng = np.random.default_rng(4)
    first_frame = config.vocabulary_size + NUM_BORDERS
    tokens = rng.integers(0, first_frame, size=(BATCH, TIME)).astype(np.int32)
    places = np.stack([rng.permutation(TIME)[:4] for _ in range(BATCH)])
    kinds, values = rng.integers(0, 4, size=(BATCH, 4)), rng.normal(size=(BATCH, 4, 4)).astype(np.float32)
    rows = np.arange(BATCH)[:, None]
    tensorflow_tokens, numpy_tokens, frames = tokens.copy(), tokens.copy(), np.zeros((BATCH, TIME, 4), np.float32)
    tensorflow_tokens[rows, places] = first_frame + kinds
    frames[rows, places] = values
    numpy_tokens[rows, places] = first_frame + np.arange(BATCH * 4).reshape(BATCH, 4)

    network = tensorflow_network(config)
    logits, _ = network.forward(tensorflow_tokens, network.initial_state(BATCH), frames=(tf.constant(frames),))
    read = Frames(values.reshape(-1, 4), kinds.reshape(-1))
    model = build_language_model(config, random_parameters(config), frames=read)
    whole, _ = model.forward(numpy_tokens, model.initial_state(BATCH))
    np.testing.assert_allclose(whole, np.transpose(logits, (1, 0, 2)), atol=ATOL)

    state, parts = model.initial_state(BATCH), []
    for window in (slice(0, 4), slice(4, 5), slice(5, TIME)):
        part, state = model.forward(numpy_tokens[:, window], state)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=ATOL)


@pytest.mark.parametrize("config", MEDIA_CONFIGS, ids=str)
def test_texts_of_one_window_need_no_cache(config: ModelConfig) -> None:
    """Logits and gradients from a state without space for earlier positions are those from the initial state."""
    config = dataclasses.replace(config, context=config.context and TIME)
    tokens = np.random.default_rng(5).integers(0, config.vocabulary_size, size=(BATCH, TIME)).astype(np.int32)
    frames = (tf.zeros([BATCH, TIME, PICTURES.frame_dim]),)
    network = tensorflow_network(config)
    results = []
    for context in (None, 0):
        with tf.GradientTape() as tape:
            logits, _ = network.forward(tokens, network.initial_state(BATCH, context), frames=frames)
            loss = tf.reduce_sum(logits * logits)
        results.append([logits, *tape.gradient(loss, list(network.parameters().values()))])
    for whole, without in zip(*results, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(without), tf.convert_to_tensor(whole), rtol=1e-3, atol=1e-3)


GOLDEN_CONFIG = ModelConfig(vocabulary_size=11, embedding_dim=4, hidden_dim=6)
GOLDEN_TOKENS = [int(digit) for digit in "5595515195955151955151955151955151955151"]


def formula_parameters() -> dict[str, np.ndarray]:
    """Weights by a formula, independent of any random generator."""
    return {
        name: (1.5 * np.sin(1.7 * np.arange(np.prod(shape)) + number)).reshape(shape).astype(np.float32)
        for number, (name, shape) in enumerate(parameter_shapes(GOLDEN_CONFIG).items())
    }


def test_greedy_tokens_are_unchanged_in_numpy() -> None:
    model = build_language_model(GOLDEN_CONFIG, formula_parameters())
    assert list(generate(model, [0], SamplingConfig(length=40, temperature=0.0))) == GOLDEN_TOKENS


def test_greedy_tokens_are_unchanged_in_tensorflow() -> None:
    network = build_tensorflow_network(GOLDEN_CONFIG, random_seed=0, precision="float32")
    for name, value in formula_parameters().items():
        network.parameters()[name].assign(value)
    token, state, tokens = 0, network.initial_state(1), []
    for _ in range(40):
        logits, state = network.forward(np.array([[token]], np.int32), state)
        token = int(np.argmax(logits[0, 0]))
        tokens.append(token)
    assert tokens == GOLDEN_TOKENS
