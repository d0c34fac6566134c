"""What can go wrong that is not a bug, each kind with the exit status it ends the program with.

Errors are raised where the cause is known, worded for the person at the keyboard in one line (what, with the
value; where; what to do), and caught once, at the command line's boundary. The statuses are those of
BSD's sysexits.h where one fits.
"""

from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit statuses of the command `llm`."""

    SUCCESS = 0
    FAILURE = 1  # an internal failure, or training diverged
    USAGE = 2
    BAD_DATA = 65  # there, but wrong: data, model, vocabulary
    NO_INPUT = 66  # nothing there, or no text in it
    UNAVAILABLE = 69  # a needed part is missing, such as TensorFlow
    CANNOT_CREATE = 73
    IO_ERROR = 74
    TEMPORARY = 75  # a lock is held, or a peer was lost: try again, or resume
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


class QuickfoxError(Exception):
    """An expected failure; `str(error)` is one line for the user."""

    exit_status = ExitStatus.FAILURE


class DivergedError(QuickfoxError):
    """The training loss became NaN or infinite."""


class UsageError(QuickfoxError, ValueError):
    """A setting, option or argument has a value that cannot be used.

    Args:
        message: one line for the user, which names settings as Python does: `hidden_dim`.
        settings: the settings that it names; the command line shows each as its option, `--hidden-dim`.
    """

    exit_status = ExitStatus.USAGE

    def __init__(self, message: str, *settings: str) -> None:
        super().__init__(message)
        self.settings = settings


class DataError(QuickfoxError):
    """A file is there but is not what it should be."""

    exit_status = ExitStatus.BAD_DATA


class NoInputError(QuickfoxError):
    """A file, model or text that is needed is not there, or is empty."""

    exit_status = ExitStatus.NO_INPUT


class UnavailableError(QuickfoxError):
    """A part of the installation that is needed is missing."""

    exit_status = ExitStatus.UNAVAILABLE


class CannotCreateError(QuickfoxError):
    """An output cannot be created where it was asked for."""

    exit_status = ExitStatus.CANNOT_CREATE


class StorageError(QuickfoxError):
    """Reading or writing failed in the operating system: a full disk, a device error."""

    exit_status = ExitStatus.IO_ERROR


class BusyError(QuickfoxError):
    """Another process holds what is needed; trying again later can help."""

    exit_status = ExitStatus.TEMPORARY


class PeerLostError(QuickfoxError):
    """Another worker of the cluster ended or hung; the run can be resumed."""

    exit_status = ExitStatus.TEMPORARY
