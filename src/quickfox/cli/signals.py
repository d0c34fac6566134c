"""SIGINT and SIGTERM end the program with 130 and 143, in an orderly way first, at once if asked twice."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(BaseException):
    """The user or the system asks the program to end.

    Not a KeyboardInterrupt, so that SIGTERM takes the same way; not an Exception, so that only `finally` and the
    command line's boundary meet it.

    Attributes:
        exit_status: 128 + the signal's number, as a shell reports it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number


def raise_on_stop_signals() -> None:
    """From now on SIGINT and SIGTERM raise Stopped in the main thread."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _raise_stopped)


def _raise_stopped(signal_number: int, _frame: FrameType | None) -> None:
    raise Stopped(signal_number)


class StopRequest:
    """A stop signal that waits until the work in hand is saved, instead of raising Stopped where it happens to come."""

    def __init__(self) -> None:
        self._signal_number: int | None = None

    def wait_for_saving(self) -> None:
        """From now on SIGINT and SIGTERM are only taken down."""
        for number in _STOP_SIGNALS:
            signal.signal(number, self._take_down)

    def _take_down(self, signal_number: int, _frame: FrameType | None) -> None:
        self._signal_number = signal_number

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self._signal_number is not None

    def as_exception(self) -> Stopped:
        """What the signal would have raised; SIGTERM if none has come, but to another worker of the run."""
        return Stopped(self._signal_number or signal.SIGTERM)


@contextmanager
def second_signal_ends_at_once() -> Iterator[None]:
    """Within the block, a second signal ends the process even where Python does not get to run.

    A Python signal handler has to wait until a call into native code, such as TensorFlow's compiler, returns. The
    interpreter writes each signal's number to a socket at once, though, and a thread that reads it can leave.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_leave_on_second_signal, args=(receiver,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        sender.close()  # ends the thread


def end_at_once(status: int, message: str = "", terminal: int = 2) -> NoReturn:
    """Ends the process, whatever its main thread waits for, and leaves the terminal as it was.

    Args:
        status: its exit status.
        message: a line for the user.
        terminal: descriptor of standard error, or a copy of it: native libraries may have the former muted.
    """
    try:
        show_cursor = _SHOW_CURSOR if os.isatty(terminal) else b""  # a progress display may have hidden it
        os.write(terminal, show_cursor + message.encode(errors="backslashreplace"))
    finally:
        os._exit(status)


def _leave_on_second_signal(receiver: socket.socket) -> None:
    stops = 0
    with receiver:
        while numbers := receiver.recv(1):
            stops += numbers[0] in _STOP_SIGNALS
            if stops == 2:
                end_at_once(128 + numbers[0])
