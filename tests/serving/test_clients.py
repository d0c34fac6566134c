"""The server with the clients that people use, streamed or not: the texts are those of `llm generate`."""

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

import quickfox
from running_server import TIMEOUT, RunningServer

PROMPT = "the quick "
SETTINGS = {"max_tokens": 60, "seed": 7, "temperature": 0.9}


def expected_texts(directory: Path, count: int = 1) -> list[str]:
    """The continuations of PROMPT that `llm generate` prints with SETTINGS."""
    model = quickfox.load(directory)
    return model.generate(PROMPT, num_samples=count, echo=False, length=60, random_seed=7, temperature=0.9)


@pytest.fixture
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}v1", api_key="none", timeout=TIMEOUT)


def test_the_openai_package_gets_the_texts_of_generate(client: openai.OpenAI, mixture_directory: Path) -> None:
    response = client.completions.create(model="mixture", prompt=PROMPT, n=3, **SETTINGS)
    assert [choice.text for choice in response.choices] == expected_texts(mixture_directory, 3)
    assert response.usage is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (len(PROMPT), 180)


def test_the_openai_package_streams_the_texts_of_generate(client: openai.OpenAI, mixture_directory: Path) -> None:
    options = {"include_usage": True}
    stream = client.completions.create(
        model="mixture", prompt=PROMPT, n=3, stream=True, stream_options=options, **SETTINGS
    )
    texts = ["", "", ""]
    reasons = []
    usage = None
    for part in stream:
        for choice in part.choices:
            texts[choice.index] += choice.text
            reasons += [choice.finish_reason] if choice.finish_reason else []
        usage = part.usage or usage
    assert texts == expected_texts(mixture_directory, 3)
    assert reasons == ["length"] * 3
    assert usage is not None
    assert usage.completion_tokens == 180


def test_a_text_is_the_same_among_32_others(client: openai.OpenAI, mixture_directory: Path) -> None:
    def complete(seed: int) -> str:
        settings = SETTINGS | {"seed": seed}
        return client.completions.create(model="mixture", prompt=PROMPT, **settings).choices[0].text

    with ThreadPoolExecutor(33) as pool:
        texts = list(pool.map(complete, range(33)))
    assert [texts[7]] == expected_texts(mixture_directory)
    assert len(set(texts)) == 33


def test_the_openai_package_lists_models_and_raises_its_errors(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["random", "mixture", "chat"]
    assert client.models.retrieve("mixture").id == "mixture"
    with pytest.raises(openai.NotFoundError, match="no model is named 'nothing'"):
        client.completions.create(model="nothing", prompt="a")
    with pytest.raises(openai.BadRequestError, match="suffix") as error:
        client.completions.create(model="random", prompt="a", suffix="b")
    assert error.value.param == "suffix"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_streams(server: RunningServer, model_directory: Path) -> None:
    body = json.dumps({"prompt": PROMPT, "stream": True, **SETTINGS})
    result = subprocess.run(
        ["curl", "-sN", "--noproxy", "*", f"{server.url}v1/completions", "-d", body],
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    *events, last, empty = result.stdout.split("\n\n")
    texts = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
    assert ["".join(texts)] == expected_texts(model_directory)
    assert (last, empty) == ("data: [DONE]", "")


@pytest.mark.skipif("SIMONW_LLM" not in os.environ, reason="SIMONW_LLM does not name the command of the package llm")
def test_the_package_llm(server: RunningServer, model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: fox\n  model_name: random\n  api_base: {server.url}v1\n  completion: true\n"
        f"- model_id: chat\n  model_name: chat\n  api_base: {server.url}v1\n",
        encoding="utf-8",
    )
    options = [part for name, value in SETTINGS.items() for part in ("-o", name, str(value))]
    requests = [["fox", *options, PROMPT], ["fox", *options, "--no-stream", PROMPT]]
    requests += [["chat", "-o", "temperature", "0", *mode, "what jumps?"] for mode in ([], ["--no-stream"])]
    (completion,) = expected_texts(model_directory)
    for arguments, expected in zip(requests, [completion, completion, "the fox", "the fox"], strict=True):
        result = subprocess.run(
            [os.environ["SIMONW_LLM"], "-m", *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            env=os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"},
        )
        assert result.stderr == ""
        assert result.stdout.removesuffix("\n") == expected
