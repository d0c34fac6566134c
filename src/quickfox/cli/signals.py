"""SIGINT and SIGTERM: an orderly stop with exit status 130 or 143, and an immediate exit on a second signal."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_SHOW_CURSOR = b"\x1b[?25h"
_WAKE_INTERVAL = 0.01  # seconds


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

    A Python signal handler waits until a call into native code, such as TensorFlow's compiler, returns.
    """
    count = 0

    def count_signal(number: int) -> None:
        nonlocal count
        count += 1
        if count == 2:
            exit_immediately(128 + number)

    with _watch_stop_signals(count_signal):
        yield


@contextmanager
def interrupt_blocking_read() -> Iterator[None]:
    """Within the block, a stop signal interrupts a blocking read of the main thread whenever it is received.

    CPython runs signal handlers between two bytecodes and after a system call that fails with EINTR. A signal that is
    received after the last of these checks and before the system call would be handled only when the read returns. So
    a thread interrupts the system call again, by SIGURG, which has no other effect, until the block is left.
    """
    if sys.platform == "win32":  # no signals to single threads
        yield
        return
    is_left = threading.Event()
    main_thread = threading.get_ident()

    def interrupt(_number: int) -> None:
        while not is_left.wait(_WAKE_INTERVAL):
            signal.pthread_kill(main_thread, signal.SIGURG)

    signal.signal(signal.SIGURG, _ignore_signal)  # its default action does not interrupt system calls
    with _watch_stop_signals(interrupt):
        try:
            yield
        finally:
            is_left.set()


def _ignore_signal(_signal_number: int, _frame: FrameType | None) -> None:
    pass


def exit_immediately(status: int, message: str = "", terminal: int = 2) -> NoReturn:
    """Exits the process without unwinding the main thread, and restores the terminal's cursor.

    Args:
        status: exit status.
        message: a line for standard error.
        terminal: descriptor of standard error or a duplicate of it, for when native output is silenced.
    """
    try:
        show_cursor = _SHOW_CURSOR if os.isatty(terminal) else b""  # a progress display may have hidden it
        os.write(terminal, show_cursor + message.encode(errors="backslashreplace"))
    finally:
        os._exit(status)


@contextmanager
def _watch_stop_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Within the block, calls `handle` with the number of each stop signal, at once, in a thread.

    The interpreter writes the number of each signal to its wake-up socket, also while the main thread is blocked.
    """
    receiver, sender = socket.socketpair()

    def watch() -> None:
        with receiver:
            while numbers := receiver.recv(1):
                if numbers[0] in _STOP_SIGNALS:
                    handle(numbers[0])

    sender.setblocking(False)
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        sender.close()  # ends the thread
