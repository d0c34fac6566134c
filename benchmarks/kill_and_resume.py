"""Kills `llm train` at random moments and resumes it: checks that no checkpoint is lost and the result is identical.

usage: python benchmarks/kill_and_resume.py [--kills 200] [--steps 250] [--checkpoint-every 1] [--seed N] [--seconds S]
A small run saves after every step, so that most kills during training hit a save. Each process receives SIGKILL after a
uniformly random time between zero and the duration of a whole run, start-up included, and is resumed until the run
finishes; then the next run starts. Prints one JSON line; the exit status is 1 if anything was lost.

kills_within_a_write: kills that left a temporary file or directory, of a checkpoint, of pruning, or of run.json.
lost_checkpoints: checkpoints with a valid manifest before the kill that are damaged afterwards, or missing without a
newer one (for the best one: a better one). Runs killed before run.json was written are not counted.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from measuring import report
from quickfox.checkpoints.checkpoint import load_model, load_training_state
from quickfox.checkpoints.run_directory import (
    RUN_FILE,
    Checkpoint,
    list_checkpoint_directories,
    list_checkpoints,
    sort_by_loss,
)
from quickfox.errors import QuickfoxError

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "8", "--batch-size", "4", "--threads", "1")
POLL_SECONDS = 0.002
MAX_FAILURES = 10  # the benchmark stops then
TIMEOUT_SECONDS = 300.0  # a resumed run takes a few seconds; longer is a failure to resume


class Experiment:
    """A directory with a text, the command that trains on it, and the counts so far."""

    def __init__(self, folder: Path, steps: int, checkpoint_every: str, seed: int) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.random = random.Random(seed)
        (folder / "fox.txt").write_text(TEXT, encoding="utf-8")
        self.llm = [str(Path(sys.executable).with_name("llm")), "train", "--quiet"]
        self.new = [*self.llm, "fox.txt", *SMALL, "--steps", str(steps), "--dropout", "0.1", "--random-seed", "1"]
        self.every = ["--checkpoint-every", checkpoint_every]
        started = time.perf_counter()
        subprocess.run([*self.new, *self.every, "--output", "whole"], cwd=folder, check=True)
        self.seconds = time.perf_counter() - started
        self.expected = outcome(folder / "whole")

    def kill_once(self) -> None:
        """Starts or resumes the run, kills it at a random moment, and checks what is on disk."""
        has_started = (self.run / RUN_FILE).exists()
        if not has_started:
            shutil.rmtree(self.run, ignore_errors=True)
        before = list_checkpoints(self.run)
        command = [*self.llm, "--resume", "run"] if has_started else [*self.new, *self.every, "--output", "run"]
        delay = self.random.uniform(0, self.seconds)
        with subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, encoding="utf-8") as process:
            deadline = time.perf_counter() + delay
            while process.poll() is None and time.perf_counter() < deadline:
                time.sleep(POLL_SECONDS)
                before = self._committed(before)
            process.kill()
            _, errors = process.communicate()
        if process.returncode == 0:
            self._check_result()
        elif process.returncode != -signal.SIGKILL:
            self._fail("failed_to_resume" if has_started else "failed_to_start", f"exit {process.returncode}: {errors}")
        else:
            self.counts["kills"] += 1
            self._check_kill(before)

    def finish(self) -> None:
        """Resumes the run that was killed last and waits for its end."""
        if (self.run / RUN_FILE).exists():
            try:
                finished = subprocess.run(
                    [*self.llm, "--resume", "run"], cwd=self.folder, capture_output=True, encoding="utf-8",
                    check=False, timeout=TIMEOUT_SECONDS,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                self._fail("failed_to_resume", f"still running after {TIMEOUT_SECONDS:g} s")
                return
            if finished.returncode == 0:
                self._check_result()
            else:
                self._fail("failed_to_resume", f"exit {finished.returncode}: {finished.stderr}")

    def _committed(self, before: list[Checkpoint]) -> list[Checkpoint]:
        """The committed checkpoints now, or `before` while they are being pruned."""
        try:
            return list_checkpoints(self.run)
        except (OSError, QuickfoxError):
            return before

    def _check_kill(self, before: list[Checkpoint]) -> None:
        after = list_checkpoints(self.run)
        if list(self.run.rglob(".quickfox-*")):
            self.counts["kills_within_a_write"] += 1
        if not after:
            self.counts["kills_before_a_checkpoint"] += 1
        damaged = [directory.name for directory in list_checkpoint_directories(self.run) if not is_intact(directory)]
        newest_lost = before and (not after or after[-1].manifest.step < before[-1].manifest.step)
        best_lost = before and (not after or loss_of(sort_by_loss(after)[0]) > loss_of(sort_by_loss(before)[0]))
        if damaged or newest_lost or best_lost:
            steps = [[checkpoint.manifest.step for checkpoint in found] for found in (before, after)]
            self._fail("lost_checkpoints", f"before {steps[0]}, after {steps[1]}, damaged {damaged}")

    def _check_result(self) -> None:
        self.counts["finished_runs"] += 1
        if outcome(self.run) == self.expected:
            self.counts["bit_identical_runs"] += 1
        else:
            self._fail("different_runs", json.dumps([outcome(self.run), self.expected]))
        shutil.rmtree(self.run)

    def _fail(self, kind: str, why: str) -> None:
        """Counts a failure and keeps the run under another name for inspection."""
        self.counts[kind] += 1
        self.failures.append(f"{kind}: {why.strip()}")
        print(self.failures[-1], file=sys.stderr, flush=True)
        if self.run.exists():
            self.run.rename(self.run.with_name(f"failure-{len(self.failures)}"))


def loss_of(checkpoint: Checkpoint) -> float:
    """The validation loss; infinite if it was not measured."""
    loss = checkpoint.manifest.validation_loss
    return float("inf") if loss is None else loss


def is_intact(checkpoint: Path) -> bool:
    """Whether a checkpoint can be read completely and matches its manifest."""
    try:
        load_model(checkpoint)
        load_training_state(checkpoint)
    except QuickfoxError:
        return False
    return True


def outcome(run: Path) -> dict[str, Any]:
    """The digests of the last weights and training state, and the history without its seconds."""
    last = list_checkpoint_directories(run)[-1]
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "checkpoint": last.name,
        "digests": {
            name: hashlib.sha256((last / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "training.safetensors")
        },
        "history": [
            {name: value for name, value in line.items() if name not in ("seconds", "crc32")} for line in lines
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=250, help="optimizer steps of a run")
    parser.add_argument("--checkpoint-every", default="1", help="optimizer steps")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the kill times")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time, with fewer kills")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    folder = Path(tempfile.mkdtemp(prefix="kill_and_resume-"))
    experiment = Experiment(folder, options.steps, options.checkpoint_every, options.seed)
    while experiment.counts["kills"] < options.kills and len(experiment.failures) < MAX_FAILURES:
        if time.monotonic() > deadline:
            break
        experiment.kill_once()
    experiment.finish()
    if experiment.failures:
        print(f"failed runs are kept in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    kinds = ("kills", "kills_within_a_write", "kills_before_a_checkpoint", "lost_checkpoints", "failed_to_start",
             "failed_to_resume", "finished_runs", "bit_identical_runs", "different_runs")  # fmt: skip
    report(
        benchmark="kill_and_resume", steps=options.steps, checkpoint_every=options.checkpoint_every,
        seed=options.seed, seconds_of_a_run=round(experiment.seconds, 1),
        **{kind: experiment.counts[kind] for kind in kinds},
    )  # fmt: skip
    sys.exit(1 if experiment.failures else 0)


if __name__ == "__main__":
    main()
