"""Stop signals in native code and in reads; others are tested with the commands that handle them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quickfox.cli.signals import STOP_SIGNALS, StopSignals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

BUSY = """
import hashlib, signal, sys
from pathlib import Path
from quickfox.cli import signals
from quickfox.files.atomic import new_directory

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
try:
    with signals.StopSignals(), new_directory(Path("new")) as directory:
        Path(directory, "file").touch()
        signals.set_stop_message("resume with: llm")
        if "slow" in sys.argv:
            signals.StopRequest().record_signals()
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)  # native code that runs for hours
except signals.Stopped as stopped:  # received before the native code
    signals.exit_immediately(stopped.exit_status, stopped.message + "\\n")
"""


@contextmanager
def busy(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in native code, after it has started to write a directory."""
    command = [sys.executable, "-c", BUSY, *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_native_code_and_removes_what_is_half_written(tmp_path: Path, number: signal.Signals) -> None:
    with busy(tmp_path) as process:
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (128 + number, b"resume with: llm\n")
    assert list(tmp_path.iterdir()) == []


def test_only_a_second_signal_ends_native_code_while_a_run_is_saved(tmp_path: Path) -> None:
    with busy(tmp_path, "slow") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)  # the second one of a terminal that is closed
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=60)
    assert process.returncode in (129, 143)  # the order of delivery is undefined
    assert messages == b""
    assert list(tmp_path.iterdir()) == []


LOST = """
import os, signal, sys
from quickfox.cli.signals import Stopped, StopSignals

class Destroyed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))

try:
    with StopSignals():
        Destroyed()
        exec(sys.argv[1])
except Stopped as stopped:
    os._exit(stopped.exit_status)
"""


@pytest.mark.parametrize("rest", ["while True: pass", "raise SystemError('because of the signal')", "pass"])
def test_a_signal_whose_exception_is_lost_ends_the_process_without_a_traceback(rest: str) -> None:
    result = subprocess.run([sys.executable, "-c", LOST, rest], capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (143, b"")


def test_the_handlers_and_the_wakeup_descriptor_are_restored() -> None:
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    previous = signal.set_wakeup_fd(sender)
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    try:
        with StopSignals():
            assert signal.getsignal(signal.SIGTERM) not in handlers
        assert signal.set_wakeup_fd(previous) == sender
        assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers
    finally:
        signal.set_wakeup_fd(previous)
        os.close(receiver)
        os.close(sender)


def test_an_ignored_hangup_stays_ignored() -> None:
    """As nohup has it."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


BLOCKED_READ = """
import signal, sys, threading
from quickfox.cli.inputs import iter_prompt_lines, open_prompts, read_standard_input
from quickfox.cli.score_inputs import open_sources
from quickfox.cli.signals import Stopped, StopSignals

threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # only the other thread receives it
try:
    with StopSignals():
        print("ready", flush=True)
        if sys.argv[1] == "score":
            ((_, chunks),) = open_sources(["-"])
            next(chunks)
        elif sys.argv[1] == "prompts":
            with open_prompts("-") as (file, name):
                next(iter_prompt_lines(file, name))
        else:
            read_standard_input()
except Stopped as stopped:
    raise SystemExit(stopped.exit_status)
"""


@pytest.mark.parametrize("reader", ["score", "prompts", "seed"])
def test_a_signal_ends_a_read_that_it_does_not_interrupt(reader: str) -> None:
    """As if the signal had arrived after the last check for signals and before the system call."""
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKED_READ, reader], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=60) == 143
        finally:
            process.kill()
