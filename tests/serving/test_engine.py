"""The engine: the texts of many requests, generated side by side, are those that each request gets alone."""

import queue
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conftest import random_bundle
from ngram_models import mix_with_ngrams
from quickfox.config.model import Architecture, ModelConfig
from quickfox.config.sampling import SamplingConfig
from quickfox.errors import DataError
from quickfox.generation.completion import MAX_BATCH_SIZE, complete
from quickfox.generation.sampler import PREFILL_TOKENS
from quickfox.generation.stopping import Completion, Token
from quickfox.models.language_model import LanguageModel, State
from quickfox.models.registry import build_language_model
from quickfox.serving.engine import TURN_STEPS, Engine
from quickfox.serving.generation import Event, Failure, Generation, NewTokens, PromptRead
from toy_models import NETWORK_ARCHITECTURES, random_parameters

TOKENIZER = random_bundle().tokenizer
SETTINGS: tuple[dict[str, Any], ...] = (
    {"length": 20},
    {"length": 7, "num_samples": 3, "temperature": 0.7},
    {"length": 30, "temperature": 0.0},
    {"length": 9, "top_k": 5, "stop": ("a", "bc"), "logprobs": 2},
    {"length": 25, "frequency_penalty": 1.5, "penalty_window": 10, "no_repeat_ngram": 2, "num_samples": 2},
    {"length": 0},
    {"length": 1, "top_p": 0.6, "best_of": 3},
    {"length": 12, "presence_penalty": 0.5},
)


def model_of(architecture: Architecture) -> LanguageModel:
    attention = {"num_heads": 2, "context": 12} if architecture in ("attention-rnn", "transformer") else {}
    size = TOKENIZER.vocabulary_size
    config = ModelConfig(
        architecture=architecture, vocabulary_size=size, embedding_dim=8, hidden_dim=8, num_layers=2, **attention
    )
    return build_language_model(config, random_parameters(config, scale=0.5))


def mixture() -> LanguageModel:
    bundle = mix_with_ngrams(random_bundle(), "the quick brown fox\n", 3)
    return build_language_model(bundle.config, bundle.parameters)


class Client:
    """Submits generations to an engine and collects their events."""

    def __init__(self, engine: Engine) -> None:
        self.events: queue.Queue[tuple[int, list[Event]]] = queue.Queue()
        self._engine = engine
        self._count = 0

    def submit(self, prompt: str, config: SamplingConfig, **options: Any) -> Generation:
        number, self._count = self._count, self._count + 1
        ids = TOKENIZER.encode(prompt).astype(np.int64)
        generation = Generation(ids, config, lambda events: self.events.put((number, events)), **options)
        self._engine.submit(generation)
        return generation

    def iter_events(self) -> Iterator[tuple[int, Event]]:
        while True:
            number, events = self.events.get(timeout=60)
            for event in events:
                assert not isinstance(event, Failure), event.error
                yield number, event

    def collect(
        self, num_completions: int
    ) -> tuple[dict[int, dict[int, Completion]], dict[tuple[int, int], list[Token]]]:
        """The completions of each generation by sample, and the tokens that were streamed."""
        completions: dict[int, dict[int, Completion]] = defaultdict(dict)
        tokens: dict[tuple[int, int], list[Token]] = defaultdict(list)
        for number, event in self.iter_events():
            if isinstance(event, NewTokens):
                tokens[number, event.sample] += event.tokens
            elif isinstance(event, Completion):
                completions[number][event.sample] = event
                num_completions -= 1
                if not num_completions:
                    break
        return completions, tokens


@pytest.fixture
def engines() -> Iterator[list[Engine]]:
    """Engines that are closed after the test."""
    engines: list[Engine] = []
    yield engines
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("architecture", [*NETWORK_ARCHITECTURES, "mixture"])
def test_texts_are_those_of_each_request_alone(architecture: Any, engines: list[Engine]) -> None:
    model = mixture() if architecture == "mixture" else model_of(architecture)
    engines.append(Engine(model, TOKENIZER))
    client = Client(engines[0])
    requests = [
        ("the fox "[: 1 + seed % 8] * (1 + 40 * (seed % 3)), SamplingConfig(random_seed=seed, **SETTINGS[seed % 8]))
        for seed in range(32)
    ]
    for prompt, config in requests:
        client.submit(prompt, config, is_streaming=True)
    completions, tokens = client.collect(sum(config.best_of or config.num_samples for _, config in requests))
    for number, (prompt, config) in enumerate(requests):
        samples = range(config.best_of or config.num_samples)
        events = complete(model, TOKENIZER, TOKENIZER.encode(prompt), config, samples=samples)
        alone = [event for event in events if isinstance(event, Completion)]
        for expected in alone:
            completion = completions[number][expected.sample]
            assert completion.text == expected.text
            assert (completion.token_count, completion.finish_reason) == (expected.token_count, expected.finish_reason)
            assert "".join(token.text for token in tokens[number, expected.sample]) == expected.text
            if expected.logprob is not None:
                assert completion.logprob == pytest.approx(expected.logprob, abs=1e-3)


