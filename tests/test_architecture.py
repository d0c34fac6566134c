"""The house stands as ARCHITECTURE.md draws it: who may import whom, who may print, what a command may load.

Imports are read from the source, those inside of functions and under TYPE_CHECKING too.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import quickfox

PACKAGE = Path(quickfox.__file__).parent

FLOORS = (
    {"errors", "version"},
    {"allocator", "config", "durable", "durations", "native_output", "strict_json", "threads"},
    {"manifest", "tensor_file", "text"},
    {"models"},
    {"checkpoint"},
    {"continuation", "evaluation", "novelty", "runs", "sampling", "scoring"},
    {"completion", "export", "training"},
    {"trained_model"},
    {"api"},
    {"cli"},
    {"__main__", "quickfox"},  # the package's own __main__.py and __init__.py
)
"""The rooms from the ground up. A room imports from floors below its own only, never from a neighbour."""

OUTSIDE = {
    "gguf": ("export.gguf",),
    "keras": ("export.keras", "training"),
    "numpy": (
        "checkpoint",
        "completion",
        "evaluation",
        "export",
        "models",
        "novelty",
        "sampling",
        "scoring",
        "tensor_file",
        "text",
        "training",
    ),
    "rich": ("cli.display",),
    "safetensors": ("tensor_file",),
    "tensorflow": ("training",),
    "tokenizers": ("export.tokenizer_definition", "text.tokenizers.bpe"),
    "typer": ("cli",),
}
"""What is not ours and not of Python's own library: package -> the rooms, or modules, that may import it."""


def module_name(path: Path) -> str:
    """The name of a module below the package: `cli.app`; the package's own __init__ is called `quickfox`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "quickfox"


MODULES = {module_name(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.split(".")[0]


def floor_of(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room_of(module) in rooms)


def imports_in(source: str) -> Iterator[str]:
    """The full names of everything that a module imports; `from a import b` counts as `a.b` if that is a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name.removeprefix("quickfox.") in MODULES else node.module


def our_imports(source: str) -> set[str]:
    return {
        name.removeprefix("quickfox.")
        for name in imports_in(source)
        if name == "quickfox" or name.startswith("quickfox.")
    }


def climbing_imports(module: str, source: str) -> list[str]:
    """The imports of other rooms that are not on a lower floor."""
    return sorted(
        imported
        for imported in our_imports(source)
        if room_of(imported) != room_of(module) and floor_of(imported) >= floor_of(module)
    )


def misplaced_imports(module: str, source: str) -> list[str]:
    """The imports from outside that do not belong into this module."""
    packages = {name.split(".")[0] for name in imports_in(source)} - sys.stdlib_module_names - {"quickfox"}
    return sorted(package for package in packages if not {module, room_of(module)} & set(OUTSIDE.get(package, ())))


def prints(source: str) -> list[int]:
    """The lines that call `print`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def test_every_room_has_a_floor_and_every_floor_its_rooms() -> None:
    assert {room_of(module) for module in MODULES} == set().union(*FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    assert climbing_imports(module, MODULES[module]) == []


def test_imports_close_no_circle() -> None:
    graph = {module: our_imports(source) for module, source in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", MODULES)
def test_outside_packages_are_imported_only_where_they_belong(module: str) -> None:
    assert misplaced_imports(module, MODULES[module]) == []


def test_no_package_is_allowed_where_nobody_needs_it() -> None:
    for package, places in OUTSIDE.items():
        users = {
            module for module, source in MODULES.items() if package in {n.split(".")[0] for n in imports_in(source)}
        }
        assert set(places) == {module if module in places else room_of(module) for module in users}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_prints_past_the_streams_of_the_command_line(module: str) -> None:
    assert prints(MODULES[module]) == []


def test_the_tests_above_see_imports_inside_of_functions() -> None:
    source = "def f():\n    from quickfox.cli import app\n    import rich.console, click\n    print(1)\n"
    assert climbing_imports("text.corpus", source) == ["cli.app"]
    assert misplaced_imports("text.corpus", source) == ["click", "rich"]
    assert prints(source) == [4]
    assert climbing_imports("sampling.generation", "from quickfox import runs") == ["runs"]
    assert climbing_imports("cli.app", "from quickfox import runs") == []
    assert climbing_imports("api", "import quickfox") == ["quickfox"]


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


def test_generating_into_a_pipe_loads_neither_tensorflow_nor_rich(tmp_path: Path, model_directory: Path) -> None:
    loaded = modules_loaded_by(LLM, "generate", "--model", str(model_directory), "--length", "2", cwd=tmp_path)
    assert "numpy" in loaded
    assert not loaded & {"tensorflow", "keras", "rich", "pydantic"}


def test_scoring_loads_neither_tensorflow_nor_rich(tmp_path: Path, model_directory: Path) -> None:
    loaded = modules_loaded_by(LLM, "score", "--model", str(model_directory), "--heat", cwd=tmp_path)
    assert "numpy" in loaded
    assert not loaded & {"tensorflow", "keras", "rich", "pydantic"}
