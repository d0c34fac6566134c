"""Chat completions with the `openai` package, and requests for them that are refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest

import quickfox
from quickfox.text.chat import END_OF_TURN, prompt_parts
from running_server import TIMEOUT, RunningServer

QUESTION = {"role": "user", "content": "what jumps?"}
MESSAGES: Any = [QUESTION, {"role": "assistant", "content": "the ox"}, QUESTION]
SETTINGS: Any = {"model": "chat", "messages": MESSAGES, "n": 3, "seed": 5, "temperature": 1.5}


@pytest.fixture
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}v1", api_key="none", timeout=TIMEOUT)


def expected_texts(directory: Path, **settings: Any) -> list[str]:
    """The continuations of MESSAGES by `llm generate`."""
    prompt = "".join(prompt_parts([(message["role"], message["content"]) for message in MESSAGES]))
    options = {"num_samples": 3, "random_seed": 5, "temperature": 1.5, **settings}
    texts = quickfox.load(directory).generate(prompt, echo=False, **options)
    assert isinstance(texts, list)
    return texts


def test_an_answer_ends_with_the_turn(client: openai.OpenAI, chat_directory: Path) -> None:
    response = client.chat.completions.create(**SETTINGS | {"temperature": 0}, max_completion_tokens=50)
    (choice, *_) = response.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "the fox", "stop")
    assert response.object == "chat.completion"
    assert response.usage is not None
    assert response.usage.completion_tokens == 3 * len("the fox" + END_OF_TURN)
    texts = expected_texts(chat_directory, temperature=0, stop=(END_OF_TURN,), length=50)
    assert [choice.message.content for choice in response.choices] == texts


def test_answers_are_those_of_generate_streamed_or_not(client: openai.OpenAI, chat_directory: Path) -> None:
    expected = expected_texts(chat_directory, stop=(END_OF_TURN, "x"), length=20)
    whole = client.chat.completions.create(**SETTINGS, max_tokens=20, stop="x")
    assert [choice.message.content for choice in whole.choices] == expected
    assert len(set(expected)) == 3
    texts, roles, reasons, usage = ["", "", ""], Counter[int](), {}, None
    for part in client.chat.completions.create(
        **SETTINGS, max_tokens=20, stop="x", stream=True, stream_options={"include_usage": True}
    ):
        assert part.object == "chat.completion.chunk"
        for choice in part.choices:
            texts[choice.index] += choice.delta.content or ""
            roles[choice.index] += choice.delta.role == "assistant"
            reasons[choice.index] = choice.finish_reason
        usage = part.usage or usage
    assert texts == expected
    assert roles == {0: 1, 1: 1, 2: 1}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage == whole.usage


def test_log_probabilities(client: openai.OpenAI) -> None:
    settings = SETTINGS | {"temperature": 0, "n": 1}
    (choice,) = client.chat.completions.create(**settings, logprobs=True, top_logprobs=2).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert "".join(token.token for token in tokens) == choice.message.content == "the fox"
    assert bytes(byte for token in tokens for byte in token.bytes or []) == b"the fox"
    assert all(len(token.top_logprobs) == 2 and token.logprob == token.top_logprobs[0].logprob for token in tokens)
    (choice,) = client.chat.completions.create(**settings).choices
    assert choice.logprobs is None


@pytest.mark.parametrize(
    ("body", "param", "word"),
    [
        ({}, "messages", "missing"),
        ({"messages": []}, "messages", "list of objects"),
        ({"messages": "a"}, "messages", "type"),
        ({"messages": [{"role": "user"}]}, "messages", "message 1"),
        ({"messages": [QUESTION, {"role": "user", "content": 1}]}, "messages", "message 2"),
        ({"messages": [{"role": "a b", "content": "a"}]}, "messages", "role"),
        ({"messages": [QUESTION | {"name": "a"}]}, "messages", "'name'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "string"),
        ({"messages": [{"role": "user", "content": "<|end|>"}]}, "messages", "marks turns"),
        ({"messages": [{"role": "user", "content": "a" * 3000}]}, "messages", "limit of 2000"),
        ({"messages": [QUESTION], "tools": []}, "tools", "tools"),
        ({"messages": [QUESTION], "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"messages": [QUESTION], "max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "differ"),
        ({"messages": [QUESTION], "max_tokens": 2001}, "max_tokens", "limit of 2000"),
        ({"messages": [QUESTION], "model": "random"}, "model", "not trained on messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_requests_are_refused(server: RunningServer, body: dict[str, Any], param: str, word: str) -> None:
    status, answer = server.request("/v1/chat/completions", {"model": "chat"} | body)
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert word in answer["error"]["message"]


def test_null_members_of_messages_count_as_missing(server: RunningServer) -> None:
    body = {"model": "chat", "messages": [QUESTION | {"name": None}], "max_tokens": 0}
    status, answer = server.request("/v1/chat/completions", body)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "")
