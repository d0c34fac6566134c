"""docs/cli.md is up to date with the help of the commands, and the examples in the help are valid."""

import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from quickfox.cli import app
from quickfox.cli.options import GroupedCommand

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS: dict[str, GroupedCommand] = typer.main.get_command(app.build_app([])).commands  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = spec_from_file_location("generate_cli_reference", DOCS / "generate_cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(generator: ModuleType) -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert page == generator.reference(), "run: python docs/generate_cli_reference.py"


@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_the_reference_does_not_depend_on_the_terminal(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert generator.reference() == (DOCS / "cli.md").read_text(encoding="utf-8")


def test_a_changed_option_makes_the_reference_stale(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    original = app.build_app([])
    (train,) = [command for command in original.registered_commands if command.name == "train"]
    train.epilog = "\b\nExamples:\n  llm train other.txt"
    monkeypatch.setattr(app, "build_app", lambda _arguments: original)
    assert generator.reference() != (DOCS / "cli.md").read_text(encoding="utf-8")


def test_every_option_has_its_line(generator: ModuleType) -> None:
    page = generator.reference()
    for name, command in COMMANDS.items():
        section = page.partition(f"## llm {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            name_shown = parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0]
            assert parameter.help
            assert re.search(rf"^- `[^`]*{re.escape(name_shown)}", section, re.MULTILINE), name_shown


def examples() -> list[str]:
    """The commands of this program in the examples, without what they are piped from or to."""
    lines = [line for command in COMMANDS.values() for line in str(command.epilog).splitlines() if "llm " in line]
    parts = [part.strip() for line in lines for part in re.split(r" [|>] ", line)]
    return [part for part in parts if part.startswith("llm ")]


@pytest.mark.parametrize("example", examples())
def test_the_options_of_an_example_exist_and_their_values_parse(example: str) -> None:
    _, name, *arguments = shlex.split(example.replace("$'", "'"))
    context: Any = COMMANDS[name].make_context(name, arguments)
    assert context.params
