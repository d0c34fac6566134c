"""`llm train` killed, interrupted and resumed: the run equals an uninterrupted one bit for bit.

Only what a test kills or interrupts is a process. The tests wait for its output, and never sleep.
"""

import hashlib
import importlib.util
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quickfox.checkpoints.checkpoint import load_model, load_training_state
from quickfox.checkpoints.run_directory import list_checkpoint_directories, list_checkpoints
from quickfox.training.run.directory import LOCK_FILE

Llm = Callable[..., subprocess.CompletedProcess[str]]

TEXT = "the quick brown fox jumps over the lazy dog\n" * 30
STEPS = 600
VALIDATION = 100
"""Step of the first validation, the only kind of checkpoint that is reported."""
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "4", "--batch-size", "8", "--threads", "2")
SETTINGS = ("--steps", str(STEPS), "--dropout", "0.1", "--validation-split", "0.05", "--random-seed", "1")
TRAIN = ("train", "fox.txt", *SMALL, *SETTINGS, "--output")
OFTEN, RARELY = ("--checkpoint-every", "1"), ("--checkpoint-every", "1h")

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus in it."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "fox.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def whole(run_llm: Llm, home: Path) -> dict[str, object]:
    """The result of an uninterrupted run, whose only checkpoints are those of its validations."""
    result = run_llm(*TRAIN, "whole", cwd=home)
    assert result.returncode == 0, result.stderr
    return outcome(home / "whole")


def outcome(run: Path) -> dict[str, object]:
    """Digests of the last weights and training state, and the history without its times."""
    last = list_checkpoint_directories(run)[-1]
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return {
        "step": last.name,
        "digests": [
            hashlib.sha256((last / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "training.safetensors")
        ],
        "history": [
            {name: value for name, value in line.items() if name not in ("seconds", "crc32")} for line in history
        ],
    }


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint; 0 without checkpoints."""
    return (
        int(list_checkpoint_directories(run)[-1].name.removeprefix("step-")) if list_checkpoint_directories(run) else 0
    )


def names_in(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


@contextmanager
def training(
    program: list[str], environment: dict[str, str], home: Path, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """The running program, which is killed after the block."""
    with subprocess.Popen(
        [*program, *arguments], cwd=home, env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], pattern: str) -> str:
    """Reads standard error up to a line that matches the pattern, and returns the line."""
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(pattern, line):
            return line
    raise AssertionError(f"no line matches {pattern}")


def wait_for_validation(process: subprocess.Popen[str]) -> None:
    """Waits for the first validation; a checkpoint is committed for each step before it."""
    assert f" step {VALIDATION}/" in wait_for(process, "epoch ")


def wait_for_end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status, and the rest of standard error."""
    _, rest = process.communicate(timeout=60)
    assert "Traceback" not in rest
    return process.returncode, rest


@pytest.mark.slow
def test_a_run_that_is_killed_and_interrupted_ends_bit_for_bit_as_an_uninterrupted_one(
    program: list[str], environment: dict[str, str], home: Path, llm: Llm, whole: dict[str, object]
) -> None:
    run = home / "stopped"
    with training(program, environment, home, *TRAIN, "stopped", *OFTEN) as process:
        wait_for_validation(process)
        second = llm("train", "--resume", "stopped", cwd=home)
        assert (second.returncode, second.stdout) == (75, "")
        assert f"is being trained by pid {process.pid} on " in second.stderr.splitlines()[-1]
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert f"pid {process.pid} " in (run / LOCK_FILE).read_text(), "the lock of the killed process is still there"
    newest = list_checkpoints(run)[-1]
    assert VALIDATION <= newest.manifest.step < STEPS
    load_model(newest.directory)
    load_training_state(newest.directory)

    command = ["llm", "train", "--resume", "stopped"]
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = newest_step(run)
        with training(program, environment, home, *command[1:]) as process:
            wait_for(process, "epoch ")
            process.send_signal(number)
            ended = wait_for_end(process)
        assert ended[0] == status
        assert before < newest_step(run) < STEPS
        assert ended[1].splitlines()[-1] == (
            f"stopped and saved at step {newest_step(run):,}; resume with: {shlex.join(command)}"
        )
        assert names_in(run) == ["checkpoints", "history.jsonl", "run.json", "tokenizer.json", "tokens.bin"]

    result = llm(*command[1:], "--json", *RARELY, cwd=home)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["steps"] == STEPS
    assert outcome(run) == whole
    assert names_in(run) == ["checkpoints", "history.jsonl", "run.json", "tokenizer.json"]
    assert not list(run.rglob(".quickfox-*"))
    result = llm(*command[1:], cwd=home)
    assert result.returncode == 0
    assert "is finished" in result.stderr


@pytest.mark.slow
def test_a_second_signal_ends_the_process_at_once_and_the_run_can_be_resumed(
    program: list[str], environment: dict[str, str], home: Path, llm: Llm, whole: dict[str, object]
) -> None:
    run = home / "twice"
    with training(program, environment, home, *TRAIN, "twice") as process:
        wait_for(process, "machine ")  # TensorFlow then compiles for seconds
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        status, rest = wait_for_end(process)
    assert status in (130, 143)  # the order in which the signals arrive is not defined
    assert "stopped and saved" not in rest
    assert newest_step(run) == 0
    result = llm("train", "--resume", "twice", cwd=home)
    assert result.returncode == 0
    assert "no checkpoint was committed yet" in result.stderr
    assert outcome(run) == whole


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["whole", "--output", "elsewhere"], 2, "--output cannot be given with --resume"),
        (["whole", "--vocab", "vocab.json"], 2, "--vocab cannot be given with --resume"),
        (["whole", "--config", "whole/run.json"], 2, "--config cannot be given with --resume"),
        (["whole", "fox.txt"], 2, "--resume takes one run, not 2: whole fox.txt"),
        (["whole", "--hidden-dim", "16"], 2, "--hidden-dim is 8 in this run, not 16"),
        (["whole", "--steps", "10"], 2, "no more than this run has had"),
        (["nowhere"], 66, "nowhere: no run.json there"),
    ],
)
@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_invalid_resumptions_are_one_line_and_change_no_file(
    llm: Llm, home: Path, arguments: list[str], status: int, message: str
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (home / "whole").rglob("*"))
    result = llm("train", "--resume", *arguments, cwd=home)
    assert (result.returncode, result.stdout) == (status, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in (home / "whole").rglob("*")) == before
