"""Ends every command, and training in all its phases, by random signals at random moments.

usage: python benchmarks/signals.py CORPUS [--signals 200] [--seed N] [--directory DIR] [--only NAME] [--seconds S]
Small models are trained on CORPUS and each command is run once (in DIR, if given, only the first time). Then each
process receives SIGINT, SIGTERM or SIGHUP at a uniformly random time between zero and the duration of the whole
command, start-up included; every second process trains. The process writes the stack of its main thread just before
the signal: it tells the phase. Prints one JSON line for each command and phase, and one for all, with the phases of
training that no signal met. The exit status is 1 if a process

- ran longer than 1 s after the signal (3 s if training had made a step, which is finished and saved),
- had another status than 128 + the signal's number, or was not ended by the signal itself,
- showed a traceback,
- left a temporary file, a child process, an output unlike that of the whole command, or a run that cannot be read.

Tracebacks and other statuses of SIGINT before the first line of the program, where Python itself handles it, are
counted apart (interrupted_starts_of_python).
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measuring import report
from quickfox.checkpoints.checkpoint import load_model, load_training_state
from quickfox.checkpoints.run_directory import RUN_FILE, list_checkpoint_directories
from quickfox.errors import QuickfoxError
from quickfox.training.run.record import read_record

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS, SECONDS_AFTER_A_STEP = 1.0, 3.0
TIMEOUT = 60.0
STACK_FILE = "stack.txt"
PROGRAM = [sys.executable, "-P", "-c", """
import _signal, faulthandler, posix, sys
faulthandler.register(_signal.SIGUSR1, open("stack", "wb"), all_threads=False)
posix.rename("stack", "stack.txt")
sys.argv[0] = "llm"
from quickfox.__main__ import main
main()
"""]  # fmt: skip

SMALL = ["--hidden-dim", "64", "--random-seed", "1", "--checkpoint-every", "5"]
TRAIN = ["train", "corpus.txt", "--output", "new"]
GENERATE = ["generate", "--model", "model", "--random-seed", "1"]
COMMANDS: dict[str, list[str]] = {
    "train": [*TRAIN, *SMALL, "--steps", "60"],
    "train, a save each step": [*TRAIN, *SMALL, "--steps", "40", "--checkpoint-every", "1", "--ngram", "off"],
    "train bpe": [*TRAIN, *SMALL, "--steps", "10", "--tokenizer", "bpe", "--vocabulary-size", "4000"],
    "train word": [*TRAIN, *SMALL, "--steps", "10", "--tokenizer", "word"],
    "train transformer": [*TRAIN, *SMALL, "--steps", "10", "--architecture", "transformer"],
    "train attention-rnn": [*TRAIN, *SMALL, "--steps", "10", "--architecture", "attention-rnn"],
    "train ngram": [*TRAIN, "--architecture", "ngram"],
    "train a budget": [*TRAIN, "--budget", "8s"],
    "train --resume": ["train", "--resume", "again", "--steps", "60", "--checkpoint-every", "5"],
    "train --dry-run": [
        *TRAIN,
        *SMALL,
        "--steps",
        "60",
        "--tokenizer",
        "bpe",
        "--vocabulary-size",
        "9000",
        "--dry-run",
    ],
    "build-vocab word": ["build-vocab", "corpus.txt", "--tokenizer", "word", "--output", "new"],
    "build-vocab bpe": ["build-vocab", "corpus.txt", "--tokenizer", "bpe", "--output", "new"],
    "generate": [*GENERATE, "--length", "20000"],
    "generate samples": [*GENERATE, "--length", "300", "--num-samples", "64"],
    "generate beams": [*GENERATE, "--length", "300", "--num-beams", "8"],
    "evaluate": ["evaluate", "corpus.txt", "--model", "model"],
    "score": ["score", "corpus.txt", "--model", "model"],
    "check": ["check", "corpus.txt", "--fix", "new"],
    "info": ["info", "model"],
    "inspect": ["inspect", "corpus.txt", "--gates", "--model", "model"],
    "report": ["report", "model", "--output", "new"],
    "export gguf": ["export", "transformer", "--format", "gguf", "--output", "new"],
    "export huggingface": ["export", "transformer", "--format", "huggingface", "--output", "new"],
    "export keras": ["export", "model", "--format", "keras", "--output", "new"],
    "serve": ["serve", "model", "--port", "0"],
}
PREPARED = {
    "model": ["train", "corpus.txt", "--output", "model", *SMALL, "--steps", "20"],
    "transformer": ["train", "corpus.txt", "--output", "transformer", *SMALL, "--steps", "5", "--ngram", "off",
                    "--architecture", "transformer", "--tokenizer", "byte"],
    "resumable": ["train", "corpus.txt", "--output", "resumable", *SMALL, "--steps", "12"],
}  # fmt: skip
TIMED = ("report", "check", "export keras")  # only the names of the output are compared: it has times, or is large
ENDLESS = {"serve": 3.0}

PHASES = {
    "files/atomic": "saving", "checkpoints/checkpoint": "saving", "run/history": "saving",
    "engine/validation": "validation", "engine/ngrams": "counting", "models/ngram": "counting",
    "run/recorder": "sampling", "engine/train_step": "steps", "engine/trainer": "steps",
    "engine/ngram_trainer": "counting", "tokenizers/build": "tokenizer", "data/encoding": "encoding",
    "run/resume": "preparation", "training/tensorflow_runtime": "start of TensorFlow", "run/start": "preparation",
    "cli/commands/": "command",
}  # fmt: skip
"""The module of the innermost frame that is listed -> the phase of a command."""

TRAINING_PHASES = {
    "start", "tokenizer", "encoding", "counting", "start of TensorFlow", "first step", "steps", "validation", "saving",
}  # fmt: skip


class Experiment:
    """A directory with a corpus and models, and the commands that run in it."""

    def __init__(self, directory: Path, corpus: Path) -> None:
        self.directory = directory
        self.failures: list[str] = []
        self.interrupted_starts_of_python = 0
        self.environment = {**os.environ, "TMPDIR": str(directory / "tmp"), "PYTHONUNBUFFERED": "1"}
        recorded = directory / "commands.json"
        if not recorded.exists():
            (directory / "tmp").mkdir(parents=True)
            shutil.copy(corpus, directory / "corpus.txt")
            for arguments in PREPARED.values():
                self._run(arguments)
            recorded.write_text(json.dumps({name: self._run_whole(name) for name in COMMANDS}))
        self.whole = json.loads(recorded.read_text())
        self.kept = set(directory.iterdir())

    def _run(self, arguments: list[str]) -> None:
        finished = subprocess.run(
            [*PROGRAM, *arguments], cwd=self.directory, env=self.environment, capture_output=True, encoding="utf-8"
        )
        if finished.returncode:
            sys.exit(f"{arguments}: {finished.stderr}")

    def _run_whole(self, name: str) -> tuple[float, dict[str, str]]:
        """The duration of a command, and its output."""
        if name in ENDLESS:
            return ENDLESS[name], {}
        self.kept = set(self.directory.iterdir())
        with self._files(name):
            started = time.perf_counter()
            self._run(COMMANDS[name])
            return time.perf_counter() - started, self._output(name)

    @contextmanager
    def _files(self, name: str) -> Iterator[None]:
        """The files that a command needs; afterwards those that it made are removed."""
        (self.directory / STACK_FILE).unlink(missing_ok=True)
        if "--resume" in name:
            shutil.copytree(self.directory / "resumable", self.directory / "again")
        try:
            yield
        finally:
            for path in {*set(self.directory.iterdir()) - self.kept, *(self.directory / "tmp").iterdir()}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _output(self, name: str) -> dict[str, str]:
        """The files of `new` -> the digests of their content."""
        new = self.directory / "new"
        paths = sorted(path for path in (new, *new.rglob("*")) if path.is_file())
        return {
            path.relative_to(self.directory).as_posix(): ""
            if name in TIMED
            else hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
        }

    def stop(self, name: str, number: int, delay: float) -> tuple[str, float] | None:
        """Starts a command, sends it a signal, and checks the end.

        Returns:
            The phase, and the seconds to the end; None if the command had ended before.
        """
        with self._files(name), tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [*PROGRAM, *COMMANDS[name]], cwd=self.directory, env=self.environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
            time.sleep(delay)
            stack = self.directory / STACK_FILE
            if has_started := stack.exists():
                process.send_signal(signal.SIGUSR1)
            sent = time.perf_counter()
            process.send_signal(number)
            status = wait(process)
            seconds = time.perf_counter() - sent
            if status == 0:
                return None
            errors.seek(0)
            messages = errors.read().decode(errors="replace")
            phase = phase_of(name, stack.read_text(), messages) if has_started else "start"
            where = f"{name}, {signal.Signals(number).name} after {delay:.3f} s ({phase})"
            if not has_started and number == signal.SIGINT and (status == 1 or "Traceback" in messages):
                self.interrupted_starts_of_python += 1
                return phase, seconds
            for fault in self._faults(name, process, (status, number), seconds, messages):
                self.failures.append(f"{where}: {fault}")
                print(self.failures[-1], file=sys.stderr, flush=True)
        return phase, seconds

    def _faults(
        self, name: str, process: "subprocess.Popen[bytes]", statuses: tuple[int, int], seconds: float, messages: str
    ) -> Iterator[str]:
        status, number = statuses
        if status not in (128 + number, -number):
            yield f"status {status}: {messages[-1000:]}"
        if "Traceback" in messages:
            yield messages[-2000:]
        if seconds > (SECONDS_AFTER_A_STEP if "saved at step" in messages else SECONDS):
            yield f"{seconds:.2f} s until the end"
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        else:
            yield "a child process was left"
        if left := [*self.directory.rglob(".quickfox-*"), *(self.directory / "tmp").iterdir()]:
            yield f"left {[str(path) for path in left]}"
        if name.startswith("train"):
            yield from self._check_runs()
        elif (found := self._output(name)) not in ({}, self.whole[name][1]):
            yield f"an unfinished output: {found}"

    def _check_runs(self) -> Iterator[str]:
        for run in (self.directory / "new", self.directory / "again"):
            try:
                if (run / RUN_FILE).exists():
                    read_record(run)
                for directory in list_checkpoint_directories(run):
                    load_model(directory)
                    load_training_state(directory)
            except QuickfoxError as error:
                yield str(error)


def wait(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def phase_of(name: str, stack: str, messages: str) -> str:
    """The phase of a command whose main thread had this stack, innermost frame first."""
    for path in re.findall(r'File ".*/quickfox/(.*)\.py", line', stack):
        for module, phase in PHASES.items():
            if module in path and (name.startswith("train") or phase == "command"):
                return "first step" if phase == "steps" and "saved at step" not in messages else phase
    return "start"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="random seed of the commands, signals and times")
    parser.add_argument("--directory", type=Path, help="keep the models and the durations here for later calls")
    parser.add_argument("--only", default="", help="only the commands whose names begin so")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time, with fewer signals")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="signals-") as temporary:
        experiment = Experiment((options.directory or Path(temporary, "files")).absolute(), options.corpus)
        trainings, others = (
            [each for each in COMMANDS if each.startswith("train") == training and each.startswith(options.only)]
            for training in (True, False)
        )
        deadline = time.monotonic() + options.seconds
        while (done := sum(map(len, seconds.values()))) < options.signals and time.monotonic() < deadline:
            name = generator.choice((trainings if done % 2 else others) or trainings or others)
            delay = generator.uniform(0, experiment.whole[name][0])
            if ended := experiment.stop(name, generator.choice(SIGNALS), delay):
                seconds[name, ended[0]].append(ended[1])
    for (name, phase), measured in sorted(seconds.items()):
        report(
            benchmark="signals", command=name, phase=phase, signals=len(measured), max_seconds=round(max(measured), 2)
        )
    met = {phase for name, phase in seconds if name.startswith("train")}
    report(benchmark="signals", seed=options.seed, signals=sum(map(len, seconds.values())),
           max_seconds=round(max(map(max, seconds.values())), 2), failures=len(experiment.failures),
           interrupted_starts_of_python=experiment.interrupted_starts_of_python,
           phases_of_training_not_met=sorted(TRAINING_PHASES - met))  # fmt: skip
    sys.exit(1 if experiment.failures else 0)


if __name__ == "__main__":
    main()
