"""ARCHITECTURE.md as data: its layers and its map, which are written down nowhere else."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "ARCHITECTURE.md"
PACKAGE = Path(__file__).parent.parent / "src" / "quickfox"


def block(name: str) -> list[str]:
    """The lines of the fenced block that is marked with this name."""
    match = re.search(rf"^```{name}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert match is not None, f"ARCHITECTURE.md has no block {name}"
    return [line for line in match[1].splitlines() if line.strip()]


def layers(name: str = "layers") -> dict[str, int]:
    """Package or module -> the number of its layer, from the bottom."""
    return {package: number for number, line in enumerate(block(name)) for package in line.split()}


def mapped_modules() -> dict[str, str]:
    """The modules of the map, by their path without suffix, and what is said of them."""
    modules: dict[str, str] = {}
    folders: list[str] = []
    for line in block("map"):
        indent = (len(line) - len(line.lstrip())) // 2
        name, _, description = line.strip().partition(" ")
        folders = folders[:indent]
        if name.endswith("/"):
            folders.append(name)
        else:
            modules["".join([*folders, name])] = description.strip()
    return modules


def source_modules() -> dict[str, str]:
    """The modules of the package, by their path without suffix, and their source; plain __init__ files are left out."""
    sources = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    return {name: source for name, source in sorted(sources.items()) if source or not name.endswith("/__init__")}
