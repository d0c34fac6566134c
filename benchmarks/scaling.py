"""Measures several workers on this machine: the cost of communication, and the behavior when a worker is lost.

usage: python benchmarks/scaling.py [TEXT] [--workers 1,2] [--steps 300] [--rounds 3] [--size small]
       [--kills 10] [--start]
Throughput: `llm train` with N workers, compared with N independent runs at the same time, each with 1/N of the batch
and of the threads. The independent runs do the same computation without communication, so communication_fraction is the
fraction of a step's time that the workers spend on communication.

Kills: a random one of two or three workers receives SIGKILL or, every other time, SIGSTOP (it hangs), at a random
moment after the first step. The others must end within 60 seconds with status 75, and with one line that has the
command that resumes the run; then it is resumed with one, two or three workers, and must finish. With --start the
moment is before the first step, and the others must end within 150 seconds with status 75 or 69.

The workers have a network namespace of their own where the kernel allows it.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from local_cluster import network_namespace, start_workers  # type: ignore[import-not-found]

LLM = [str(Path(sys.executable).with_name("llm")), "train"]
TEXT = "the quick brown fox jumps over the lazy dog\n" * 6000
BATCH_SIZE = 48  # divisible by 1, 2, 3 and 4 workers
MAX_SECONDS_TO_END = {False: 60.0, True: 150.0}  # by whether the run was still starting
START_SECONDS = 8.0  # approximate, until the first step of two workers
RUN_SECONDS = 10.0  # from then on
STEPS = 1500
TIMEOUT_SECONDS = 300.0

Process = subprocess.Popen[str]


def start(network: list[str], arguments: list[str], workers: int, folder: Path) -> list[Process]:
    """Starts the workers of one run."""
    started: list[Process] = start_workers([[*network, *LLM, *arguments]] * workers, cwd=folder)
    return started


def popen(arguments: list[str], folder: Path) -> Process:
    """Starts one process of `llm train` with captured output."""
    return subprocess.Popen([*LLM, *arguments], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(process: Process) -> tuple[int, str, str]:
    """Waits for a process; returns its status, standard output and standard error."""
    output, error = process.communicate(timeout=TIMEOUT_SECONDS)
    return process.returncode, output, error


def tokens_per_second(process: Process) -> float:
    """The speed that a run reports."""
    status, output, error = wait_for(process)
    if status:
        sys.exit(f"exit {status}: {error}")
    return float(json.loads(output)["tokens_per_second"]) if output else 0.0


def measure_throughput(
    network: list[str], text: Path, workers: list[int], arguments: argparse.Namespace, folder: Path
) -> None:
    """Reports the throughput of workers and of independent processes."""
    threads = os.cpu_count() or 1
    common = [str(text), "--size", arguments.size, "--steps", str(arguments.steps), "--validation-split", "0"]
    common += ["--random-seed", "1", "--json", "--quiet"]
    found: dict[tuple[int, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for count in workers:
            of_all = [*common, "--batch-size", str(BATCH_SIZE), "--threads", str(threads)]
            run = start(network, [*of_all, "--output", unused_path(folder)], count, folder)
            found.setdefault((count, "connected"), []).append(max(map(tokens_per_second, run)))
            of_each = [*common, "--batch-size", str(BATCH_SIZE // count), "--threads", str(max(1, threads // count))]
            runs = [popen([*of_each, "--output", unused_path(folder)], folder) for _ in range(count)]
            found.setdefault((count, "independent"), []).append(sum(map(tokens_per_second, runs)))
    for count in workers:
        connected, independent = (statistics.median(found[count, kind]) for kind in ("connected", "independent"))
        report(
            what="workers",
            workers=count,
            size=arguments.size,
            batch_size=BATCH_SIZE,
            tokens_per_second=round(connected),
            independent_tokens_per_second=round(independent),
            communication_fraction=round(1 - connected / independent, 3),
        )


def unused_path(folder: Path) -> str:
    """An unused name for a run."""
    return tempfile.mktemp(prefix="run-", dir=folder)


def kill_once(
    network: list[str], number: int, text: Path, generator: random.Random, folder: Path, *, is_starting: bool
) -> dict[str, Any]:
    """Kills or stops one of several workers at a random moment, resumes the run, and returns what happened."""
    run = unused_path(folder)
    command = [str(text), "--size", "tiny", "--batch-size", str(BATCH_SIZE), "--steps", str(STEPS)]
    command += ["--random-seed", "1", "--checkpoint-every", "50", "--output", run]
    workers = start(network, command, 2 + number // 2 % 2, folder)
    if not is_starting:
        await_checkpoint(Path(run))
    moment = generator.uniform(0, START_SECONDS if is_starting else RUN_SECONDS)
    time.sleep(moment)
    victim, sign = generator.randrange(len(workers)), (signal.SIGKILL, signal.SIGSTOP)[number % 2]
    workers[victim].send_signal(sign)
    lost_at = time.monotonic()
    survivors = [wait_for(worker) for rank, worker in enumerate(workers) if rank != victim]
    seconds = time.monotonic() - lost_at
    workers[victim].kill()
    wait_for(workers[victim])
    has_started = Path(run, "run.json").exists()
    resumed_by = 1 + number % 3
    arguments = ["--resume", run] if has_started else command
    endings = [wait_for(process) for process in start(network, [*arguments, "--json"], resumed_by, folder)]
    advice = f"llm train --resume {run}"
    checks = {
        "statuses_are_right": all(status == 75 or (is_starting and status == 69) for status, _, _ in survivors),
        "in_time": seconds < MAX_SECONDS_TO_END[is_starting],
        "messages_say_how_to_resume": is_starting or all(advice in error.splitlines()[-1] for *_, error in survivors),
        "one_line_each": all(error.count("llm: ") == 1 and "Traceback" not in error for *_, error in survivors),
        "resumed_to_the_end": endings[0][0] == 0 and json.loads(endings[0][1])["steps"] == STEPS,
    }
    passed = all(checks.values())
    return {
        "workers": len(workers),
        "victim": "chief" if victim == 0 else f"worker {victim}",
        "signal": sign.name,
        "starting": is_starting,
        "moment": round(moment, 1),
        "seconds": round(seconds, 1),
        "statuses": [status for status, _, _ in survivors],
        "resumed_by": resumed_by,
        **checks,
        "passed": passed,
        **({} if passed else {"errors": [error[-600:] for _, _, error in [*survivors, *endings]]}),
    }


def await_checkpoint(run: Path) -> None:
    """Waits for the first checkpoint of a run."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not list(run.glob("checkpoints/step-*")):
        if time.monotonic() > deadline:
            sys.exit(f"{run} has no checkpoint after {TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("text", nargs="?", type=Path)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="small")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, network_namespace() as network:
        folder = Path(name)
        text = arguments.text.absolute() if arguments.text else folder / "fox.txt"
        if not arguments.text:
            text.write_text(TEXT, encoding="utf-8")
        if arguments.rounds:
            measure_throughput(network, text, [int(count) for count in arguments.workers.split(",")], arguments, folder)
        generator = random.Random(arguments.seed)
        passed = 0
        for number in range(arguments.kills):
            outcome = kill_once(network, number, text, generator, folder, is_starting=arguments.start)
            report(what="kill", **outcome)
            passed += outcome["passed"]
        sys.exit(passed < arguments.kills)


if __name__ == "__main__":
    main()
