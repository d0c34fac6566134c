"""A second signal during native code; single signals are tested with the commands that handle them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quickfox.cli.signals import exit_on_second_signal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

BUSY = """
import hashlib
from quickfox.cli.signals import StopRequest, exit_on_second_signal

StopRequest().record_signals()
with exit_on_second_signal():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)  # native code that runs for hours
"""


def test_a_second_signal_exits_during_native_code() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (130, 143)  # the order of delivery is undefined


def test_the_wakeup_descriptor_is_restored() -> None:
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    previous = signal.set_wakeup_fd(sender)
    try:
        with exit_on_second_signal():
            pass
        assert signal.set_wakeup_fd(previous) == sender
    finally:
        signal.set_wakeup_fd(previous)
        os.close(receiver)
        os.close(sender)


BLOCKED_READ = """
import signal, sys, threading
from quickfox.cli.inputs import iter_prompt_lines, open_prompts, read_standard_input
from quickfox.cli.score_inputs import open_sources
from quickfox.cli.signals import Stopped, raise_on_stop_signals

raise_on_stop_signals()
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # only the other thread receives it
try:
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


def test_a_process_that_is_aborted_names_the_options(tmp_path: Path) -> None:
    code = """
from quickfox.cli.commands.train import _make_run_context
from quickfox.cli.signals import StopRequest
from quickfox.cli.training_log import PlainDisplay
from quickfox.errors import UsageError
from quickfox.training.distributed.cluster_spec import SINGLE_PROCESS
run_context = _make_run_context(StopRequest(), SINGLE_PROCESS, PlainDisplay(quiet=True), keep_tokens=False)
run_context.abort(UsageError("hidden_dim must be even: llm train --help", "hidden_dim"))
"""
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = 'quickfox'\n{code}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "quickfox: --hidden-dim must be even: quickfox train --help\n"
