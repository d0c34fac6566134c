"""`--local-workers N`: the same command in N processes of this machine, as a cluster would run it on several.

The first of them, the chief, has this program's standard output and error. What the others say on standard error is
kept back, and shown only if the chief cannot say anything any more.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from types import FrameType

import typer

from quickfox.cli.signals import Stopped
from quickfox.cli.streams import write_stderr
from quickfox.errors import ExitStatus, UsageError

MAX_LOCAL_WORKERS = 64
_OPTION = "--local-workers"
_PATIENCE_SECONDS = 6.0  # with processes that do not end by themselves after one has failed
_POLL_SECONDS = 0.1


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
    command = [sys.executable, "-m", "quickfox", *_without_option(arguments)]
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1)]
        workers = [
            subprocess.Popen(
                command,
                env={**os.environ, "TF_CONFIG": _tf_config(cluster, rank)},
                stdin=subprocess.DEVNULL,
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=None if rank == 0 else said[rank - 1],
                process_group=0,  # the terminal's signals come to this process alone, which passes them on
            )
            for rank in range(count)
        ]
        _pass_signals_on(workers[0])
        _await_all(workers)
        status = workers[0].returncode
        if status < 0 and -status not in (signal.SIGINT, signal.SIGTERM):  # killed
            for file, worker in zip(said, workers[1:], strict=True):
                file.seek(0)
                last = file.read().decode(errors="replace").splitlines()[-1:]
                if worker.returncode > 0 and last:
                    write_stderr(f"{last[0]}\n")
                    raise typer.Exit(worker.returncode)
            raise typer.Exit(ExitStatus.FAILURE)
    if status in (ExitStatus.INTERRUPTED, ExitStatus.TERMINATED):
        raise Stopped(status - 128)
    if status:
        raise typer.Exit(status)


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


def _pass_signals_on(chief: "subprocess.Popen[bytes]") -> None:
    """Lets the chief deal with what asks this process to stop: it tells the others."""

    def tell_chief(number: int, _frame: FrameType | None) -> None:
        chief.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, tell_chief)


def _await_all(workers: list["subprocess.Popen[bytes]"]) -> None:
    """Waits for all to end; where the chief has ended, or one has failed, the others are not waited for without end."""
    deadline = None
    while any(worker.poll() is None for worker in workers):
        if deadline is None and workers[0].poll() is not None:
            deadline = time.monotonic() + _PATIENCE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(_POLL_SECONDS)
