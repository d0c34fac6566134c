"""What native code writes to standard error is hidden unless an exception is raised."""

import os

import pytest

from quickfox.system.stderr import quiet_stderr


def test_quiet_stderr_hides_what_native_code_writes(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_stderr():
        os.write(2, b"a banner\n")
    assert capfd.readouterr().err == ""


def test_quiet_stderr_replays_it_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with quiet_stderr():
            os.write(2, b"the reason\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert capfd.readouterr().err == "the reason\n"
