"""Leaving at once when asked twice; one signal is tested with the commands, in test_app.py and test_train.py."""

import signal
import subprocess
import sys

import pytest

STUCK = """
import hashlib
from quickfox.cli.signals import Stopped, raise_on_stop_signals, exit_on_second_signal

raise_on_stop_signals()
with exit_on_second_signal():
    print("ready", flush=True)
    while True:  # native code that runs for hours, and a program that does not take a hint
        try:
            hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)
        except Stopped:
            pass
"""

QUIET_END = """
import signal
from quickfox.cli.signals import exit_on_second_signal

before = signal.set_wakeup_fd(-1)
with exit_on_second_signal():
    pass
assert signal.set_wakeup_fd(-1) == before
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_second_signal_ends_what_does_not_listen() -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (130, 143)  # which of them came second is the system's choice


def test_what_was_there_before_is_put_back() -> None:
    assert subprocess.run([sys.executable, "-c", QUIET_END], timeout=60).returncode == 0
