"""Endpoints, bad requests and the protection of a server."""

import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import quickfox
from quickfox.evaluation.scoring import describe_score
from running_server import TIMEOUT, RunningServer, run_server

BAD_BODIES: list[tuple[Any, int, str]] = [
    (b"", 400, "not valid JSON"),
    (b"\xff\xfe{}", 400, "not valid JSON"),
    (b'{"prompt": "a", "temperature": NaN}', 400, "NaN"),
    (b'{"prompt": "a", "prompt": "b"}', 400, "given twice"),
    (b"[" * 100_000, 400, "nested too deeply"),
    ([], 400, "JSON object"),
    ({"prompt": 5}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": [[]]}, 400, "prompt"),
    ({"prompt": ["a", 1]}, 400, "prompt"),
    ({"prompt": [[0, 999_999]]}, 400, "outside the vocabulary"),
    ({"prompt": [-1]}, 400, "outside the vocabulary"),
    ({"prompt": "a" * 3000}, 400, "limit of 2000"),
    ({"prompt": "a!", "unknown": "error"}, 400, "!"),
    ({"unknown_field": 1}, 400, "unknown_field"),
    ({"suffix": "b"}, 400, "suffix"),
    ({"max_tokens": -1}, 400, "max_tokens"),
    ({"max_tokens": "5"}, 400, "max_tokens"),
    ({"max_tokens": 2001}, 400, "limit of 2000"),
    ({"n": 50, "max_tokens": 41}, 400, "limit of 2000"),
    ({"n": 0}, 400, "n must be"),
    ({"n": 3, "best_of": 2}, 400, "best_of"),
    ({"n": 1, "best_of": 2, "stream": True}, 400, "best_of"),
    ({"seed": -1}, 400, "seed"),
    ({"temperature": -0.1}, 400, "temperature"),
    ({"temperature": 10**400}, 400, "digits|temperature|number"),
    ({"top_p": 0}, 400, "top_p"),
    ({"stop": ["x"] * 10_000}, 400, "stop"),
    ({"stop": ""}, 400, "stop"),
    ({"stop": "x" * 1000}, 400, "stop"),
    ({"logprobs": 21}, 400, "logprobs"),
    ({"n": 129, "max_tokens": 1}, 400, "limit of 128"),
    ({"prompt": ["a"] * 65, "best_of": 2, "max_tokens": 1}, 400, "limit of 128"),
    ({"logit_bias": {"a": 1}}, 400, "logit_bias"),
    ({"logit_bias": {"0": 101}}, 400, "logit_bias"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ({"stream": True, "stream_options": {"other": True}}, 400, "other"),
    ({"model": "none"}, 404, "no model"),
    (b" " * (2**20 + 1), 413, "limit"),
]


def test_bad_bodies_are_refused_with_a_reason(server: RunningServer) -> None:
    for body, expected, word in BAD_BODIES:
        status, answer = server.request("/v1/completions", body)
        assert (status, set(answer)) == (expected, {"error"}), (body, answer)
        assert any(each in answer["error"]["message"] for each in word.split("|")), answer
        assert answer["error"]["type"] == "invalid_request_error"
    assert server.request("/v1/completions", {}, method="PUT")[0] == 405
    assert server.request("/nothing")[0] == 404
    assert "Traceback" not in server.log()


def test_the_prompt_is_echoed_with_log_probabilities(server: RunningServer, mixture_directory: Path) -> None:
    body = {"model": "mixture", "prompt": "\nthe fox", "echo": True, "logprobs": 2, "max_tokens": 2, "temperature": 0}
    _, answer = server.request("/v1/completions", body)
    (choice,) = answer["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"].startswith("\nthe fox")
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["text_offset"] == list(range(10))
    assert (logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]) == (None, None)
    assert all(2 <= len(top) <= 3 for top in logprobs["top_logprobs"][1:])
    (score,) = quickfox.load(mixture_directory).score(["the fox"])
    nats = -sum(logprobs["token_logprobs"][1:8])
    assert nats == pytest.approx(score.total_bits * 0.6931472, abs=1e-4)
    _, parts = server.request("/v1/completions", body | {"stream": True})
    events = [json.loads(part.removeprefix("data: ")) for part in parts.split("\n\n")[:-2]]
    assert "".join(event["choices"][0]["text"] for event in events) == choice["text"]
    offsets = [offset for event in events for offset in event["choices"][0]["logprobs"]["text_offset"]]
    assert offsets == logprobs["text_offset"]


def test_prompts_may_be_lists_and_token_ids(server: RunningServer) -> None:
    settings = {"seed": 1, "max_tokens": 5}
    _, tokens = server.request("/tokenize", {"prompt": "the fox"})
    _, listed = server.request("/v1/completions", {"prompt": ["the fox", "a"], "n": 2, **settings})
    _, by_ids = server.request("/v1/completions", {"prompt": tokens["tokens"], "n": 2, **settings})
    assert [choice["index"] for choice in listed["choices"]] == [0, 1, 2, 3]
    assert by_ids["choices"] == listed["choices"][:2]
    assert server.request("/detokenize", {"tokens": tokens["tokens"]}) == (200, {"prompt": "the fox"})
    assert server.request("/tokenizer_info")[1]["bos_token"] == "\n"


def test_best_of_logit_bias_and_warnings(server: RunningServer) -> None:
    token_id = server.request("/tokenize", {"prompt": "x"})[1]["tokens"][0]
    _, answer = server.request("/v1/completions", {"prompt": "a", "max_tokens": 4, "logit_bias": {token_id: 100}})
    assert answer["choices"][0]["text"] == "xxxx"
    body = {"prompt": "über~", "max_tokens": 5, "seed": 3, "logprobs": 0}
    _, every = server.request("/v1/completions", body | {"n": 4})
    _, best = server.request("/v1/completions", body | {"best_of": 4})
    expected = max(every["choices"], key=lambda choice: sum(choice["logprobs"]["token_logprobs"]))
    assert best["choices"][0]["text"] == expected["text"]
    assert "~" in best["warnings"][0]
    assert best["seed"] == 3


def test_scores_and_the_description_are_those_of_the_commands(server: RunningServer, model_directory: Path) -> None:
    texts = ["the fox", "", "~x"]
    _, answer = server.request("/v1/score", {"input": texts})
    model = quickfox.load(model_directory)
    scores = model.score(texts, Counter())
    assert answer["data"] == [
        {"index": index, **describe_score(text, score)}
        for index, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    _, description = server.request("/v1/models/random")
    assert (description["parameters"], description["tokenizer"]["kind"]) == (1174, "char")
    assert server.request("/v1/score", {"input": "~", "unknown": "error"})[0] == 400
    assert server.request("/v1/score", {"input": "a" * 2001})[0] == 400
    assert server.request("/v1/models/other")[0] == 404


def test_health_metrics_and_the_page(server: RunningServer) -> None:
    assert server.request("/health") == (200, {"status": "ok"})
    server.request("/v1/completions", {"prompt": "a", "max_tokens": 1})
    _, text = server.request("/metrics")
    assert 'quickfox_requests_total{endpoint="/v1/completions",status="200"}' in text
    assert 'quickfox_generated_tokens_total{model="random"}' in text
    status, html = server.request("/")
    assert (status, html[:15]) == (200, "<!doctype html>")


def test_pages_of_other_sites_are_kept_out(server: RunningServer) -> None:
    assert server.request("/v1/models", headers={"Host": "rebound.example"})[0] == 403
    assert server.request("/v1/models", headers={"Host": "localhost:1"})[0] == 200
    assert server.request("/v1/models", headers={"Origin": "https://example.org"})[0] == 403
    assert server.request("/v1/models", headers={"Origin": server.url.rstrip("/")})[0] == 200


def test_a_client_that_goes_away_ends_its_text(server: RunningServer) -> None:
    body = json.dumps({"prompt": "a", "max_tokens": 2000, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as connection:
        connection.sendall(head.encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 200"
    while "POST /v1/completions 499" not in server.log():
        pass  # the log is written when the server notices
    assert server.request("/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 200


def test_key_origins_and_queue(model_directory: Path) -> None:
    arguments = ("--allowed-origins", "https://example.org", "--queue", 0, "--host", "0.0.0.0")
    with run_server(model_directory, *arguments, environment={"QUICKFOX_API_KEY": "secret"}) as server:
        allowed = {"Authorization": "Bearer secret", "Origin": "https://example.org"}
        assert server.request("/v1/models")[0] == 401
        assert server.request("/v1/models", headers={"Authorization": "Bearer Secret"})[0] == 401
        assert server.request("/health")[0] == 200
        assert server.request("/v1/models", headers=allowed)[0] == 200
        assert server.request("/v1/models", headers=allowed | {"Origin": "https://example.com"})[0] == 403
        preflight = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        assert server.request("/v1/completions", method="OPTIONS", headers=preflight)[0] == 200
        assert "secret" not in server.log()
