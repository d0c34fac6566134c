"""`llm train` with several processes computes what one computes, stops at one step, and ends when a worker is lost."""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cluster import network_namespace, start_workers

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
OPTIONS = (
    *("--hidden-dim", "8", "--embedding-dim", "4", "--window", "4", "--batch-size", "6", "--threads", "2"),
    *("--dropout", "0.1", "--random-seed", "1"),
)
NEW = ("fox.txt", *OPTIONS, "--output", "run")
ENDLESS = (*NEW, "--steps", "900000", "--checkpoint-every", "20")

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX"),
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed"),
]
Llm = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., list["subprocess.Popen[str]"]]


def slow(*values: object) -> Any:
    """Parameters of a test that `.ci/run` leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def network() -> Iterator[list[str]]:
    with network_namespace() as prefix:
        yield prefix


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fox.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def start(network: list[str], program: list[str], environment: dict[str, str], folder: Path) -> Iterator[Start]:
    """Starts `llm train` in workers with these arguments, two unless `count` says otherwise; kills them in the end.

    `others` replace the arguments of all workers but the chief.
    """
    started: list[subprocess.Popen[str]] = []

    def start_all(*arguments: str, others: tuple[str, ...] = (), count: int = 2) -> list["subprocess.Popen[str]"]:
        given = [arguments, *[others or arguments] * (count - 1)]
        commands = [[*network, *program, "train", *each] for each in given]
        workers = start_workers(commands, environment, cwd=folder)
        started.extend(workers)
        return workers

    yield start_all
    for worker in started:
        worker.kill()
        worker.communicate()


def finish(workers: list["subprocess.Popen[str]"], status: int) -> list[tuple[str, str]]:
    """Waits for workers that end with this status; returns the standard output and error of each."""
    outputs = [worker.communicate(timeout=100) for worker in workers]
    errors = "\n".join(error for _, error in outputs)
    assert [worker.returncode for worker in workers] == [status] * len(workers), errors
    assert "Traceback" not in errors, errors
    return outputs


def await_first_epoch(chief: "subprocess.Popen[str]") -> None:
    """Reads the standard error of the chief until it reports an epoch."""
    assert chief.stderr is not None
    assert any(line.startswith("epoch ") for line in chief.stderr), "it ended too early"


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint."""
    return max(int(path.name.removeprefix("step-")) for path in (folder / "run" / "checkpoints").glob("step-*"))


