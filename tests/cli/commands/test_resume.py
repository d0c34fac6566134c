"""`llm train` killed, interrupted and resumed as real processes: the same run to the last bit.

Each process that trains starts TensorFlow, which takes seconds: one uninterrupted run serves all tests, and a test
stops one run in several ways after one another. Whatever is waited for is seen on disk or said, never slept for.
"""

import hashlib
import importlib.util
import json
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quickfox.checkpoints.checkpoint import load_model, load_training_state
from quickfox.checkpoints.run_directory import list_checkpoint_directories, list_checkpoints
from quickfox.training.run.directory import LOCK_FILE

Llm = Callable[..., subprocess.CompletedProcess[str]]

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
STEPS = 400
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "8", "--batch-size", "4", "--threads", "1")
TRAIN = ("train", "fox.txt", *SMALL, "--steps", str(STEPS), "--dropout", "0.1", "--random-seed", "1", "--output")
OFTEN = ("--checkpoint-every", "1")

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
def whole(program: list[str], environment: dict[str, str], home: Path) -> dict[str, object]:
    """What a run leaves that nothing interrupted; it makes a checkpoint at validations only."""
    command = [*program, *TRAIN, "whole"]
    subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True, timeout=100)
    return outcome(home / "whole")


def outcome(run: Path) -> dict[str, object]:
    """The last weights and training state by their digests, and the history less what the clock said."""
    last = list_checkpoint_directories(run)[-1]
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return {
        "step": last.name,
        "digests": [
            hashlib.sha256((last / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "training.safetensors")
        ],
        "history": [{name: value for name, value in line.items() if name != "seconds"} for line in history],
    }


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint that is there, 0 if none."""
    return int(list_checkpoint_directories(run)[-1].name.removeprefix("step-")) if list_checkpoint_directories(run) else 0


@contextmanager
def training(
    program: list[str], environment: dict[str, str], home: Path, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """The program, running; killed after the block if it should still be."""
    with subprocess.Popen(
        [*program, *arguments], cwd=home, env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Returns once the condition holds; the process must still be running by then."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, f"it ended too early: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "it took more than a minute"
        time.sleep(0.002)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status, and the rest of what it said."""
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    return process.returncode, said


def test_killed_at_any_moment_it_goes_on_to_the_same_bits(
    program: list[str], environment: dict[str, str], home: Path, llm: Llm, whole: dict[str, object]
) -> None:
    run = home / "killed"
    moment = random.randrange(1, STEPS // 2)
    with training(program, environment, home, *TRAIN, "killed", *OFTEN) as process:
        wait_for(process, lambda: newest_step(run) >= moment)
        committed = newest_step(run)
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert f"pid {process.pid} " in (run / LOCK_FILE).read_text(), "the dead process's lock is still lying there"
    newest = list_checkpoints(run)[-1]
    assert newest.manifest.step >= committed
    load_model(newest.directory)
    load_training_state(newest.directory)
    result = llm("train", "--resume", "killed", "--json", cwd=home)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["steps"] == STEPS
    assert outcome(run) == whole, f"killed at step {newest.manifest.step}"
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "history.jsonl", "run.json", "tokenizer.json"]
    assert not list(run.rglob(".quickfox-*"))


def test_a_stopped_run_is_saved_says_how_to_go_on_and_ends_in_the_same_bits(
    program: list[str], environment: dict[str, str], home: Path, llm: Llm, whole: dict[str, object]
) -> None:
    run = home / "stopped here"
    with training(program, environment, home, *TRAIN, run.name, *OFTEN) as process:
        wait_for(process, lambda: newest_step(run) >= 3)
        second = llm("train", "--resume", run.name, cwd=home)
        assert (second.returncode, second.stdout) == (75, "")
        assert f"is being trained by pid {process.pid} on " in second.stderr.splitlines()[-1]
        process.send_signal(signal.SIGINT)
        status, said = ended(process)
    assert status == 130
    step = newest_step(run)
    *_, last = said.splitlines()
    assert last.startswith(f"stopped and saved at step {step:,}; go on with: llm ")

    _, *command = shlex.split(last.partition("go on with: ")[2])
    with training(program, environment, home, *command) as process:
        wait_for(process, lambda: newest_step(run) > step)
        process.send_signal(signal.SIGTERM)
        status, said = ended(process)
    assert status == 143
    assert (
        said.splitlines()[-1]
        == f"stopped and saved at step {newest_step(run):,}; go on with: {shlex.join(['llm', *command])}"
    )

    assert llm(*command, cwd=home).returncode == 0
    assert outcome(run) == whole
    result = llm(*command, cwd=home)
    assert result.returncode == 0
    assert "is finished" in result.stderr


def test_a_second_signal_leaves_at_once_and_the_run_can_go_on(
    program: list[str], environment: dict[str, str], home: Path, llm: Llm, whole: dict[str, object]
) -> None:
    run = home / "twice"
    with training(program, environment, home, *TRAIN, "twice") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("machine "):  # the next thing is TensorFlow's compiler, for seconds
                break
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        status, said = ended(process)
    assert status in (130, 143)  # which of them came second is the system's choice
    assert "stopped and saved" not in said
    assert newest_step(run) == 0
    result = llm("train", "--resume", "twice", cwd=home)
    assert result.returncode == 0
    assert "no checkpoint was committed yet; starting at step 0" in result.stderr
    assert outcome(run) == whole


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["whole", "--output", "elsewhere"], 2, "--output cannot be given with --resume"),
        (["whole", "--vocab", "vocab.json"], 2, "--vocab cannot be given with --resume"),
        (["whole", "--config", "whole/run.json"], 2, "--config cannot be given with --resume"),
        (["whole", "fox.txt"], 2, "not with 2: whole fox.txt"),
        (["whole", "--hidden-dim", "16"], 2, "--hidden-dim is 8 in this run, not 16"),
        (["whole", "--steps", "10"], 2, "no more than this run has had"),
        (["nowhere"], 66, "nowhere: no run.json there"),
    ],
)
@pytest.mark.usefixtures("whole")
def test_what_cannot_be_resumed_is_one_line_and_changes_nothing(
    llm: Llm, home: Path, arguments: list[str], status: int, said: str
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (home / "whole").rglob("*"))
    result = llm("train", "--resume", *arguments, cwd=home)
    assert (result.returncode, result.stdout) == (status, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in (home / "whole").rglob("*")) == before
