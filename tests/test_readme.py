"""The README's commands: every option that they use exists; .ci/run executes the two that it begins with."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SEPARATORS = re.compile(r"\s*(?:&&|\|)\s*")


def llm_commands() -> list[str]:
    """Each `llm ...` in the README's shell blocks, without what it is piped from or to."""
    lines = [line for block in SHELL_BLOCK.findall(README.read_text(encoding="utf-8")) for line in block.splitlines()]
    commands = [command for line in lines for command in SEPARATORS.split(line.split(" #")[0])]
    return sorted({command.rstrip(" \\") for command in commands if command.startswith("llm ")})


@cache
def help_of(subcommand: str) -> str:
    code = "from quickfox.cli.app import main; main()"
    command = [sys.executable, "-c", code, *([subcommand] if subcommand else []), "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout


def test_the_readme_has_commands() -> None:
    assert len(llm_commands()) >= 8


@pytest.mark.parametrize("command", llm_commands())
def test_its_options_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    subcommand = words[0] if not words[0].startswith("-") else ""
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", help_of(subcommand)), f"{word}: no such option"
