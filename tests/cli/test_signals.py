"""A second signal during native code; single signals are tested with the commands that handle them."""

import os
import signal
import subprocess
import sys

import pytest

from quickfox.cli.signals import exit_on_second_signal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

BUSY = """
import hashlib
from quickfox.cli.signals import Stopped, exit_on_second_signal, raise_on_stop_signals

raise_on_stop_signals()
with exit_on_second_signal():
    print("ready", flush=True)
    while True:  # native code that runs for hours, in a program that ignores the exception
        try:
            hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)
        except Stopped:
            pass
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
