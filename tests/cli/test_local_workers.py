"""`llm train` by several processes: they compute what one does, stop together, and end when one is lost."""

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

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "8", "--batch-size", "4", "--threads", "2")
SAME = (*SMALL, "--dropout", "0.1", "--random-seed", "1")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or sys.platform == "win32", reason="TensorFlow, processes of POSIX"
)
Llm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fox(tmp_path: Path) -> Path:
    (tmp_path / "fox.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def start(program: list[str], environment: dict[str, str], fox: Path) -> Iterator[Callable[..., Any]]:
    """Starts `llm`, with more in the environment, and kills it if it is still there in the end."""
    processes = []

    def popen(*arguments: str, **more: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=fox,
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield popen
    for process in processes:
        process.kill()
        process.communicate()


def weights(run: Path) -> bytes:
    return max((run / "checkpoints").iterdir()).joinpath("model.safetensors").read_bytes()


def test_two_workers_end_with_the_weights_of_one_bit_for_bit(llm: Llm, fox: Path) -> None:
    steps = ("--steps", "40", "--json")
    alone = llm("train", "fox.txt", *SAME, *steps, "--output", "alone")
    together = llm("train", "fox.txt", *SAME, *steps, "--output", "together", "--local-workers", "2")
    assert together.returncode == alone.returncode == 0, together.stderr
    one, two = json.loads(alone.stdout), json.loads(together.stdout)
    assert (one["workers"], two["workers"]) == (1, 2)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-6)
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-6)
    assert weights(fox / "alone") == weights(fox / "together")
    assert len(re.findall("random seed", together.stderr)) == 1  # only the chief shows how it goes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_all_save_at_one_step_and_one_worker_can_go_on(
    llm: Llm, fox: Path, start: Callable[..., Any], number: signal.Signals
) -> None:
    process = start("train", "fox.txt", *SAME, "--steps", "900000", "--output", "run", "--local-workers", "2")
    for line in process.stderr:
        if line.startswith("epoch "):
            process.send_signal(number)
            break
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    stopped = re.fullmatch(r"stopped and saved at step ([\d,]+); go on with: .*run", error.splitlines()[-1])
    assert stopped
    step = int(stopped[1].replace(",", ""))
    resumed = llm("train", "--resume", "run", "--steps", str(step + 20), "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == step + 20


@pytest.mark.parametrize("asked", [None, 0, 1])
def test_all_workers_end_with_one_status(
    start: Callable[..., Any], asked: int | None, free_addresses: list[str]
) -> None:
    """Finished, or stopped by a signal to any of them."""
    steps = "30" if asked is None else "900000"
    workers = [
        start(
            *("train", "fox.txt", *SAME, "--steps", steps, "--output", "run"),
            TF_CONFIG=json.dumps({"cluster": {"worker": free_addresses}, "task": {"type": "worker", "index": rank}}),
        )
        for rank in range(2)
    ]
    if asked is not None:
        for line in workers[0].stderr:
            if line.startswith("epoch "):
                workers[asked].send_signal(signal.SIGTERM)
                break
    said = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0 if asked is None else 143] * 2, said
    assert "Traceback" not in "".join(said)
    assert said[1].startswith("worker 1 of 2; how it goes is shown by the chief")


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_worker_is_lost_the_other_ends_and_says_how_to_go_on(
    llm: Llm, fox: Path, start: Callable[..., Any], victim: int, free_addresses: list[str]
) -> None:
    workers = [
        start(
            *("train", "fox.txt", *SAME, "--steps", "900000", "--checkpoint-every", "20", "--output", "run"),
            TF_CONFIG=json.dumps({"cluster": {"worker": free_addresses}, "task": {"type": "worker", "index": rank}}),
        )
        for rank in range(2)
    ]
    for line in workers[0].stderr:
        if line.startswith("epoch "):
            workers[victim].kill()
            break
    other = workers[1 - victim]
    _, error = other.communicate(timeout=30)
    assert other.returncode == 75
    name = "the chief" if victim == 0 else "worker 1"
    assert re.fullmatch(rf"llm: {name} \(.*\) is lost: .*go on with: llm train --resume run", error.splitlines()[-1])
    assert "Traceback" not in error
    workers[victim].communicate()
    step = max(int(path.name.removeprefix("step-")) for path in (fox / "run" / "checkpoints").glob("step-*"))
    resumed = llm("train", "--resume", "run", "--steps", str(step + 20), "--json", "--local-workers", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == step + 20


@pytest.fixture
def free_addresses() -> list[str]:
    from quickfox.cli.local_workers import _free_ports

    return [f"127.0.0.1:{port}" for port in _free_ports(2)]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("fox.txt", "--batch-size", "5", "--local-workers", "2"), 2, "5 does not divide by 2 workers: choose 4 or 6"),
        (("fox.txt", "--batch-size", "1", "--local-workers", "2"), 2, "1 does not divide by 2 workers: choose 2"),
        (("-", "--local-workers", "2"), 2, "standard input can be read once"),
        (("fox.txt", "--local-workers", "0"), 2, "local-workers must be from 1"),
        (("fox.txt", "--local-workers", "65"), 2, "local-workers must be from 1 to 64"),
        (("gone.txt", "--local-workers", "2"), 66, "gone.txt"),
        (("fox.txt", "--window", "9000", "--local-workers", "2"), 2, "window must be at most"),
    ],
)
def test_bad_inputs(llm: Llm, fox: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    ended = llm("train", *arguments)
    assert ended.returncode == status
    [line] = ended.stderr.splitlines()
    assert said in line
    assert [path.name for path in fox.iterdir()] == ["fox.txt"]


def test_a_wrong_tf_config_is_one_line(llm: Llm, fox: Path, environment: dict[str, str]) -> None:
    ended = llm("train", "fox.txt", env={**environment, "TF_CONFIG": '{"cluster": {"worker": ["a:1", "b"]}}'})
    assert ended.returncode == 2
    assert ended.stderr == "llm: TF_CONFIG: cluster.worker: an address is host:port, not 'b'\n"


def test_workers_with_different_texts_are_told(start: Callable[..., Any], fox: Path, free_addresses: list[str]) -> None:
    (fox / "dog.txt").write_text(TEXT.replace("fox", "dog"))
    workers = [
        start(
            *("train", text, *SAME, "--steps", "20", "--output", "run"),
            TF_CONFIG=json.dumps({"cluster": {"worker": free_addresses}, "task": {"type": "worker", "index": rank}}),
        )
        for rank, text in enumerate(("fox.txt", "dog.txt"))
    ]
    for worker in workers:
        _, error = worker.communicate(timeout=60)
        assert worker.returncode == 65
        assert "the text of worker 1" in error.splitlines()[-1]
    assert not (fox / "run").exists()
