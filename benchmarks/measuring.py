"""Common functions of the benchmarks: describe the machine, measure processes alternately, print JSON lines.

Imports the standard library only: see `watch`.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self, TypeVar

CPU_INFORMATION = Path("/proc/cpuinfo")
PAUSE = 0.1
"""Seconds between two measurements; threads of BLAS libraries wait busily for the next product."""

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


@cache
def machine() -> dict[str, Any]:
    """The processor, its relevant features, and the versions of the measured packages."""
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
            if (installed := installed_version(package))
        },
    }


def installed_version(package: str) -> str | None:
    """The installed version of `package`, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def report(**result: Any) -> None:
    """Prints one result and the machine it was measured on as a JSON line."""
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


@dataclass(frozen=True)
class FinishedProcess:
    """Measurements of a finished process.

    Attributes:
        output: bytes of its standard output.
        first_byte: seconds from its start to the first byte of output; `seconds` if there is none.
        seconds: from its start to its end.
        processor_seconds: of all its threads; other programs hardly change them.
        peak_memory: peak resident memory in bytes.
    """

    output: bytes
    first_byte: float
    seconds: float
    processor_seconds: float
    peak_memory: int


def watch(command: list[str]) -> FinishedProcess:
    """Runs a command with empty standard input and its standard output in a pipe.

    The peak memory of the command includes that of this process, of which it is a copy before `exec`. Callers must
    therefore be small and import neither NumPy nor other large packages.

    Raises:
        SystemExit: the command failed; its error output is shown.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process:
            assert process.stdout is not None
            first = process.stdout.read(1)
            first_byte = time.perf_counter() - started
            rest = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{errors.read().decode(errors='replace')}")
    unit = 1 if sys.platform == "darwin" else 1024
    processor_seconds = usage.ru_utime + usage.ru_stime
    peak_memory = usage.ru_maxrss * unit
    return FinishedProcess(first + rest, first_byte if first else seconds, seconds, processor_seconds, peak_memory)


class Worker:
    """A process that measures on request: one JSON object per line in, one out."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closing its standard input ends the process

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and returns the response.

        Raises:
            SystemExit: the process has ended; its standard error says why.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            sys.exit(f"{' '.join(self._command)} has ended")
        response = self._process.stdout.readline()
        if not response:
            sys.exit(f"{' '.join(self._command)} has ended")
        result: dict[str, Any] = json.loads(response)
        return result


def alternate(contestants: Mapping[Name, Callable[[], Result]], rounds: int) -> dict[Name, list[Result]]:
    """Runs all contestants alternately, `rounds` times after one uncounted round; returns their results."""
    results: dict[Name, list[Result]] = {name: [] for name in contestants}
    for _ in range(1 + rounds):
        for name, measure in contestants.items():
            time.sleep(PAUSE)
            results[name].append(measure())
    return {name: values[1:] for name, values in results.items()}


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """The median ratio of two contestants, round by round, so that a slow round affects both."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))