class SlowModel:
    """A model whose calls wait until the test allows them, to see what happens between two tokens."""

    context = None

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[int, int]] = queue.Queue()
        self.allowed = threading.Semaphore(0)

    def initial_state(self, batch_size: int) -> State:
        return ((np.zeros((batch_size, 1), np.float32),),)

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        self.calls.put(token_ids.shape)
        assert self.allowed.acquire(timeout=60)
        return np.zeros((*token_ids.shape, TOKENIZER.vocabulary_size), np.float32), state

    def allow(self, count: int) -> list[tuple[int, int]]:
        """Lets `count` calls return; returns the shapes of their tokens."""
        self.allowed.release(count)
        return [self.calls.get(timeout=60) for _ in range(count)]


def test_a_request_joins_at_the_next_token_and_a_long_prompt_is_read_in_parts(engines: list[Engine]) -> None:
    model = SlowModel()
    engines.append(Engine(model, TOKENIZER))
    client = Client(engines[0])
    client.submit("a", SamplingConfig(length=1000))
    assert model.allow(2) == [(1, 1), (1, 1)]
    client.submit("b" * (2 * PREFILL_TOKENS + 1), SamplingConfig(length=3))
    client.submit("cd", SamplingConfig(length=3))
    shapes = model.allow(9)
    parts = [shape for shape in shapes if shape[1] > 1]
    assert parts == [
        (1, PREFILL_TOKENS),
        (1, 2),
        (1, PREFILL_TOKENS),
    ]  # the short prompt does not wait for the long one
    assert (2, 1) in shapes
    model.allowed.release(10**6)


def test_a_cancelled_generation_ends_at_the_next_token(engines: list[Engine]) -> None:
    model = SlowModel()
    engines.append(Engine(model, TOKENIZER))
    client = Client(engines[0])
    first = client.submit("a", SamplingConfig(length=1000))
    client.submit("b", SamplingConfig(length=1000))
    assert model.allow(10)[-1] == (2, 1)
    first.is_cancelled = True
    assert model.allow(3)[-1] == (1, 1)
    model.allowed.release(10**6)


def test_many_long_texts_do_not_starve_a_short_one(engines: list[Engine]) -> None:
    engines.append(Engine(model_of("rnn"), TOKENIZER))
    client = Client(engines[0])
    client.submit("a", SamplingConfig(length=20 * TURN_STEPS, num_samples=2 * MAX_BATCH_SIZE))
    client.submit("b", SamplingConfig(length=3))
    number, completion = next(
        (number, event) for number, event in client.iter_events() if isinstance(event, Completion)
    )
    assert (number, completion.token_count) == (1, 3)


def test_prompt_log_probabilities_are_those_of_the_model(engines: list[Engine]) -> None:
    model = model_of("lstm")
    engines.append(Engine(model, TOKENIZER))
    client = Client(engines[0])
    prompt = "the quick brown fox " * 20
    client.submit(prompt, SamplingConfig(length=0, logprobs=1), has_prompt_logprobs=True)
    event = next(event for _, event in client.iter_events() if isinstance(event, PromptRead))
    ids = TOKENIZER.encode(prompt)
    logits = model.forward(ids[np.newaxis].astype(np.int64), model.initial_state(1))[0][0].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    assert "".join(token.text for token in event.tokens) == prompt
    assert event.tokens[0].logprob is None
    actual = [token.logprob for token in event.tokens[1:]]
    np.testing.assert_allclose(actual, logprobs[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)


def test_a_failing_model_fails_its_generations_and_not_the_engine(engines: list[Engine]) -> None:
    model = SlowModel()
    engines.append(Engine(model, TOKENIZER))
    client = Client(engines[0])

    def forward(token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        return np.full((*token_ids.shape, TOKENIZER.vocabulary_size), np.nan, np.float32), state

    working, model.forward = model.forward, forward  # type: ignore[method-assign]
    client.submit("a", SamplingConfig(length=5))
    _, (failure,) = client.events.get(timeout=60)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, DataError)
    model.forward = working  # type: ignore[method-assign]
    model.allowed.release(10)
    client.submit("a", SamplingConfig(length=2))
    assert client.collect(1)[0][1][0].token_count == 2
