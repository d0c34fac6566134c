"""The tree is as ARCHITECTURE.md describes it: which modules there are, who imports whom, how long files may be.

Imports are read from the source, those inside functions and under TYPE_CHECKING too.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from architecture import PACKAGE, layers, mapped_modules, source_modules

LAYERS = layers()
TRAINING_LAYERS = layers("layers training")

THIRD_PARTY = {
    "ftfy": ("diagnosis/repair",),
    "gguf": ("export/gguf",),
    "keras": ("export/keras", "training"),
    "numpy": (
        "checkpoints",
        "data",
        "diagnosis",
        "evaluation",
        "export",
        "generation",
        "media",
        "models",
        "report",
        "serving",
        "text",
        "tokenizers",
        "training",
    ),
    "PIL": ("media/pictures",),
    "pyarrow": ("text/tables",),
    "rich": ("cli/live_display",),
    "safetensors": ("checkpoints/tensors",),
    "soundfile": ("media/sound",),
    "starlette": ("serving",),
    "tensorflow": ("training",),
    "tokenizers": ("export/tokenizer_json", "tokenizers/bpe"),
    "trackio": ("training",),
    "typer": ("cli",),
    "uvicorn": ("serving/server",),
    "wandb": ("training",),
}
"""Packages that are neither ours nor Python's -> the packages or modules that may import them."""

MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 50
LONG_FILES: dict[str, str] = {}
"""Files over the limit, each with the reason."""

LONG_FUNCTIONS: dict[str, str] = {}
"""Functions over the limit, each with the reason."""

MODULES = source_modules()
ROOT = PACKAGE.parent.parent


parse = cache(ast.parse)


def package_of(module: str) -> str:
    return module.split("/")[0]


def broken_rules(check: Callable[[str, str], list[Any]]) -> dict[str, list[Any]]:
    """Module -> what `check` finds in its name and source, for those where it finds something."""
    found = {module: check(module, source) for module, source in MODULES.items()}
    return {module: faults for module, faults in found.items() if faults}


@cache
def imports_in(source: str) -> frozenset[str]:
    """The full names of all imports, slashes for dots; `from a import b` is `a/b` if that is a module of ours."""
    return frozenset(_iter_imports(source))


def _iter_imports(source: str) -> Iterator[str]:
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.replace(".", "/") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}".replace(".", "/")
                yield name if name.removeprefix("quickfox/") in MODULES else node.module.replace(".", "/")


def our_imports(source: str) -> set[str]:
    names = (name for name in imports_in(source) if package_of(name) == "quickfox")
    return {name.removeprefix("quickfox").removeprefix("/") or "__init__" for name in names}


def is_upward(importer: str, imported: str, layer_of: dict[str, int]) -> bool:
    return importer != imported and layer_of[imported] >= layer_of[importer]


def upward_imports(module: str, source: str) -> list[str]:
    """The imports of other packages that are not on a lower layer."""
    found = []
    for imported in our_imports(source):
        if is_upward(package_of(module), package_of(imported), LAYERS):
            found.append(imported)
        elif package_of(module) == package_of(imported) == "training":
            parts = [name.split("/")[1] for name in (module, imported)]
            if is_upward(*parts, TRAINING_LAYERS):
                found.append(imported)
    return sorted(found)


def misplaced_imports(module: str, source: str) -> list[str]:
    """The third-party imports that are not allowed in this module."""
    packages = {package_of(name) for name in imports_in(source)} - sys.stdlib_module_names - {"quickfox"}
    allowed = {name: {module, package_of(module)} & set(THIRD_PARTY.get(name, ())) for name in packages}
    return sorted(name for name, places in allowed.items() if not places)


