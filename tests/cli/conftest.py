"""The command line in this process, which is fast, and as a real process, where streams, signals or start-up matter."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

import pytest

from ngram_models import mix_with_ngrams, ngram_bundle
from quickfox.checkpoints.checkpoint import load_model, save_checkpoint
from quickfox.cli import app
from quickfox.cli.streams import OutputStream

Llm = Callable[..., CompletedProcess[Any]]

NGRAM_TEXT = "the quick brown fox jumps over the lazy dog\n" * 3
NGRAM_ORDER = 5

UNSET = ("QUICKFOX_MODEL", "LLM_MODEL", "NO_COLOR", "COLUMNS")
"""Environment variables that change what the program does."""


@pytest.fixture(scope="session")
def program() -> list[str]:
    """The command `llm`, independent of where it is installed; like the script, with `-P`, it imports nothing from the
    current directory."""
    return [sys.executable, "-P", "-c", "from quickfox.cli.app import main; main()"]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment without the variables that change what the program does."""
    return {name: value for name, value in os.environ.items() if name not in UNSET}


@pytest.fixture
def llm(tmp_path: Path, environment: dict[str, str]) -> Llm:
    """Runs `llm` in this process, in an empty folder with an empty standard input.

    TensorFlow keeps its number of threads for the whole test session: whatever trains does it with `--threads 2`.
    """

    def run(*arguments: object, **options: Any) -> CompletedProcess[Any]:
        return run_in_process(arguments, **{"cwd": tmp_path, "env": environment, **options})

    return run


@pytest.fixture
def llm_process(program: list[str], tmp_path: Path, environment: dict[str, str]) -> Llm:
    """Runs `llm` as a process, in an empty folder with an empty standard input."""

    def run(*arguments: object, **options: Any) -> CompletedProcess[Any]:
        options = {"cwd": tmp_path, "env": environment, "input": "", "encoding": "utf-8", **options}
        return subprocess.run([*program, *map(str, arguments)], capture_output=True, timeout=100, **options)

    return run


@pytest.fixture(scope="session")
def run_llm(environment: dict[str, str]) -> Llm:
    """Runs `llm` in this process, in the folder `cwd`, for fixtures that last longer than a test."""
    return lambda *arguments, **options: run_in_process(arguments, **{"env": environment, **options})


def run_in_process(
    arguments: tuple[object, ...],
    *,
    cwd: Path,
    env: dict[str, str],
    input: str | bytes = "",
    encoding: str | None = "utf-8",
) -> CompletedProcess[Any]:
    """Like `subprocess.run` of the program, but the modules are imported already; a bug raises its exception."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stdout = OutputStream(io.BytesIO())
    stderr = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    with contextlib.ExitStack() as stack:
        stdin = stack.enter_context(tempfile.TemporaryFile())  # score reads its descriptor
        stdin.write(input.encode() if isinstance(input, str) else input)
        stdin.seek(0)
        streams = {"stdin": io.TextIOWrapper(stdin, encoding="utf-8"), "stdout": stdout, "stderr": stderr}
        stack.enter_context(patch.multiple(sys, **streams))
        stack.enter_context(patch.dict(os.environ, env, clear=True))
        stack.enter_context(contextlib.chdir(cwd))
        try:
            status = app.run_command("llm", list(map(str, arguments)))
        except SystemExit as end:  # of shell completion
            status = end.code  # type: ignore[assignment]
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        stderr.flush()
        written = [stream.buffer.getvalue() for stream in (stdout, stderr)]  # type: ignore[attr-defined]
    return CompletedProcess(arguments, status, *(text.decode(encoding) if encoding else text for text in written))


@pytest.fixture(scope="session")
def mixture_directory(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    """A model directory with random weights, mixed with the n-grams of NGRAM_TEXT."""
    directory = tmp_path_factory.mktemp("models") / "mixture"
    save_checkpoint(directory, mix_with_ngrams(load_model(model_directory), NGRAM_TEXT, NGRAM_ORDER), None)
    return directory


@pytest.fixture(scope="session")
def ngram_directory(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    """A model directory with the n-grams of NGRAM_TEXT alone."""
    directory = tmp_path_factory.mktemp("models") / "ngram"
    save_checkpoint(directory, ngram_bundle(load_model(model_directory).tokenizer, NGRAM_TEXT, NGRAM_ORDER), None)
    return directory
