"""Measures start-up: whole processes of `llm`, alternating with `python -c "import numpy, typer, rich.console"`.

usage: python benchmarks/startup.py [--model DIR] [--rounds N]
Measure a plain `pip install`, not an editable one. Without --model, `generate` uses the newest run under ./runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measuring import report

BASELINE = [sys.executable, "-c", "import numpy, typer, rich.console"]


def seconds_of(command: list[str]) -> float:
    """Wall time of one whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="a run or model directory for `llm generate`")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    llm = str(Path(sys.executable).with_name("llm" + (".exe" if os.name == "nt" else "")))
    model = ["--model", options.model] if options.model else []
    commands = {
        "llm --version": [llm, "--version"],
        "llm --help": [llm, "--help"],
        "llm generate --length 200": [llm, "generate", "--seed", "The ", "--length", "200", *model],
        "llm generate --length 1": [llm, "generate", "--seed", "The ", "--length", "1", *model],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    baseline = []
    for command in (BASELINE, *commands.values()):
        seconds_of(command)  # once without measuring, so that the files are in the file system cache
    for _ in range(options.rounds):
        baseline.append(seconds_of(BASELINE))
        for name, command in commands.items():
            times[name].append(seconds_of(command))
    for name, values in times.items():
        report(
            benchmark="startup", command=name, rounds=options.rounds, seconds=round(statistics.median(values), 3),
            baseline_seconds=round(statistics.median(baseline), 3),
            ratio=round(statistics.median(a / b for a, b in zip(values, baseline, strict=True)), 2),
        )  # fmt: skip


if __name__ == "__main__":
    main()
