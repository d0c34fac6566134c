"""`--local-workers N`: the same command in N processes of this machine, as a cluster would run it on several.

The first of them, the chief, has this program's standard output and error. What the others say on standard error is
kept back, and shown only if the chief cannot say anything any more. None outlives this process: a pipe that it alone
can write to, and never does, tells them when it is gone.
"""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType
from typing import IO

import typer

from quickfox.cli.signals import Stopped
from quickfox.cli.streams import write_stderr
from quickfox.errors import ExitStatus, UsageError

MAX_LOCAL_WORKERS = 64
_OPTION = "--local-workers"
_PATIENCE_SECONDS = 6.0  # with those that do not end by themselves after the chief has, or after a second signal
_LOST_SECONDS = 30.0  # in which the chief should have noticed that another has failed, and ended
_POLL_SECONDS = 0.1
_NO_FAILURES = (None, ExitStatus.SUCCESS, ExitStatus.INTERRUPTED, ExitStatus.TERMINATED)


def run_local_workers(count: int, arguments: list[str]) -> None:
    """Runs `llm` with these arguments, less this option, in `count` processes, to their end.

    Raises:
        UsageError: `count` is out of range.
        Stopped: the run was stopped by a signal, and has saved.
        typer.Exit: it has failed, and said why.
    """
    if not 1 <= count <= MAX_LOCAL_WORKERS:
        raise UsageError(f"local-workers must be from 1 to {MAX_LOCAL_WORKERS}, not {count}")
    cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports(count)]}
    workers: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        received = _take_down_signals(stack)  # first: one that comes while the workers are started must not be lost
        lifeline = _open_lifeline(stack)
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1)]
        stack.callback(_end_all, workers)
        command = _command(lifeline, _without_option(arguments))
        for rank in range(count):
            if received:
                break
            worker = subprocess.Popen(
                command,
                env={**os.environ, "TF_CONFIG": _tf_config(cluster, rank)},
                stdin=subprocess.DEVNULL,
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=None if rank == 0 else said[rank - 1],
                pass_fds=(lifeline,),
                process_group=0,  # the terminal's signals come to this process alone, which passes them on
            )
            workers.append(worker)
        _await_all(workers, received)
        _end_as(workers, received, said)


def run_worker(lifeline: int) -> None:
    """What each of the processes runs: `llm`, which is asked to stop when the process that started it is gone.

    Args:
        lifeline: descriptor of the pipe whose other end that process holds.
    """
    from quickfox.cli.app import main

    def stop_without_parent() -> None:
        os.read(lifeline, 1)  # returns when the other end is closed, be it by SIGKILL
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_without_parent, daemon=True).start()
    main()


def _command(lifeline: int, arguments: list[str]) -> list[str]:
    """With our own search path: by itself Python would look for modules in the current folder first."""
    code = f"import sys; sys.path[:] = {sys.path}; from {__name__} import run_worker; run_worker({lifeline})"
    return [sys.executable, "-c", code, *arguments]


def _tf_config(cluster: dict[str, list[str]], rank: int) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; held open together, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _without_option(arguments: list[str]) -> list[str]:
    """The arguments but `--local-workers N` or `--local-workers=N`."""
    kept = []
    rest = iter(arguments)
    for argument in rest:
        if argument == _OPTION:
            next(rest)
        elif not argument.startswith(f"{_OPTION}="):
            kept.append(argument)
    return kept


def _take_down_signals(stack: ExitStack) -> list[int]:
    """The list to which, until the stack is closed, each signal is appended that asks this process to stop."""
    received: list[int] = []

    def take_down(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP or not received:  # a terminal that closes may say so twice, and means it once
            received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            stack.callback(signal.signal, number, signal.signal(number, take_down))
    return received


def _open_lifeline(stack: ExitStack) -> int:
    """The end for the workers of a pipe whose other end is held until the stack is closed."""
    theirs, ours = os.pipe()
    stack.callback(os.close, ours)
    stack.callback(os.close, theirs)
    return theirs


def _await_all(workers: list["subprocess.Popen[bytes]"], received: list[int]) -> None:
    """Waits for all to end; where the chief has ended, or one has failed, the others are not waited for without end.

    Signals go to the chief, which tells the others: as SIGTERM, which ends it quietly even before it can deal with any.
    """
    passed_on = 0
    others_told = False
    deadline = math.inf
    while None in [worker.poll() for worker in workers]:
        chief, *others = workers
        for _ in received[passed_on:]:
            chief.terminate()
            passed_on += 1
        now = time.monotonic()
        if chief.returncode is not None or len(received) > 1:
            deadline = min(deadline, now + _PATIENCE_SECONDS)
        elif any(worker.returncode not in _NO_FAILURES for worker in others):
            deadline = min(deadline, now + _LOST_SECONDS)
        if received and chief.returncode is not None and not others_told:  # it may have ended before it knew them
            others_told = True
            for worker in others:
                worker.terminate()
        if now > deadline:  # even Python's own threads can wait in vain: TensorFlow's start holds on to the interpreter
            for worker in workers:
                worker.kill()
        time.sleep(_POLL_SECONDS)


def _end_as(workers: list["subprocess.Popen[bytes]"], received: list[int], said: Sequence[IO[bytes]]) -> None:
    """Raises what becomes of this process when all have ended: what became of the chief, which has said why."""
    status = workers[0].returncode if workers else -signal.SIGTERM
    stopped_by = -status if status < 0 else status - 128  # negative: before the chief could deal with signals
    if stopped_by in (signal.SIGINT, signal.SIGTERM) or (received and status < 0):
        raise Stopped(received[0] if received else stopped_by)
    if status > 0:
        raise typer.Exit(status)
    if status < 0:  # killed, and one of the others may know why
        for file, worker in zip(said, workers[1:], strict=True):
            file.seek(0)
            last = file.read().decode(errors="replace").splitlines()[-1:]
            if worker.returncode > 0 and last:
                write_stderr(f"{last[0]}\n")
                raise typer.Exit(worker.returncode)
        raise typer.Exit(ExitStatus.FAILURE)


def _end_all(workers: list["subprocess.Popen[bytes]"]) -> None:
    """Kills those that are still there, as when one of them could not be started."""
    for worker in workers:
        worker.kill()
        worker.wait()
