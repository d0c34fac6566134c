"""`--local-workers` starts processes, forwards signals, and leaves none of them behind.

The processes of these tests run a few lines of Python instead of training.
"""

import os
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
from quickfox.cli.local_workers import _record_signals, run_local_workers
from quickfox.cli.signals import Stopped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX")
Llm = Callable[..., subprocess.CompletedProcess[str]]


def test_an_invalid_tf_config_is_reported_in_one_line(llm: Llm, tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "fox.txt").write_text("the quick brown fox\n" * 60)
    ended = llm("train", "fox.txt", env={**environment, "TF_CONFIG": '{"cluster": {"worker": ["a:1", "b"]}}'})
    assert ended.returncode == 2
    assert ended.stderr == "llm: TF_CONFIG: cluster.worker: an address is host:port, or [host]:port for IPv6, not 'b'\n"


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
def default_signal_handlers() -> Iterator[None]:
    """Python's handlers, even if this process was started with signals ignored, as by nohup."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list["subprocess.Popen[bytes]"]]:
    """Runs three local workers that execute Python code; returns those that were started.

    `on_start` is called with the number of workers started: before the first, and after each.
    """

    def run(code: str, on_start: Callable[[int], None] = lambda _: None) -> list["subprocess.Popen[bytes]"]:
        def command(_lifeline: int, _arguments: list[str]) -> list[str]:
            on_start(0)
            return [sys.executable, "-c", code]

        class Popen(subprocess.Popen[bytes]):
            def __init__(self, *arguments: Any, **settings: Any) -> None:
                super().__init__(*arguments, **settings)
                started.append(self)
                on_start(len(started))

        monkeypatch.setattr(local_workers, "_command", command)
        monkeypatch.setattr(subprocess, "Popen", Popen)
        run_local_workers(3, ["train"])
        return started

    started: list[subprocess.Popen[bytes]] = []
    run.started = started  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_signal_during_the_start_ends_the_workers_already_started(
    run_with: Any, number: signal.Signals, after: int
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        run_with(WAIT, lambda count: signal.raise_signal(number) if count == after else None)
    assert stopped.value.exit_status == 128 + number
    assert [worker.returncode for worker in run_with.started] == [-signal.SIGTERM] * after  # none needed SIGKILL
    assert signal.getsignal(number) is before


def test_all_workers_end_by_themselves_after_a_signal(run_with: Any) -> None:
    with pytest.raises(Stopped) as stopped:
        run_with(ORDERLY_END)
    assert stopped.value.exit_status == 130
    assert [worker.returncode for worker in run_with.started] == [143] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_ignored_signal_remains_ignored(run_with: Any, number: signal.Signals) -> None:
    """As SIGHUP is under nohup."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        workers = run_with("", lambda _: signal.raise_signal(number))
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert [worker.returncode for worker in workers] == [0] * 3


def test_a_repeated_hangup_is_received_once() -> None:
    """A second signal would end the chief without saving."""
    for numbers, taken in (("HUP HUP TERM", "HUP TERM"), ("TERM HUP", "TERM"), ("INT INT", "INT INT")):
        with ExitStack() as stack:
            received = _record_signals(stack)
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
def test_the_status_of_an_interrupted_chief_is_returned(run_with: Any, end: str, status: int) -> None:
    with pytest.raises(Stopped) as stopped:
        run_with(f"import os, signal, sys; {end}")
    assert stopped.value.exit_status == status


@pytest.mark.parametrize(("end", "status"), [("sys.exit(66)", 66), ("os.kill(os.getpid(), signal.SIGKILL)", 1)])
def test_the_status_of_a_failed_chief_is_returned(run_with: Any, end: str, status: int) -> None:
    with pytest.raises(typer.Exit) as failed:
        run_with(f"import os, signal, sys; {end}")
    assert failed.value.exit_code == status


FAILED_WORKER = """
import os, signal, sys
if '"index": 0' in os.environ["TF_CONFIG"]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as if TensorFlow blocked it
elif '"index": 1' in os.environ["TF_CONFIG"]:
    sys.exit("failed")
signal.pause()
"""


def test_a_chief_that_does_not_notice_a_failed_worker_is_killed(
    run_with: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_workers, "_LOST_SECONDS", 0.0)
    with pytest.raises(typer.Exit) as failed:
        run_with(FAILED_WORKER)
    assert failed.value.exit_code == 1
    assert capsys.readouterr().err == "failed\n"
    assert [worker.returncode for worker in run_with.started] == [-signal.SIGKILL, 1, -signal.SIGKILL]


def test_a_second_signal_kills_workers_that_do_not_end(run_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_workers, "_PATIENCE_SECONDS", 0.0)
    stuck = f"""
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if '"index": 0' in os.environ["TF_CONFIG"]:  # the chief, which blocks the signal forwarded to it by now
    os.kill({os.getpid()}, signal.SIGINT)
    os.kill({os.getpid()}, signal.SIGTERM)
signal.pause()
"""
    with pytest.raises(Stopped):
        run_with(stuck)
    assert {worker.returncode for worker in run_with.started} == {-signal.SIGKILL}


def test_if_a_worker_cannot_be_started_the_others_are_killed(run_with: Any) -> None:
    def fail(count: int) -> None:
        if count == 2:
            raise BlockingIOError("no more processes")

    with pytest.raises(BlockingIOError):
        run_with(WAIT, fail)
    assert run_with.started[0].returncode == -signal.SIGKILL


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """The workers hold a named pipe open, so that its end is reached when the last of them has ended."""
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
