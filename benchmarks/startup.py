"""Measures start-up: whole processes of `llm`, alternating with `python -c "import numpy, typer, rich.console"`.

usage: python benchmarks/startup.py [--model DIR]... [--train TEXT]... [--rounds N]
Measure a plain `pip install`, not an editable one. Without --model, `generate` uses the newest run under ./runs; with
several, the ratio to the first is printed too. With --train, what is measured is the time from the command to the end
of the first optimizer step, as the history of the run says, with n-grams and without.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import report

BASELINE = [sys.executable, "-c", "import numpy, typer, rich.console"]
LLM = str(Path(sys.executable).with_name("llm" + (".exe" if os.name == "nt" else "")))


def seconds_of(command: list[str]) -> float:
    """Wall time of one whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure_commands(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each command and of the baseline in each round, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ("baseline", *commands)}
    for _ in range(rounds + 1):  # in the first, the files come into the file system cache
        for name, command in {"baseline": BASELINE, **commands}.items():
            times[name].append(seconds_of(command))
    return {name: values[1:] for name, values in times.items()}


def median_ratio(times: list[float], others: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(times, others, strict=True)), 2)


def compare_commands(models: list[str], rounds: int) -> None:
    """Measures and reports the start-up of commands that do not train."""
    commands = {"llm --version": [LLM, "--version"], "llm --help": [LLM, "--help"]}
    generations = [f"generate --length {length}" for length in (4000, 200, 1)]
    for model in models or [""]:
        for generation in generations:
            options = ["--seed", "The ", *(["--model", model] if model else [])]
            commands[f"llm {generation} {model}".strip()] = [LLM, *generation.split(), *options]
    times = measure_commands(commands, rounds)
    for name in commands:
        first = next((f"llm {each} {models[0]}" for each in generations if len(models) > 1 and each in name), None)
        against = {} if first is None else {"ratio_to_first_model": median_ratio(times[name], times[first])}
        report(
            benchmark="startup", command=name, rounds=rounds, seconds=round(statistics.median(times[name]), 3),
            baseline_seconds=round(statistics.median(times["baseline"]), 3),
            ratio=median_ratio(times[name], times["baseline"]), **against,
        )  # fmt: skip


def first_step(text: str, ngram: str) -> float:
    """Seconds from the command to the end of the first step, of two, so that no validation follows it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        seconds_of([LLM, "train", text, "--ngram", ngram, "--steps", "2", "--hidden-dim", "320", "--output", str(run)])
        line: dict[str, Any] = json.loads((run / "history.jsonl").read_text(encoding="utf-8").partition("\n")[0])
    assert line["event"] == "step", "the history begins with the first step"
    return float(line["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", action="append", default=[], help="a run or model directory for `llm generate`")
    parser.add_argument("--train", action="append", default=[], help="a text to begin a training on")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if not options.train:
        compare_commands(options.model, options.rounds)
    for text in options.train:
        rounds = [[first_step(text, ngram) for ngram in ("auto", "off")] for _ in range(options.rounds + 1)][1:]
        seconds, seconds_off = zip(*rounds, strict=True)
        report(
            benchmark="first_step", text=text, rounds=options.rounds, seconds=round(statistics.median(seconds), 2),
            seconds_without_ngrams=round(statistics.median(seconds_off), 2),
        )  # fmt: skip


if __name__ == "__main__":
    main()
