"""Standard output for the product, standard error for everything else, and what to do when either fails.

Standard output is always UTF-8 with line ends as they are: a text that was read as UTF-8 is written as UTF-8,
whatever the locale says.
"""

import contextlib
import errno
import io
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from quickfox.errors import StorageError

FLUSH_INTERVAL = 0.02  # seconds; shorter than a screen's frame or two, and few enough system calls


class ClosedPipeError(Exception):
    """Whoever read our standard output has left, as `head` does: time to end, quietly."""


class ProductStream(io.TextIOWrapper):
    """Standard output whose failures are ours to report: raises ClosedPipeError and StorageError."""

    def write(self, text: str, /) -> int:
        with _output_failures():
            return super().write(text)

    def flush(self) -> None:
        with _output_failures():
            super().flush()


@contextlib.contextmanager
def _output_failures() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ClosedPipeError from None
    except OSError as error:
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or error
        raise StorageError(f"cannot write to standard output: {reason}") from error


def replace_closed_streams() -> None:
    """Opens the null device for each standard stream that the program was started without; to be called first of all.

    Else the first file that we open would take its number, and get what native libraries print. Standard output is
    opened for reading, so that writing to it fails: what is asked for must not be lost without a word.
    """
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
            continue
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free, which is this one
        if descriptor == 1:
            sys.stdout = open(descriptor, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for all of the program
        elif descriptor == 2:
            sys.stderr = open(descriptor, "w", encoding="utf-8")  # noqa: SIM115, PTH123


def install_product_stream() -> None:
    """Makes `sys.stdout` a ProductStream; from here on whatever prints to it, help texts too, fails in our way."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        buffer = sys.stdout.detach()
        if isinstance(buffer, io.RawIOBase):  # PYTHONUNBUFFERED; a raw file may write a part and leave the rest to us
            buffer = io.BufferedWriter(buffer)
        sys.stdout = ProductStream(buffer, encoding="utf-8", newline="")


def flush_standard_output() -> None:
    """Writes out what standard output still holds.

    Raises:
        ClosedPipeError, StorageError: that failed. What was held is dropped, so that the interpreter will not try
            again on its way out.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (ClosedPipeError, StorageError):
        _abandon(sys.stdout)
        raise


def write_product(text: str) -> None:
    """Writes a part of the product to standard output, where it may wait for the parts that follow.

    Raises:
        ClosedPipeError: nobody reads it any more.
        StorageError: writing failed, or the program was started without a standard output.
    """
    if sys.stdout is None:
        raise StorageError("cannot write to standard output: it is closed")
    sys.stdout.write(text)


def stream_product(pieces: Iterable[str]) -> None:
    """Writes pieces of the product as they come, for somebody who watches.

    Raises:
        ClosedPipeError, StorageError: as `write_product`.
    """
    flushed = -math.inf
    for piece in filter(None, pieces):  # an empty one shows nothing, and must not use up the first flush
        write_product(piece)
        if time.monotonic() - flushed >= FLUSH_INTERVAL:
            sys.stdout.flush()
            flushed = time.monotonic()


def can_show_progress() -> bool:
    """Whether standard error is a terminal on which something can move."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def notify(message: str) -> None:
    """Tells the user something, a line for each line of the message, on standard error."""
    for line in message.splitlines():
        write_stderr(f"{printable(line)}\n")


def write_stderr(text: str) -> None:
    """Writes text that is fit to be shown, of any number of lines, to standard error."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        # Nowhere is left to tell that nothing can be told; the product matters more and goes on.
        _abandon(sys.stderr)


def program_name() -> str:
    """The name that the user called us by; `llm` where it is not one of ours, as in tests."""
    name = Path(sys.argv[0]).stem
    return name if name in ("llm", "quickfox") else "llm"


def failure_line(message: str) -> str:
    """What is said of a failure: one line, whatever is in the message."""
    return f"{program_name()}: {printable(message)}\n"


def printable(text: str) -> str:
    """The text with every character that a terminal might act upon, line ends too, shown as its escape."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _abandon(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
