"""Commands with their default threads against `--threads 1`, while other processes keep all processors busy.

usage: python benchmarks/busy_machine.py MODEL TEXT [--rounds 3] [--idle]
Alternates both on `llm evaluate`, `score` and `generate` of one text and of 64, beside one endless loop per processor
(`--idle`: none). Prints one JSON line per command; the exit status is 1 if one is slower with its default threads:
if the median ratio, round by round, is above 1.05.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from measuring import alternate, median_ratio, report

MAX_RATIO = 1.05
PROGRAM = [sys.executable, "-P", "-m", "quickfox"]
GENERATE = ["generate", "--random-seed", "1", "--seed", "The "]
LOOP = [sys.executable, "-c", "while True: pass"]


def commands(text: Path) -> dict[str, list[str]]:
    return {
        "evaluate": ["evaluate", str(text)],
        "score": ["score", str(text)],
        "generate": [*GENERATE, "--length", "2000"],
        "generate --num-samples 64": [*GENERATE, "--length", "200", "--num-samples", "64"],
    }


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([*PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", action="store_true", help="without other processes")
    options = parser.parse_args()
    has_failed = False
    with ExitStack() as stack:
        for _ in range(0 if options.idle else os.cpu_count() or 1):
            stack.callback(stack.enter_context(subprocess.Popen(LOOP)).kill)
        for name, arguments in commands(options.text).items():
            command = [*arguments, "--model", options.model]
            measured = alternate(
                {"default": partial(seconds, command), "one": partial(seconds, [*command, "--threads", "1"])},
                options.rounds,
            )
            ratio = median_ratio(measured["default"], measured["one"])
            has_failed = has_failed or ratio > MAX_RATIO
            medians = {f"{kind}_seconds": round(statistics.median(times), 2) for kind, times in measured.items()}
            report(benchmark="busy_machine", command=name, idle=options.idle, ratio=round(ratio, 3), **medians)
    return 1 if has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