def test_two_workers_train_the_weights_of_one_bit_for_bit(llm_process: Llm, start: Start, folder: Path) -> None:
    """One process repeats the run of two, so that neither has an n-gram gate."""
    several = finish(start(*NEW, "--steps", "200", "--json"), 0)
    assert [error.count("random seed") for _, error in several] == [1, 0], "only the chief shows progress"
    assert all("warning: whoever reaches port " in error for _, error in several)
    ended = llm_process("train", *NEW[:-1], "one", "--steps", "200", "--json", "--config", "run")
    assert ended.returncode == 0, ended.stderr
    two, one = json.loads(several[0][0]), json.loads(ended.stdout)
    assert (one["workers"], two["workers"]) == (1, 2)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-6)
    weights = [folder / run / "checkpoints/step-00000200/model.safetensors" for run in ("run", "one")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(("stopped", "lost"), [(1, 0), slow(0, 1)])
def test_a_signal_or_the_loss_of_a_worker_ends_all_and_the_run_resumes(
    llm_process: Llm, start: Start, folder: Path, stopped: int, lost: int
) -> None:
    """Two workers are stopped, resume, and lose one; the other ends, and one process resumes the run."""
    workers = start(*ENDLESS)
    await_first_epoch(workers[0])
    workers[stopped].send_signal(signal.SIGTERM)
    (_, error), _ = finish(workers, 143)
    assert re.search(r"stopped and saved at step [\d,]+;.* llm train --resume run$", error)
    before = newest_step(folder)

    workers = start("--resume", "run")
    await_first_epoch(workers[0])
    workers[lost].kill()
    [(_, error)] = finish([workers[1 - lost]], 75)
    name = "the chief" if lost == 0 else "worker 1"
    assert re.fullmatch(rf"llm: {name} \(.*\) is lost; .* llm train --resume run", error.splitlines()[-1])
    workers[lost].communicate()
    step = newest_step(folder)
    assert step >= before
    resumed = llm_process("train", "--resume", "run", "--steps", str(step + 20), "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == step + 20


@pytest.mark.slow
def test_a_stopped_worker_is_lost_and_three_workers_resume(start: Start, folder: Path) -> None:
    workers = start(*ENDLESS, count=3)
    await_first_epoch(workers[0])
    workers[2].send_signal(signal.SIGSTOP)
    outputs = finish(workers[:2], 75)
    assert all(error.splitlines()[-1].endswith("resume with: llm train --resume run") for _, error in outputs)
    steps = str(newest_step(folder) + 20)
    finish(start("--resume", "run", "--steps", steps, count=3), 0)


@pytest.mark.slow
def test_a_failure_of_the_chief_before_the_first_step_is_that_of_all(
    llm_process: Llm, start: Start, folder: Path
) -> None:
    """The pretrained model of a run that has no checkpoint yet is gone."""
    for arguments in (("--output", "base", *OPTIONS), ("--output", "run", "--init-from", "base", "--batch-size", "6")):
        ended = llm_process("train", "fox.txt", *arguments, "--steps", "2", "--ngram", "off")
        assert ended.returncode == 0, ended.stderr
    shutil.rmtree(folder / "base")
    shutil.rmtree(folder / "run" / "checkpoints")
    outputs = finish(start("--resume", "run"), 66)
    assert all("base" in error.splitlines()[-1] for _, error in outputs)


def test_a_plan_is_made_by_all_workers(start: Start, folder: Path) -> None:
    chief, other = finish(start(*NEW, "--steps", "3", "--dry-run", "--json"), 0)
    assert json.loads(chief[0])["workers"] == 2
    assert other[0] == ""
    assert [path.name for path in folder.iterdir()] == ["fox.txt"]


@pytest.mark.parametrize(
    ("others", "status", "message"),
    [
        (("dog.txt", *NEW[1:]), 65, "dog.txt: the text is not that of the chief"),
        slow((*NEW, "--dropout", "0.2"), 2, "--dropout is 0.2, and at the chief 0.1: all workers need the same"),
        slow(("--resume", "run"), 2, "--resume is True, and at the chief False"),
    ],
)
def test_workers_that_differ_end_with_one_line(
    start: Start, folder: Path, others: tuple[str, ...], status: int, message: str
) -> None:
    (folder / "dog.txt").write_text(TEXT.replace("fox", "dog"))
    (_, of_chief), (_, of_worker) = finish(start(*NEW, others=others), status)
    assert of_worker.splitlines()[-1].startswith(f"llm: {message}")
    assert re.match(rf"llm: worker 1 \(.*\): {message}", of_chief.splitlines()[-1])
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("tf_config", "arguments", "status", "message"),
    [
        (("a:1", "b:1"), ("fox.txt", "--batch-size", "5"), 2, "5 is not divisible by 2 workers: choose 4 or 6"),
        (("a:1", "b:1"), ("-",), 2, "standard input can be read once"),
        (("a:1", "b:1"), ("gone.txt",), 66, "gone.txt"),
        (("a..b:1", "b:1"), ("fox.txt",), 2, "not 'a..b:1'"),
    ],
)
def test_invalid_options_are_reported_in_one_line(
    llm: Llm,
    environment: dict[str, str],
    folder: Path,
    tf_config: tuple[str, str],
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    config = {"cluster": {"worker": tf_config}, "task": {"type": "worker", "index": 0}}
    ended = llm("train", *arguments, env={**environment, "TF_CONFIG": json.dumps(config)})
    assert ended.returncode == status
    [line] = ended.stderr.splitlines()
    assert message in line
    assert [path.name for path in folder.iterdir()] == ["fox.txt"]