def prints(source: str) -> list[int]:
    """The lines that call `print`."""
    return [
        node.lineno
        for node in ast.walk(parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def test_the_map_lists_the_modules_of_the_tree() -> None:
    assert sorted(mapped_modules()) == sorted(MODULES)


def test_every_package_has_a_layer() -> None:
    assert {package_of(module) for module in MODULES} == set(LAYERS)
    training = {module.split("/")[1] for module in MODULES if module.startswith("training/")}
    assert training == set(TRAINING_LAYERS)


def test_imports_go_to_lower_layers() -> None:
    assert broken_rules(upward_imports) == {}


def test_imports_have_no_cycle() -> None:
    graph = {module: our_imports(source) for module, source in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle: {' -> '.join(error.args[1])}")


def test_third_party_packages_are_imported_only_where_allowed() -> None:
    assert broken_rules(misplaced_imports) == {}


def test_every_permission_is_used() -> None:
    for package, places in THIRD_PARTY.items():
        users = {module for module, source in MODULES.items() if package in map(package_of, imports_in(source))}
        assert set(places) == {module if module in places else package_of(module) for module in users}


def test_nothing_prints_past_the_streams_of_the_command_line() -> None:
    assert broken_rules(lambda _, source: prints(source)) == {}


def test_every_module_says_what_it_is_for() -> None:
    without = {module for module, source in MODULES.items() if not ast.get_docstring(parse(source))}
    assert without <= {"__init__"}


def files() -> dict[str, str]:
    paths = [path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_files_are_short_or_have_a_reason() -> None:
    long = {name for name, source in files().items() if source.count("\n") > MAX_FILE_LINES}
    assert long == set(LONG_FILES)


def test_functions_are_short_or_have_a_reason() -> None:
    long = set()
    for name, source in files().items():
        for node in ast.walk(parse(source)):
            if isinstance(node, ast.FunctionDef) and code_lines(node) > MAX_FUNCTION_LINES:
                long.add(f"{name}:{node.name}")
    assert long == set(LONG_FUNCTIONS)


def code_lines(function: ast.FunctionDef) -> int:
    """The lines of a function, its docstring left out."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
    return lines


def test_the_tests_above_see_imports_inside_functions() -> None:
    source = "def f():\n    from quickfox.cli import app\n    import rich.console, click\n    print(1)\n"
    assert upward_imports("text/corpus", source) == ["cli/app"]
    assert misplaced_imports("text/corpus", source) == ["click", "rich"]
    assert prints(source) == [4]
    run_directory = "from quickfox.checkpoints import run_directory"
    assert upward_imports("generation/sampler", run_directory) == ["checkpoints/run_directory"]
    assert upward_imports("cli/app", run_directory) == []
    assert upward_imports("api", "import quickfox") == ["__init__"]
    assert upward_imports("training/networks/network", "import quickfox.training.engine.events") == [
        "training/engine/events"
    ]


def modules_loaded_by(program: str, *arguments: str, cwd: Path) -> set[str]:
    """The top-level modules that are loaded when a program with nothing but pipes around it ends."""
    listing = "import atexit, json, sys; atexit.register(lambda: print(json.dumps([*sys.modules]), file=sys.stderr));"
    result = subprocess.run(
        [sys.executable, "-c", listing + program, *arguments], cwd=cwd, input="", capture_output=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stderr
    return {name.split(".")[0] for name in json.loads(result.stderr.splitlines()[-1])}


LLM = "from quickfox.cli.app import main; main()"


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = modules_loaded_by("import quickfox", cwd=tmp_path)
    assert "quickfox" in loaded
    assert not loaded & {"numpy", "safetensors", "tensorflow", "keras", "rich", "typer"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]])
def test_help_loads_typer_only(tmp_path: Path, arguments: list[str]) -> None:
    loaded = modules_loaded_by(LLM, *arguments, cwd=tmp_path)
    assert "typer" in loaded
    assert not loaded & {"numpy", "tensorflow", "keras", "rich", "pydantic"}


@pytest.mark.parametrize("command", [["generate", "--length", "2"], ["score", "--heat"]])
def test_sampling_into_a_pipe_loads_neither_tensorflow_nor_rich(
    tmp_path: Path, model_directory: Path, command: list[str]
) -> None:
    loaded = modules_loaded_by(LLM, *command, "--model", str(model_directory), cwd=tmp_path)
    assert "numpy" in loaded
    assert not loaded & {"tensorflow", "keras", "rich", "pydantic"}
