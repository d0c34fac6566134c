"""The life of a server: its start, a better checkpoint, and its end."""

import dataclasses
import json
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from conftest import random_bundle
from quickfox.checkpoints.checkpoint import save_checkpoint
from quickfox.checkpoints.run_directory import checkpoint_directory
from quickfox.errors import CannotCreateError
from quickfox.serving.server import open_socket
from running_server import TIMEOUT, run_server


def serve(*arguments: object) -> CompletedProcess[Any]:
    """`llm serve` with arguments that it refuses."""
    command = [sys.executable, "-P", "-c", "from quickfox.cli.app import main; main()", "serve"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT)


def save(run: Path, step: int, loss: float, random_seed: int) -> Path:
    directory = checkpoint_directory(run, step)
    bundle = dataclasses.replace(random_bundle(random_seed), step=step, validation_loss=loss)
    save_checkpoint(directory, bundle, None)
    return directory


def test_what_cannot_be_served_is_refused(model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "random").symlink_to(model_directory)
    missing = serve(tmp_path / "nothing")
    assert (missing.returncode, missing.stderr.count("\n")) == (66, 1)
    twice = serve(model_directory, model_directory)
    assert (twice.returncode, "same name" in twice.stderr) == (2, True)
    assert serve(model_directory, "--api-key", "").returncode == 2
    with run_server(model_directory) as server:
        taken = serve(model_directory, "--port", server.port)
        assert (taken.returncode, taken.stdout) == (73, "")
        assert f"process {server.process.pid}" in taken.stderr
    without_stack = [
        sys.executable,
        "-c",
        "import sys; sys.modules['uvicorn'] = None\nfrom quickfox.cli.app import main; main()",
    ]
    result = subprocess.run([*without_stack, "serve", str(model_directory)], capture_output=True, text=True)
    assert (result.returncode, "pip install 'quickfox[serve]'" in result.stderr) == (69, True)


def test_a_better_checkpoint_is_served_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save(run, 1, 3.0, random_seed=1)
    body = {"prompt": "a", "max_tokens": 30, "seed": 1}
    with run_server(run) as server:

        def text() -> str:
            return str(server.request("/v1/completions", body)[1]["choices"][0]["text"])

        first = text()
        damaged = save(run, 2, 2.0, random_seed=2)
        data = bytearray((damaged / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (damaged / "model.safetensors").write_bytes(data)
        while "using" not in server.log():
            assert text() == first
        save(run, 3, 2.5, random_seed=3)
        while text() == first:
            pass
        assert "now serves" in server.log()
        assert str(tmp_path) not in str(server.request("/v1/models/run"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_lets_requests_finish(model_directory: Path, number: signal.Signals, status: int) -> None:
    with run_server(model_directory) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        body = {"prompt": "a", "max_tokens": 3000, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body))
        response = connection.getresponse()
        response.readline()
        server.process.send_signal(number)
        assert response.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        assert server.process.wait(timeout=TIMEOUT) == status
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "no.invalid"])
def test_a_name_that_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(CannotCreateError, match=f"cannot serve at {host} port 0"):
        open_socket(host, 0)
