"""What the benchmarks share: naming the machine, a measurement in a process of its own, one JSON line a result."""

import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPU_INFORMATION = Path("/proc/cpuinfo")


@cache
def machine() -> dict[str, Any]:
    """The processor, what matters of its features, and the versions of what is measured."""
    lines = CPU_INFORMATION.read_text(encoding="utf-8").splitlines() if CPU_INFORMATION.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    features = set(fields.get("flags", "").split())
    return {
        "processor": fields.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "features": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in features],
        "python": platform.python_version(),
        **{
            package: installed
            for package in ("quickfox", "tensorflow", "keras", "numpy")
            if (installed := found(package))
        },
    }


def found(package: str) -> str | None:
    """The installed version of `package`, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def report(**result: Any) -> None:
    """Prints one result, with the machine it was measured on, as a line of JSON."""
    print(json.dumps({**result, "machine": machine()}, ensure_ascii=False), flush=True)


def run_json(command: list[str], **options: Any) -> dict[str, Any]:
    """Runs a command and decodes the last line it prints.

    Raises:
        SystemExit: the command failed; its error output is shown.
    """
    finished = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, **options)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{finished.stderr}")
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result
