"""Stop signals: SIGINT, SIGTERM and SIGHUP end every command, with exit status 130, 143 or 129.

The first signal raises Stopped in the main thread, so that `finally` clauses run. But a Python signal handler waits
until a call into native code returns, such as TensorFlow's compiler, and that can take minutes. So a thread reads the
numbers of the signals, which the interpreter writes to its wake-up socket at once. It ends the process if that still
runs STOP_SECONDS after the first signal, or at the second one, and removes what is half written. Where the first
signal is a request that may take longer, as to finish a step and to save the run, only the second ends the process.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

from quickfox.files.atomic import clean_up_now

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_SECONDS = 0.5
"""Time that the main thread has to end the process after a signal, where it has a limit."""

_RESUMED = b"\0"  # at the wake-up socket, where no signal has this number
_SHOW_CURSOR = b"\x1b[?25h"
_CHECK_INTERVAL = 0.1  # seconds

Handler = Callable[[int, FrameType | None], Any] | int | None


class Stopped(BaseException):
    """A stop signal was received.

    Not a KeyboardInterrupt, because it stands for the other signals too; not an Exception, so that only `finally`
    blocks and the error boundary of the command line see it.

    Attributes:
        exit_status: 128 + the signal's number, as a shell reports it.
        message: a line for standard error; empty: none.
    """

    def __init__(self, signal_number: int, message: str = "") -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number
        self.message = message


class StopSignals:
    """The stop signals of the process while one command runs: a context manager of the main thread.

    Native code that Stopped interrupts, such as the start of a library, may raise something else: that counts as
    Stopped too.

    Attributes:
        message: a line for standard error if the command is ended by a signal; empty: none.
        unlimited: the signals after which the main thread may take any time.
    """

    def __init__(self) -> None:
        self.message = ""
        self.unlimited: tuple[int, ...] = ()
        self._raised: int | None = None
        self._replaced: dict[int, Handler] = {}  # the handlers before

    def __enter__(self) -> Self:
        global _current
        self._stderr = os.dup(2)  # TensorFlow's output is silenced by redirecting standard error
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._unraisable_hook, sys.unraisablehook = sys.unraisablehook, self._hide_stopped
        self._wakeup_descriptor = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="quickfox-signals", daemon=True).start()
        _current = self
        self.handle(self._raise_stopped)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        global _current
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        _current = None
        signal.set_wakeup_fd(self._wakeup_descriptor)
        sys.unraisablehook = self._unraisable_hook
        self._sender.close()  # ends the thread
        if self._raised is not None and not isinstance(error, Stopped):
            raise Stopped(self._raised, self.message) from None

    def handle(self, handler: Handler) -> None:
        """Installs a handler of the stop signals; SIGHUP stays ignored if it is, as by nohup."""
        for number in STOP_SIGNALS:
            previous = signal.getsignal(number)
            if number != signal.SIGHUP or previous != signal.SIG_IGN:
                self._replaced.setdefault(number, previous)
                signal.signal(number, handler)

    def resume(self) -> None:
        """Continues as if no signal had been received."""
        self._raised = None
        self._sender.send(_RESUMED)  # after the number of the signal

    def _raise_stopped(self, signal_number: int, _frame: FrameType | None) -> None:
        if self._raised is None:  # a second exception would interrupt the `finally` clauses of the first
            self._raised = signal_number
            raise Stopped(signal_number, self.message)

    def _hide_stopped(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Shows no traceback of Stopped where it is lost, as in a destructor: the thread ends the process then."""
        if not isinstance(unraisable.exc_value, Stopped):
            self._unraisable_hook(unraisable)

    def _watch(self) -> None:
        """The thread: ends the process when the main thread does not, until the other end of the socket is closed."""
        first, deadline = 0, 0.0
        with self._receiver as receiver:
            while True:
                receiver.settimeout(_CHECK_INTERVAL if first else None)
                try:
                    received = receiver.recv(1)
                except TimeoutError:
                    if first not in self.unlimited and time.monotonic() >= deadline:
                        self._exit(first)
                    continue
                if not received:
                    break
                number = received[0]
                if received == _RESUMED:
                    first = 0
                elif number not in self._replaced:
                    continue
                elif not first:
                    first, deadline = number, time.monotonic() + STOP_SECONDS
                elif not first == number == signal.SIGHUP:  # a terminal that closes may send it twice
                    self._exit(number)
        os.close(self._stderr)

    def _exit(self, signal_number: int) -> NoReturn:
        clean_up_now()
        exit_immediately(128 + signal_number, f"{self.message}\n" if self.message else "", self._stderr)


_current: StopSignals | None = None


def set_stop_message(message: str) -> None:
    """Sets the line for standard error that is shown if the command is ended by a signal."""
    if _current:
        _current.message = message


def allow_slow_stop(*signal_numbers: int) -> None:
    """Lets the main thread take any time after one of these signals; only a second signal ends the process."""
    if _current:
        _current.unlimited = signal_numbers


def resume_after_stop() -> None:
    """Continues after a Stopped that was caught: the next signal is a first one again."""
    if _current:
        _current.resume()


class StopRequest:
    """Records a stop signal instead of raising Stopped, so that the current step can be finished and saved."""

    def __init__(self) -> None:
        self._signal_number: int | None = None

    def record_signals(self) -> None:
        """From now on the first stop signal is only recorded, and the second ends the process."""
        if _current:
            _current.unlimited = STOP_SIGNALS
            _current.message = ""
            _current.handle(self._record)

    def _record(self, signal_number: int, _frame: FrameType | None) -> None:
        self._signal_number = self._signal_number or signal_number

    def is_set(self) -> bool:
        """Whether a signal was received."""
        return self._signal_number is not None

    def to_exception(self) -> Stopped:
        """The exception for the recorded signal; for SIGTERM if another worker of the run received the signal."""
        return Stopped(self._signal_number or signal.SIGTERM)


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
