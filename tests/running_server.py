"""Servers for tests: processes of `llm serve`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import IO, Any

UNSET = ("QUICKFOX_MODEL", "QUICKFOX_API_KEY")
TIMEOUT = 60  # seconds, until a test fails


class RunningServer:
    """A process of `llm serve` at a free port."""

    def __init__(self, process: "subprocess.Popen[str]", log: IO[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.url = process.stdout.readline().strip()
        self._log = log
        assert self.url, self.log()
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def log(self) -> str:
        """Its standard error so far."""
        self._log.seek(0)
        return self._log.read()

    def request(
        self, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and body of a response, decoded if it is JSON; a `body` that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, data, headers or {})
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers.get("content-type") == "application/json"
            return response.status, json.loads(content) if is_json else content.decode()
        finally:
            connection.close()


@contextmanager
def run_server(*arguments: object, environment: dict[str, str] | None = None) -> Iterator[RunningServer]:
    """A server that is killed at the end."""
    command = [sys.executable, "-P", "-c", "from quickfox.cli.app import main; main()", "serve", "--port", "0"]
    inherited = {name: value for name, value in os.environ.items() if name not in UNSET}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=inherited | (environment or {}),
        )
        try:
            yield RunningServer(process, log)
        finally:
            process.kill()
            process.communicate(timeout=TIMEOUT)
