"""Ends every command by a random signal at a random moment: measures the time to the end, and looks for leftovers.

usage: python benchmarks/signals.py CORPUS [--signals 200] [--seed N]
A small model is trained on CORPUS first. Then each process receives SIGINT, SIGTERM or SIGHUP at a uniformly random
time between zero and the duration of the whole command, start-up included. Prints one JSON line for each command and
one for all; the exit status is 1 if a process did not end in time, had the wrong status, showed a traceback, or left
a half-written file. A signal in the first milliseconds, before Python runs our code, ends the process by the signal
itself (and SIGINT may show the traceback of Python's own start: it is counted apart).
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measuring import report
from quickfox.checkpoints.run_directory import list_checkpoint_directories
from quickfox.errors import QuickfoxError
from quickfox.training.run.record import read_record

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS, TRAINING_SECONDS = 1.0, 3.0
PROGRAM = [sys.executable, "-P", "-m", "quickfox"]
TRAIN = [
    "train",
    "corpus.txt",
    "--output",
    "new",
    "--hidden-dim",
    "64",
    "--random-seed",
    "1",
    "--checkpoint-every",
    "5",
]
COMMANDS: dict[str, list[str]] = {
    "train": [*TRAIN, "--steps", "60"],
    "train bpe": [*TRAIN, "--steps", "10", "--tokenizer", "bpe", "--vocabulary-size", "2000"],
    "train transformer": [*TRAIN, "--steps", "5", "--architecture", "transformer"],
    "train ngram": ["train", "corpus.txt", "--output", "new", "--architecture", "ngram"],
    "train resume": ["train", "--resume", "again", "--checkpoint-every", "5"],
    "train dry run": [*TRAIN, "--steps", "60", "--dry-run"],
    "build-vocab": ["build-vocab", "corpus.txt", "--tokenizer", "word", "--output", "new.json"],
    "build-vocab bpe": ["build-vocab", "corpus.txt", "--tokenizer", "bpe", "--output", "new.json"],
    "generate": ["generate", "--model", "model", "--length", "20000"],
    "evaluate": ["evaluate", "corpus.txt", "--model", "model"],
    "score": ["score", "corpus.txt", "--model", "model"],
    "check": ["check", "corpus.txt", "--fix", "new"],
    "info": ["info", "model"],
    "report": ["report", "model", "--output", "new.html"],
    "export gguf": ["export", "transformer", "--format", "gguf", "--output", "new"],
    "export keras": ["export", "model", "--format", "keras", "--output", "new"],
    "serve": ["serve", "model", "--port", "0"],
}


class Experiment:
    """A directory with a corpus and models, and the commands that run in it."""

    def __init__(self, folder: Path, corpus: Path) -> None:
        self.folder = folder
        self.failures: list[str] = []
        shutil.copy(corpus, folder / "corpus.txt")
        self._run([*TRAIN[:3], "model", "--hidden-dim", "64", "--steps", "20"])
        self._run([*TRAIN[:3], "transformer", "--architecture", "transformer", "--ngram", "off", "--steps", "5",
                   "--tokenizer", "byte", "--hidden-dim", "64"])  # fmt: skip
        self.durations = {name: self._duration(name) for name in COMMANDS}

    def _run(self, arguments: list[str]) -> None:
        subprocess.run([*PROGRAM, *arguments], cwd=self.folder, check=True, capture_output=True)

    @contextmanager
    def _prepared(self, name: str) -> Iterator[None]:
        """The files that a command needs; afterwards those that it made are removed."""
        before = set(self.folder.iterdir())
        if "resume" in name:
            self._run([*TRAIN[:3], "again", "--hidden-dim", "64", "--steps", "10"])
            self._run(["train", "--resume", "again", "--steps", "12"])
            COMMANDS[name][3:] = ["--steps", "60", "--checkpoint-every", "5"]
        try:
            yield
        finally:
            for path in set(self.folder.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _duration(self, name: str) -> float:
        if name == "serve":
            return 2.0
        started = time.perf_counter()
        with self._prepared(name):
            self._run(COMMANDS[name])
            return time.perf_counter() - started

    def stop(self, name: str, number: int, delay: float) -> float | None:
        """Starts a command, sends it a signal, and checks the end; returns its seconds, None if it had ended before."""
        with self._prepared(name), tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [*PROGRAM, *COMMANDS[name]], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=errors,
            )  # fmt: skip
            time.sleep(delay)
            started = time.perf_counter()
            process.send_signal(number)
            try:
                status = process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            seconds = time.perf_counter() - started
            errors.seek(0)
            messages = errors.read().decode(errors="replace")
            if status == 0:
                return None
            where = f"{name}, {signal.Signals(number).name} after {delay:.3f} s"
            if status not in (128 + number, -number):
                if "quickfox" not in messages and "Traceback" in messages:
                    return None  # Python's own start was interrupted
                self._fail(f"{where}: status {status}: {messages[-500:]}")
            elif "Traceback" in messages:
                self._fail(f"{where}: {messages[-2000:]}")
            has_stepped = "saved at step" in messages
            if seconds > (TRAINING_SECONDS if has_stepped else SECONDS):
                self._fail(f"{where}: {seconds:.2f} s until the end")
            self._check_files(where, is_training=name.startswith("train"))
        return seconds

    def _check_files(self, where: str, *, is_training: bool) -> None:
        if leftovers := [str(path) for path in self.folder.rglob(".quickfox-*")]:
            self._fail(f"{where}: left {leftovers}")
        for run in (self.folder / "new", self.folder / "again"):
            if is_training and ((run / "checkpoints").exists() or (run / "tokenizer.json").exists()):
                try:
                    read_record(run)
                    list_checkpoint_directories(run)
                except QuickfoxError as error:
                    self._fail(f"{where}: {error}")

    def _fail(self, message: str) -> None:
        self.failures.append(message)
        print(message, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="random seed of the commands, signals and times")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="signals-") as folder:
        experiment = Experiment(Path(folder), options.corpus)
        seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
        while sum(map(len, seconds.values())) < options.signals:
            name = min(COMMANDS, key=lambda each: (len(seconds[each]), generator.random()))
            delay = generator.uniform(0, experiment.durations[name])
            taken = experiment.stop(name, generator.choice(SIGNALS), delay)
            if taken is not None:
                seconds[name].append(taken)
    for name, measured in seconds.items():
        report(benchmark="signals", command=name, signals=len(measured), max_seconds=round(max(measured), 2))
    report(benchmark="signals", seed=options.seed, signals=sum(map(len, seconds.values())),
           max_seconds=round(max(map(max, seconds.values())), 2), failures=len(experiment.failures))  # fmt: skip
    sys.exit(1 if experiment.failures else 0)


if __name__ == "__main__":
    main()
