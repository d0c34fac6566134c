"""Measures several workers on this machine: the cost of communication, and the behavior when a worker is lost.

usage: python benchmarks/scaling.py [TEXT] [--workers 1,2] [--steps 300] [--rounds 3] [--size small] [--kills 10]
Throughput: `llm train` with N workers, compared with N independent runs at the same time, each with 1/N of the batch
and of the threads. The independent runs do the same computation without communication, so communication_fraction is the
fraction of a step's time that the workers spend on communication.

Kills: a random one of two or three workers receives SIGKILL or, every other time, SIGSTOP (it hangs), at a random
moment after all workers have connected: while they read, start TensorFlow, compile, or train. The others must end
within 30 seconds with status 75 and the command that resumes the run; then the run is resumed (or started again if
it had not started) with one, two or three workers, and must finish.
"""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import report

LLM = [str(Path(sys.executable).with_name("llm")), "train"]
TEXT = "the quick brown fox jumps over the lazy dog\n" * 6000
BATCH_SIZE = 48  # divisible by 1, 2, 3 and 4 workers
MAX_SECONDS_TO_END = 30.0
RUN_SECONDS = 12.0  # approximate, with two workers
TIMEOUT_SECONDS = 300.0

Process = subprocess.Popen[str]


def start(arguments: list[str], workers: int, folder: Path) -> list[Process]:
    """Starts the workers of one run."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(workers)]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    started = []
    for rank in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        started.append(popen(arguments, folder, environment))
    return started


def popen(arguments: list[str], folder: Path, environment: dict[str, str] | None = None) -> Process:
    """Starts one process of `llm train` with captured output."""
    return subprocess.Popen(
        [*LLM, *arguments], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


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


def measure_throughput(text: Path, workers: list[int], arguments: argparse.Namespace, folder: Path) -> None:
    """Reports the throughput of workers and of independent processes."""
    threads = os.cpu_count() or 1
    common = [str(text), "--size", arguments.size, "--steps", str(arguments.steps), "--validation-split", "0"]
    common += ["--random-seed", "1", "--json", "--quiet"]
    found: dict[tuple[int, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for count in workers:
            of_all = [*common, "--batch-size", str(BATCH_SIZE), "--threads", str(threads)]
            run = start([*of_all, "--output", unused_path(folder)], count, folder)
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


def kill_once(number: int, text: Path, generator: random.Random, folder: Path) -> dict[str, Any]:
    """Kills or stops one of several workers at a random moment, resumes the run, and returns what happened."""
    run = unused_path(folder)
    command = [str(text), "--size", "tiny", "--batch-size", str(BATCH_SIZE), "--steps", "1500", "--random-seed", "1"]
    command += ["--checkpoint-every", "50", "--output", run]
    workers = start(command, 2 + number // 2 % 2, folder)
    for worker in workers[1:]:
        assert worker.stderr is not None
        worker.stderr.readline()  # written when all workers have connected
    moment = generator.uniform(0, RUN_SECONDS)
    time.sleep(moment)
    victim, sign = generator.randrange(len(workers)), (signal.SIGKILL, signal.SIGSTOP)[number % 2]
    workers[victim].send_signal(sign)
    lost_at = time.monotonic()
    survivors = [wait_for(worker) for rank, worker in enumerate(workers) if rank != victim]
    seconds = time.monotonic() - lost_at
    workers[victim].kill()
    wait_for(workers[victim])
    has_started = Path(run, "run.json").exists()
    advice = f"llm train --resume {run}" if has_started else "start all again"
    resumed_by = 1 + number % 3
    arguments = ["--resume", run] if has_started else command
    endings = [wait_for(process) for process in start([*arguments, "--json"], resumed_by, folder)]
    checks = {
        "statuses_are_75": all(status == 75 for status, _, _ in survivors),
        "within_30_seconds": seconds < MAX_SECONDS_TO_END,
        "messages_say_how_to_resume": all(advice in error.splitlines()[-1] for _, _, error in survivors),
        "one_line_each": not any("Traceback" in error for _, _, error in survivors),
        "resumed_to_the_end": endings[0][0] == 0 and json.loads(endings[0][1])["steps"] == 1500,
    }
    passed = all(checks.values())
    return {
        "workers": len(workers),
        "victim": "chief" if victim == 0 else f"worker {victim}",
        "signal": sign.name,
        "moment": round(moment, 1),
        "had_started": has_started,
        "seconds": round(seconds, 1),
        "resumed_by": resumed_by,
        **checks,
        "passed": passed,
        **({} if passed else {"errors": [error[-600:] for _, _, error in [*survivors, *endings]]}),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("text", nargs="?", type=Path)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="small")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = arguments.text.absolute() if arguments.text else folder / "fox.txt"
        if not arguments.text:
            text.write_text(TEXT, encoding="utf-8")
        if arguments.rounds:
            measure_throughput(text, [int(count) for count in arguments.workers.split(",")], arguments, folder)
        generator = random.Random(arguments.seed)
        outcomes = [kill_once(number, text, generator, folder) for number in range(arguments.kills)]
        for outcome in outcomes:
            report(what="kill", **outcome)
        sys.exit(not all(outcome["passed"] for outcome in outcomes))


if __name__ == "__main__":
    main()
