"""Several workers on this machine: what they cost each other, and whether a lost one ends the run as promised.

usage: python benchmarks/scaling.py [TEXT] [--workers 1,2] [--steps 300] [--rounds 3] [--size small] [--kills 10]
Throughput: `llm train` by N workers, against N independent runs at the same time, each with a worker's share of the
batch and of the threads: they compute the same and send nothing, so communication_share is the part of a step's time
that the workers spend on each other.

Kills: a random one of two or three workers gets SIGKILL, or in turn SIGSTOP (it hangs), at a random moment from when
all have met on: while they read, start TensorFlow, compile, or train. The others must end within 30 seconds with
status 75, saying how to go on; then the run is resumed, or begun again where it had not been, by one, two or
three workers in turn, and must finish.
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
BATCH_SIZE = 48  # divides by one, two, three and four workers
SECONDS_TO_END = 30.0
SECONDS_OF_A_RUN = 12.0  # by two workers, about
LONGEST_SECONDS = 300.0

Process = subprocess.Popen[str]


def start(arguments: list[str], workers: int, folder: Path) -> list[Process]:
    """The workers of one run."""
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
    """One process of `llm train`, with its output kept."""
    return subprocess.Popen(
        [*LLM, *arguments], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: Process) -> tuple[int, str, str]:
    """Status, standard output and standard error of a process that ends by itself."""
    output, error = process.communicate(timeout=LONGEST_SECONDS)
    return process.returncode, output, error


def tokens_per_second(process: Process) -> float:
    """As the run itself tells."""
    status, output, error = ended(process)
    if status:
        sys.exit(f"exit {status}: {error}")
    return float(json.loads(output)["tokens_per_second"]) if output else 0.0


def measure_throughput(text: Path, workers: list[int], arguments: argparse.Namespace, folder: Path) -> None:
    """Reports the workers' throughput beside that of independent processes."""
    threads = os.cpu_count() or 1
    common = [str(text), "--size", arguments.size, "--steps", str(arguments.steps), "--validation-split", "0"]
    common += ["--random-seed", "1", "--json", "--quiet"]
    found: dict[tuple[int, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for count in workers:
            shared = [*common, "--batch-size", str(BATCH_SIZE), "--threads", str(threads)]
            run = start([*shared, "--output", unused(folder)], count, folder)
            found.setdefault((count, "together"), []).append(max(map(tokens_per_second, run)))
            share = [*common, "--batch-size", str(BATCH_SIZE // count), "--threads", str(max(1, threads // count))]
            runs = [popen([*share, "--output", unused(folder)], folder) for _ in range(count)]
            found.setdefault((count, "apart"), []).append(sum(map(tokens_per_second, runs)))
    for count in workers:
        together, apart = (statistics.median(found[count, kind]) for kind in ("together", "apart"))
        report(
            what="workers",
            workers=count,
            size=arguments.size,
            batch_size=BATCH_SIZE,
            tokens_per_second=round(together),
            independent_tokens_per_second=round(apart),
            communication_share=round(1 - together / apart, 3),
        )


def unused(folder: Path) -> str:
    """A name for a run."""
    return tempfile.mktemp(prefix="run-", dir=folder)


def kill_once(number: int, text: Path, generator: random.Random, folder: Path) -> dict[str, Any]:
    """Loses one of several workers at a random moment, goes on, and tells what happened."""
    run = unused(folder)
    command = [str(text), "--size", "tiny", "--batch-size", str(BATCH_SIZE), "--steps", "1500", "--random-seed", "1"]
    command += ["--checkpoint-every", "50", "--output", run]
    workers = start(command, 2 + number // 2 % 2, folder)
    for worker in workers[1:]:
        assert worker.stderr is not None
        worker.stderr.readline()  # which they write when all have met
    moment = generator.uniform(0, SECONDS_OF_A_RUN)
    time.sleep(moment)
    victim, sign = generator.randrange(len(workers)), (signal.SIGKILL, signal.SIGSTOP)[number % 2]
    workers[victim].send_signal(sign)
    lost_at = time.monotonic()
    survivors = [ended(worker) for rank, worker in enumerate(workers) if rank != victim]
    seconds = time.monotonic() - lost_at
    workers[victim].kill()
    ended(workers[victim])
    has_begun = Path(run, "run.json").exists()
    told = f"llm train --resume {run}" if has_begun else "start all again"
    went_on_by = 1 + number % 3
    again = ["--resume", run] if has_begun else command
    endings = [ended(process) for process in start([*again, "--json"], went_on_by, folder)]
    checks = {
        "statuses_are_75": all(status == 75 for status, _, _ in survivors),
        "within_30_seconds": seconds < SECONDS_TO_END,
        "say_how_to_go_on": all(told in error.splitlines()[-1] for _, _, error in survivors),
        "one_line_each": not any("Traceback" in error for _, _, error in survivors),
        "went_on_to_the_end": endings[0][0] == 0 and json.loads(endings[0][1])["steps"] == 1500,
    }
    is_clean = all(checks.values())
    return {
        "workers": len(workers),
        "victim": "chief" if victim == 0 else f"worker {victim}",
        "signal": sign.name,
        "moment": round(moment, 1),
        "had_begun": has_begun,
        "seconds": round(seconds, 1),
        "went_on_by": went_on_by,
        **checks,
        "as_promised": is_clean,
        **({} if is_clean else {"said": [error[-600:] for _, _, error in [*survivors, *endings]]}),
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
        sys.exit(not all(outcome["as_promised"] for outcome in outcomes))


if __name__ == "__main__":
    main()
