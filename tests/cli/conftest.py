"""The command line as real processes, each in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def program() -> list[str]:
    """The command `llm`, wherever it may be installed."""
    return [sys.executable, "-c", "from quickfox.cli.app import main; main()"]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment, less what would change what the program does."""
    return {name: value for name, value in os.environ.items() if name not in ("LLM_MODEL", "NO_COLOR", "COLUMNS")}


@pytest.fixture
def llm(
    program: list[str], tmp_path: Path, environment: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `llm` with the arguments to its end, in an empty folder, with nothing on standard input."""

    def run(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
        settings = {"cwd": tmp_path, "env": environment, "input": "", "encoding": "utf-8", **settings}
        return subprocess.run([*program, *map(str, arguments)], capture_output=True, timeout=100, **settings)

    return run
