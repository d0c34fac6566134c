"""Expected failures, each with its exit status.

Errors are raised where the cause is known, with a message of one line for the user (what, with the value; where; what
to do), and caught once, in `cli/app.py`. The exit statuses are those of BSD's sysexits.h where one fits.
"""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of the command `llm`."""

    SUCCESS = 0
    FAILURE = 1  # an internal failure, or training diverged
    USAGE = 2
    BAD_DATA = 65  # invalid data, model or vocabulary
    NO_INPUT = 66  # file or model not found, or no text in it
    UNAVAILABLE = 69  # a dependency such as TensorFlow is missing
    CANNOT_CREATE = 73
    IO_ERROR = 74
    TEMPORARY = 75  # a lock is held, or a worker was lost: try again, or resume
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


class QuickfoxError(Exception):
    """Base class of all expected failures.

    Args:
        message: one line for the user that names settings as in Python: `hidden_dim`.
        settings: the names of these settings; the command line shows them as options, `--hidden-dim`.
    """

    exit_status = ExitStatus.FAILURE

    def __init__(self, message: str, *settings: str) -> None:
        super().__init__(message)
        self.settings = settings


class DivergedError(QuickfoxError):
    """The training loss became NaN or infinite."""


class UsageError(QuickfoxError, ValueError):
    """An invalid value of a setting, option or argument."""

    exit_status = ExitStatus.USAGE


class DataError(QuickfoxError):
    """A file has invalid content."""

    exit_status = ExitStatus.BAD_DATA


class NewerFormatError(DataError):
    """A file was written by another version of the program, which this one cannot read; it is not damaged."""


class NoInputError(QuickfoxError):
    """A file, model or text is missing or empty."""

    exit_status = ExitStatus.NO_INPUT


class UnavailableError(QuickfoxError):
    """A dependency is not installed."""

    exit_status = ExitStatus.UNAVAILABLE


class CannotCreateError(QuickfoxError):
    """An output file or directory cannot be created."""

    exit_status = ExitStatus.CANNOT_CREATE


class StorageError(QuickfoxError):
    """Reading or writing failed, as on a full disk or a device error."""

    exit_status = ExitStatus.IO_ERROR


class BusyError(QuickfoxError):
    """Another process holds a lock; try again later."""

    exit_status = ExitStatus.TEMPORARY


class PeerLostError(QuickfoxError):
    """Another worker of the cluster ended or does not respond; the run can be resumed."""

    exit_status = ExitStatus.TEMPORARY
