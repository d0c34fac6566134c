"""SIGINT and SIGTERM: an orderly stop with exit status 130 or 143, and an immediate exit on a second signal."""

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
_CHECK_INTERVAL = 0.1  # seconds


class Stopped(BaseException):
    """SIGINT or SIGTERM was received.

    Not a KeyboardInterrupt, because it stands for SIGTERM too; not an Exception, so that only `finally` blocks and
    the error boundary of the command line see it.

    Attributes:
        exit_status: 128 + the signal's number, as a shell reports it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number


def raise_on_stop_signals() -> None:
    """Installs handlers that raise Stopped in the main thread on SIGINT and SIGTERM."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _raise_stopped)


def _raise_stopped(signal_number: int, _frame: FrameType | None) -> None:
    raise Stopped(signal_number)


class StopRequest:
    """Records a stop signal instead of raising Stopped, so that the current step can be finished and saved."""

    def __init__(self) -> None:
        self._signal_number: int | None = None

    def record_signals(self) -> None:
        """Installs handlers that only record SIGINT and SIGTERM."""
        for number in _STOP_SIGNALS:
            signal.signal(number, self._record)

    def _record(self, signal_number: int, _frame: FrameType | None) -> None:
        self._signal_number = signal_number

    def is_set(self) -> bool:
        """Whether a signal was received."""
        return self._signal_number is not None

    def to_exception(self) -> Stopped:
        """The exception for the recorded signal; for SIGTERM if another worker of the run received the signal."""
        return Stopped(self._signal_number or signal.SIGTERM)


@contextmanager
def exit_on_second_signal() -> Iterator[None]:
    """Within the block, a second stop signal exits the process immediately, even while native code runs.

    A Python signal handler waits until a call into native code, such as TensorFlow's compiler, returns. So a thread
    reads the numbers of the signals, which the interpreter writes to its wake-up socket at once.
    """
    receiver, sender = socket.socketpair()

    def watch() -> None:
        count = 0
        with receiver:
            while received := receiver.recv(1):
                count += received[0] in _STOP_SIGNALS
                if count == 2:
                    exit_immediately(128 + received[0])

    sender.setblocking(False)
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        sender.close()  # ends the thread


@contextmanager
def interrupt_blocking_read() -> Iterator[None]:
    """Within the block, a stop signal interrupts a blocking read of the main thread whenever it is received.

    CPython runs signal handlers between two bytecodes and after a system call that fails with EINTR. A signal that is
    received after the last of these checks and before the system call would be handled only when the read returns. So
    a timer interrupts the system call at regular intervals.
    """
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, _CHECK_INTERVAL, _CHECK_INTERVAL)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def exit_immediately(status: int, message: str = "", descriptor: int = 2) -> NoReturn:
    """Exits the process without unwinding the main thread, and restores the terminal's cursor.

    Args:
        status: exit status.
        message: a line for standard error.
        descriptor: of standard error or a duplicate of it, for when native output is silenced.
    """
    try:
        show_cursor = _SHOW_CURSOR if os.isatty(descriptor) else b""  # a progress display may have hidden it
        os.write(descriptor, show_cursor + message.encode(errors="backslashreplace"))
    finally:
        os._exit(status)
