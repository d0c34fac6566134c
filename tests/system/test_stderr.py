"""What native code writes to standard error is held back, and shown where something failed."""

import os

import pytest

from quickfox.system.stderr import quiet_stderr


def test_quiet_stderr_holds_back_what_native_code_writes(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_stderr():
        os.write(2, b"a banner\n")
    assert capfd.readouterr().err == ""


def test_quiet_stderr_replays_it_when_the_block_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with quiet_stderr():
            os.write(2, b"the reason\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert capfd.readouterr().err == "the reason\n"
