"""`llm train` with several processes computes what one computes, stops at one step, and ends when a worker is lost."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickfox.cli.local_workers import _free_ports

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
OPTIONS = (
    *("--hidden-dim", "8", "--embedding-dim", "4", "--window", "4", "--batch-size", "4", "--threads", "2"),
    *("--dropout", "0.1", "--random-seed", "1"),
)
ENDLESS = ("--steps", "900000")

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX"),
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed"),
]
Llm = Callable[..., subprocess.CompletedProcess[str]]


def slow(*values: object) -> Any:
    """Parameters of a test that `.ci/run` leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fox.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def launch(program: list[str], environment: dict[str, str], folder: Path) -> Iterator[Callable[..., Any]]:
    """Starts `llm` with additional environment variables; kills it at the end of the test."""
    processes = []

    def start_process(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=folder,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def launch_cluster(launch: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Starts two workers that find each other by TF_CONFIG, each with a text file."""

    def start_workers(*arguments: str, texts: tuple[str, str] = ("fox.txt", "fox.txt")) -> list[Any]:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports(2)]}
        return [
            launch(
                *("train", text, *OPTIONS, *arguments, "--output", "run"),
                TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}}),
            )
            for rank, text in enumerate(texts)
        ]

    return start_workers


def await_first_epoch(process: "subprocess.Popen[str]") -> None:
    """Reads the standard error of the chief until it reports an epoch."""
    assert process.stderr is not None
    assert any(line.startswith("epoch ") for line in process.stderr), "it ended too early"


def resume_to(step: int, llm_process: Llm, *arguments: str) -> None:
    """Resumes the run until a step."""
    resumed = llm_process("train", "--resume", "run", "--steps", str(step), "--json", *arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == step


def test_two_workers_train_the_weights_of_one_bit_for_bit(llm_process: Llm, folder: Path) -> None:
    """One process repeats the run of two, so that neither has an n-gram gate."""
    results, weights = [], []
    for workers in (2, 1):
        several = ("--local-workers", "2") if workers == 2 else ("--config", "run2")
        arguments = ("--steps", "40", "--json", "--output", f"run{workers}")
        ended = llm_process("train", "fox.txt", *OPTIONS, *arguments, *several)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("random seed") == 1, "only the chief shows progress"
        results.append(json.loads(ended.stdout))
        weights.append((folder / f"run{workers}/checkpoints/step-00000040/model.safetensors").read_bytes())
    two, one = results
    assert (one["workers"], two["workers"]) == (1, 2)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-6)
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-6)
    assert weights[0] == weights[1]


@pytest.mark.parametrize("number", [signal.SIGINT, slow(signal.SIGTERM), slow(signal.SIGKILL)])
def test_after_a_signal_all_workers_save_the_same_step_and_one_worker_resumes(
    llm_process: Llm, launch: Callable[..., Any], number: signal.Signals
) -> None:
    process = launch("train", "fox.txt", *OPTIONS, *ENDLESS, "--output", "run", "--local-workers", "2")
    await_first_epoch(process)
    process.send_signal(number)
    _, error = process.communicate(timeout=100)  # to the end of the chief's standard error
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), error
    stopped = re.match(r"stopped and saved at step ([\d,]+);.* llm train --resume run$", error.splitlines()[-1])
    assert stopped, error
    resume_to(int(stopped[1].replace(",", "")) + 20, llm_process)


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [None, 0, 1])
def test_all_workers_end_with_the_same_status(launch_cluster: Callable[..., Any], interrupted: int | None) -> None:
    """All steps are done, or a signal to one worker stops all of them."""
    workers = launch_cluster(*(("--steps", "30") if interrupted is None else ENDLESS))
    if interrupted is not None:
        await_first_epoch(workers[0])
        workers[interrupted].send_signal(signal.SIGTERM)
    errors = [worker.communicate(timeout=100)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0 if interrupted is None else 143] * 2, errors
    assert "Traceback" not in "".join(errors)
    assert errors[1].startswith("worker 1 of 2")


@pytest.mark.parametrize(("victim", "name"), [slow(0, "the chief"), (1, "worker 1")])
def test_if_a_worker_is_lost_the_other_ends_and_two_workers_resume(
    llm_process: Llm, folder: Path, launch_cluster: Callable[..., Any], victim: int, name: str
) -> None:
    workers = launch_cluster(*ENDLESS, "--checkpoint-every", "20")
    await_first_epoch(workers[0])
    workers[victim].kill()
    other = workers[1 - victim]
    _, error = other.communicate(timeout=100)
    assert other.returncode == 75, error
    assert re.fullmatch(rf"llm: {name} \(.*\) is lost: .* llm train --resume run", error.splitlines()[-1])
    assert "Traceback" not in error
    workers[victim].communicate()
    step = max(int(path.name.removeprefix("step-")) for path in (folder / "run" / "checkpoints").glob("step-*"))
    resume_to(step + 20, llm_process, "--local-workers", "2")


@pytest.mark.slow
def test_different_texts_are_refused(launch_cluster: Callable[..., Any], folder: Path) -> None:
    (folder / "dog.txt").write_text(TEXT.replace("fox", "dog"))
    for worker in launch_cluster("--steps", "20", texts=("fox.txt", "dog.txt")):
        _, error = worker.communicate(timeout=100)
        assert worker.returncode == 65
        assert "the text of worker 1" in error.splitlines()[-1]
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("fox.txt", "--batch-size", "5", "--local-workers", "2"), 2, "5 is not divisible by 2 workers: choose 4 or 6"),
        (("fox.txt", "--batch-size", "1", "--local-workers", "2"), 2, "1 is not divisible by 2 workers: choose 2"),
        (("-", "--local-workers", "2"), 2, "standard input can be read once"),
        (("fox.txt", "--local-workers", "0"), 2, "local-workers must be from 1"),
        (("fox.txt", "--local-workers", "65"), 2, "local-workers must be from 1 to 64"),
        (("gone.txt", "--local-workers", "2"), 66, "gone.txt"),
        (("fox.txt", "--window", "9000", "--local-workers", "2"), 2, "window must be at most"),
    ],
)
def test_invalid_options_are_reported_in_one_line(
    llm_process: Llm, folder: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    ended = llm_process("train", *arguments)
    assert ended.returncode == status
    [line] = ended.stderr.splitlines()
    assert message in line
    assert [path.name for path in folder.iterdir()] == ["fox.txt"]


def test_modules_in_the_current_directory_are_not_imported(program: list[str], folder: Path) -> None:
    """The script `llm` does not import them, nor do the workers that it starts."""
    (folder / "typer.py").write_text("raise SystemExit(99)")
    ended = subprocess.run([*program, "train", "gone.txt", "--local-workers", "2"], cwd=folder, capture_output=True)
    assert ended.returncode == 66
    assert b"gone.txt" in ended.stderr
