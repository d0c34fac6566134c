"""`--local-workers N`: runs the same command in N processes of this machine, as a cluster of machines would.

The first process, the chief, has the standard output and error of this process. The standard error of the others is
saved, and its last line shown if the chief is killed. All stop when this process ends, which closes a pipe they read.
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

from quickfox.cli.signals import STOP_SIGNALS, Stopped, allow_slow_stop
from quickfox.cli.streams import write_stderr
from quickfox.errors import ExitStatus, UsageError

MAX_LOCAL_WORKERS = 64
_OPTION = "--local-workers"
_PATIENCE_SECONDS = 6.0  # until workers are killed after the chief has ended or after a second signal
_LOST_SECONDS = 30.0  # until workers are killed after one other than the chief has failed
_POLL_SECONDS = 0.1
_NO_FAILURES = (None, ExitStatus.SUCCESS, ExitStatus.INTERRUPTED, ExitStatus.TERMINATED)


def run_local_workers(count: int, arguments: list[str]) -> None:
    """Runs `llm` with these arguments, without this option, in `count` processes and waits for them.

    Raises:
        UsageError: `count` is out of range.
        Stopped: the run was stopped by a signal and saved.
        typer.Exit: the run failed; the chief has reported the error.
    """
    if not 1 <= count <= MAX_LOCAL_WORKERS:
        raise UsageError(f"--local-workers must be from 1 to {MAX_LOCAL_WORKERS}, not {count}")
    cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports(count)]}
    workers: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        received = _record_signals(stack)  # before any worker is started
        allow_slow_stop(*STOP_SIGNALS)
        lifeline, writer = os.pipe()
        stack.callback(os.close, writer)
        stack.callback(os.close, lifeline)
        stderr_files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1)]
        command = _command(lifeline, _without_option(arguments))
        for rank in range(count):
            if received:
                break
            tf_config = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
            worker = subprocess.Popen(
                command,
                env={**os.environ, "TF_CONFIG": json.dumps(tf_config)},
                stdin=subprocess.DEVNULL,
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=None if rank == 0 else stderr_files[rank - 1],
                pass_fds=(lifeline,),
                process_group=0,  # the terminal sends signals to this process only, which forwards them
            )
            workers.append(stack.enter_context(worker))
            stack.callback(worker.kill)  # if it still runs, for example because another could not be started
        _wait_for_all(workers, received)
        _raise_outcome(workers, received, stderr_files)


def run_worker(lifeline: int) -> None:
    """Runs `llm` in a worker process, and stops it when the process that started it ends.

    Args:
        lifeline: descriptor of a pipe whose other end is open in that process only.
    """
    from quickfox.cli.app import main

    def stop_without_parent() -> None:
        os.read(lifeline, 1)  # returns when the other end is closed, also by SIGKILL
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_without_parent, daemon=True).start()
    main()


def _command(lifeline: int, arguments: list[str]) -> list[str]:
    """The command of a worker, with the module search path of this process instead of the current folder."""
    code = f"import sys; sys.path[:] = {sys.path}; from {__name__} import run_worker; run_worker({lifeline})"
    return [sys.executable, "-c", code, *arguments]


def _free_ports(count: int) -> list[int]:
    """Unused ports, all different because they are bound at the same time."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _without_option(arguments: list[str]) -> list[str]:
    kept = []
    rest = iter(arguments)
    for argument in rest:
        if argument == _OPTION:
            next(rest)
        elif not argument.startswith(f"{_OPTION}="):
            kept.append(argument)
    return kept


def _record_signals(stack: ExitStack) -> list[int]:
    """Appends each stop signal to the list returned, until the stack is closed."""
    received: list[int] = []

    def record(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP or not received:  # a closing terminal may send it twice
            received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored by nohup
            stack.callback(signal.signal, number, signal.signal(number, record))
    return received


def _wait_for_all(workers: list["subprocess.Popen[bytes]"], received: list[int]) -> None:
    """Waits for all workers, for a limited time after the chief has ended or another has failed.

    Signals are forwarded to the chief as SIGTERM, which ends it without a traceback even before it handles signals.
    """
    forwarded = 0
    others_stopped = False
    deadline = math.inf
    while None in [worker.poll() for worker in workers]:
        chief, *others = workers
        for _ in received[forwarded:]:
            chief.terminate()
            forwarded += 1
        now = time.monotonic()
        if chief.returncode is not None or len(received) > 1:
            deadline = min(deadline, now + _PATIENCE_SECONDS)
        elif any(worker.returncode not in _NO_FAILURES for worker in others):
            deadline = min(deadline, now + _LOST_SECONDS)
        if received and chief.returncode is not None and not others_stopped:
            others_stopped = True  # the chief may have ended before they were connected
            for worker in others:
                worker.terminate()
        if now > deadline:  # TensorFlow's start can block all Python threads
            for worker in workers:
                worker.kill()
        time.sleep(_POLL_SECONDS)


def _raise_outcome(
    workers: list["subprocess.Popen[bytes]"], received: list[int], stderr_files: Sequence[IO[bytes]]
) -> None:
    """Ends this process as the chief has ended."""
    status = workers[0].returncode if workers else -signal.SIGTERM
    stopped_by = -status if status < 0 else status - 128  # negative: before the chief handled signals
    if stopped_by in (signal.SIGINT, signal.SIGTERM) or (received and status < 0):
        raise Stopped(received[0] if received else stopped_by)
    if status > 0:
        raise typer.Exit(status)
    if status < 0:  # killed, and another worker may have reported the reason
        for file, worker in zip(stderr_files, workers[1:], strict=True):
            file.seek(0)
            last = file.read().decode(errors="replace").splitlines()[-1:]
            if worker.returncode > 0 and last:
                write_stderr(f"{last[0]}\n")
                raise typer.Exit(worker.returncode)
        raise typer.Exit(ExitStatus.FAILURE)
