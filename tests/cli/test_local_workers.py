"""`llm train` by several processes: they compute what one does, stop together, and end when one is lost."""

import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer

from quickfox.cli import local_workers
from quickfox.cli.local_workers import _free_ports, _take_down_signals, run_local_workers
from quickfox.cli.signals import Stopped

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "8", "--batch-size", "4", "--threads", "2")
SAME = (*SMALL, "--dropout", "0.1", "--random-seed", "1")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX")
trains = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow")
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


@trains
def test_two_workers_end_with_the_weights_of_one_bit_for_bit(llm_process: Llm, fox: Path) -> None:
    steps = ("--steps", "40", "--json")
    alone = llm_process("train", "fox.txt", *SAME, *steps, "--output", "alone")
    together = llm_process("train", "fox.txt", *SAME, *steps, "--output", "together", "--local-workers", "2")
    assert together.returncode == alone.returncode == 0, together.stderr
    one, two = json.loads(alone.stdout), json.loads(together.stdout)
    assert (one["workers"], two["workers"]) == (1, 2)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-6)
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-6)
    assert weights(fox / "alone") == weights(fox / "together")
    assert len(re.findall("random seed", together.stderr)) == 1  # only the chief shows how it goes


@trains
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_asked_to_stop_all_save_at_one_step_and_one_worker_can_go_on(
    llm_process: Llm, fox: Path, start: Callable[..., Any], number: signal.Signals
) -> None:
    process = start("train", "fox.txt", *SAME, "--steps", "900000", "--output", "run", "--local-workers", "2")
    for line in process.stderr:
        if line.startswith("epoch "):
            process.send_signal(number)
            break
    _, error = process.communicate(timeout=60)  # to the end of the chief's standard error
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), error
    stopped = re.fullmatch(r"stopped and saved at step ([\d,]+); go on with: .*run", error.splitlines()[-1])
    assert stopped
    step = int(stopped[1].replace(",", ""))
    resumed = llm_process("train", "--resume", "run", "--steps", str(step + 20), "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == step + 20


@trains
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
    assert said[1].startswith("worker 1 of 2; progress is shown by the chief")


@trains
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_worker_is_lost_the_other_ends_and_says_how_to_go_on(
    llm_process: Llm, fox: Path, start: Callable[..., Any], victim: int, free_addresses: list[str]
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
    assert re.fullmatch(rf"llm: {name} \(.*\) is lost: .*resume with: llm train --resume run", error.splitlines()[-1])
    assert "Traceback" not in error
    workers[victim].communicate()
    step = max(int(path.name.removeprefix("step-")) for path in (fox / "run" / "checkpoints").glob("step-*"))
    resumed = llm_process("train", "--resume", "run", "--steps", str(step + 20), "--json", "--local-workers", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == step + 20


@pytest.fixture
def free_addresses() -> list[str]:
    return [f"127.0.0.1:{port}" for port in _free_ports(2)]


@trains
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
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
def test_bad_inputs(llm_process: Llm, fox: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    ended = llm_process("train", *arguments)
    assert ended.returncode == status
    [line] = ended.stderr.splitlines()
    assert said in line
    assert [path.name for path in fox.iterdir()] == ["fox.txt"]


def test_a_wrong_tf_config_is_one_line(llm_process: Llm, fox: Path, environment: dict[str, str]) -> None:
    ended = llm_process("train", "fox.txt", env={**environment, "TF_CONFIG": '{"cluster": {"worker": ["a:1", "b"]}}'})
    assert ended.returncode == 2
    assert ended.stderr == "llm: TF_CONFIG: cluster.worker: an address is host:port, or [host]:port for IPv6, not 'b'\n"


@trains
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


# Signals, with processes that do nothing in the place of workers.

WAIT = "import signal; signal.pause()"
ORDERLY_END = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if '"index": 0' in os.environ["TF_CONFIG"]:
    os.kill(os.getppid(), signal.SIGINT)
signal.sigwait([signal.SIGTERM])
sys.exit(143)
"""


@pytest.fixture(autouse=True)
def signals_are_heard() -> Iterator[None]:
    """Also where this process was started with some of them ignored, as by nohup or in the background of a script."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list["subprocess.Popen[bytes]"]]:
    """Runs three local workers that are this Python code, and returns those that were started.

    `meanwhile` is called with their number before the first, and after each.
    """

    def run(code: str, meanwhile: Callable[[int], None] = lambda _: None) -> list["subprocess.Popen[bytes]"]:
        def command(_lifeline: int, _arguments: list[str]) -> list[str]:
            meanwhile(0)
            return [sys.executable, "-c", code]

        class Popen(subprocess.Popen[bytes]):
            def __init__(self, *arguments: Any, **settings: Any) -> None:
                super().__init__(*arguments, **settings)
                started.append(self)
                meanwhile(len(started))

        monkeypatch.setattr(local_workers, "_command", command)
        monkeypatch.setattr(subprocess, "Popen", Popen)
        run_local_workers(3, ["train"])
        return started

    started: list[subprocess.Popen[bytes]] = []
    run.started = started  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_signal_while_workers_are_started_ends_those_that_are(
    run_with: Any, number: signal.Signals, after: int
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        run_with(WAIT, lambda count: signal.raise_signal(number) if count == after else None)
    assert stopped.value.exit_status == 128 + number
    assert [worker.returncode for worker in run_with.started] == [-signal.SIGTERM] * after  # quietly; none was killed
    assert signal.getsignal(number) is before


def test_all_end_in_their_own_way_when_the_chief_tells_them(run_with: Any) -> None:
    with pytest.raises(Stopped) as stopped:
        run_with(ORDERLY_END)
    assert stopped.value.exit_status == 130
    assert [worker.returncode for worker in run_with.started] == [143] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_so(run_with: Any, number: signal.Signals) -> None:
    """As SIGHUP is under nohup."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        workers = run_with("", lambda _: signal.raise_signal(number))
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert [worker.returncode for worker in workers] == [0] * 3


def test_a_terminal_that_closes_says_so_once() -> None:
    """The chief would leave without saving at a second signal."""
    for numbers, taken in (("HUP HUP TERM", "HUP TERM"), ("TERM HUP", "TERM"), ("INT INT", "INT INT")):
        with ExitStack() as stack:
            received = _take_down_signals(stack)
            for name in numbers.split():
                signal.raise_signal(signal.Signals[f"SIG{name}"])
            assert received == [signal.Signals[f"SIG{name}"] for name in taken.split()]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)", 130),
        ("sys.exit(130)", 130),
    ],
)
def test_a_chief_that_was_stopped_itself(run_with: Any, end: str, status: int) -> None:
    with pytest.raises(Stopped) as stopped:
        run_with(f"import os, signal, sys; {end}")
    assert stopped.value.exit_status == status


@pytest.mark.parametrize(("end", "status"), [("sys.exit(66)", 66), ("os.kill(os.getpid(), signal.SIGKILL)", 1)])
def test_a_chief_that_failed(run_with: Any, end: str, status: int) -> None:
    with pytest.raises(typer.Exit) as failed:
        run_with(f"import os, signal, sys; {end}")
    assert failed.value.exit_code == status


IMPATIENT = """
import os, signal, sys
if '"index": 0' in os.environ["TF_CONFIG"]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as one that is stuck in TensorFlow
elif '"index": 1' in os.environ["TF_CONFIG"]:
    sys.exit("no luck")
signal.pause()
"""


def test_a_chief_that_does_not_see_that_another_has_failed_is_killed(
    run_with: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_workers, "_LOST_SECONDS", 0.0)
    with pytest.raises(typer.Exit) as failed:
        run_with(IMPATIENT)
    assert failed.value.exit_code == 1
    assert capsys.readouterr().err == "no luck\n"
    assert [worker.returncode for worker in run_with.started] == [-signal.SIGKILL, 1, -signal.SIGKILL]


def test_a_chief_that_does_not_end_is_killed_after_a_second_signal(
    run_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_workers, "_PATIENCE_SECONDS", 0.0)
    stuck = f"""
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if '"index": 2' in os.environ["TF_CONFIG"]:  # all are there
    os.kill({os.getpid()}, signal.SIGINT)
    os.kill({os.getpid()}, signal.SIGTERM)
signal.pause()
"""
    with pytest.raises(Stopped):
        run_with(stuck)
    assert [worker.returncode for worker in run_with.started] == [-signal.SIGKILL] * 3


def test_when_one_cannot_be_started_none_stays(run_with: Any) -> None:
    def fail(count: int) -> None:
        if count == 2:
            raise BlockingIOError("no more processes")

    with pytest.raises(BlockingIOError):
        run_with(WAIT, fail)
    assert run_with.started[0].returncode == -signal.SIGKILL


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    """They hold a named pipe open, whose end is that of the last of them."""
    worker = """
import signal, sys, quickfox.cli.app

def main():
    pipe = open(sys.argv[1], "w")
    print("ready", file=pipe, flush=True)
    signal.pause()

quickfox.cli.app.main = main
"""
    starter = f"""
import quickfox.cli.local_workers as module

start = module._command
def command(lifeline, arguments):
    *python, code, argument = start(lifeline, arguments)
    return [*python, {worker!r} + code, argument]

module._command = command
module.run_local_workers(3, [{str(tmp_path / "pipe")!r}])
"""
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen([sys.executable, "-c", starter]) as process, (tmp_path / "pipe").open("rb") as pipe:
        assert [pipe.readline() for _ in range(3)] == [b"ready\n"] * 3
        process.kill()
        assert select.select([pipe], [], [], 60)[0]
        assert pipe.read() == b""


@trains
def test_modules_in_the_current_folder_are_not_taken_for_others(program: list[str], fox: Path) -> None:
    """As they would be by workers that were started as `python -m quickfox`."""
    (fox / "typer.py").write_text("raise SystemExit(99)")
    llm = [program[0], "-P", *program[1:]]  # its search path is that of the script `llm`
    ended = subprocess.run([*llm, "train", "gone.txt", "--local-workers", "2"], cwd=fox, capture_output=True)
    assert ended.returncode == 66
    assert b"gone.txt" in ended.stderr
