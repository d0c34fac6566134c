"""Standard output for results, standard error for messages, and the handling of failures of either.

Standard output is always UTF-8 without translation of line ends, whatever the locale is.
"""

import contextlib
import errno
import io
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TextIO

from quickfox.cli import COMMANDS
from quickfox.errors import QuickfoxError, StorageError

FLUSH_INTERVAL = 0.02  # seconds: about one frame of a display, and far fewer system calls than one per token


class ClosedPipeError(Exception):
    """The reader of standard output has closed the pipe, as `head` does; the program exits without a message."""


class OutputStream(io.TextIOWrapper):
    """Standard output in UTF-8 that reports failures as ClosedPipeError and StorageError.

    A byte of a file's name that is not UTF-8 is written as `\\udc80` or the like, also valid in JSON.
    """

    def __init__(self, buffer: "IO[bytes]") -> None:
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", newline="")

    def write(self, text: str, /) -> int:
        with _translate_output_errors():
            return super().write(text)

    def flush(self) -> None:
        with _translate_output_errors():
            super().flush()


@contextlib.contextmanager
def _translate_output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ClosedPipeError from None
    except OSError as error:
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or error
        raise StorageError(f"cannot write to standard output: {reason}") from error


def replace_closed_streams() -> None:
    """Opens the null device for each standard stream that is closed; must be called before any file is opened.

    Otherwise the first opened file would get the descriptor of that stream, and native libraries would print into it.
    Standard output is opened read-only, so that writing to it fails instead of losing the result silently.
    """
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
            continue
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number, which is this one
        if descriptor == 1:
            sys.stdout = open(descriptor, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open until the program ends
        elif descriptor == 2:
            sys.stderr = open(descriptor, "w", encoding="utf-8")  # noqa: SIM115, PTH123


def install_output_stream() -> None:
    """Replaces `sys.stdout` by a OutputStream, so that failures of any output, help texts too, are reported."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        buffer = sys.stdout.detach()
        if isinstance(buffer, io.RawIOBase):  # with PYTHONUNBUFFERED; a raw file may write only a part of its argument
            buffer = io.BufferedWriter(buffer)
        sys.stdout = OutputStream(buffer)


def flush_standard_output() -> None:
    """Flushes standard output; if that fails, the buffered text is discarded, or the interpreter would try again."""
    try:
        sys.stdout.flush()
    except (ClosedPipeError, StorageError):
        _redirect_to_null(sys.stdout)
        raise


def write_output(text: str) -> None:
    """Writes a part of the result to standard output, buffered; raises ClosedPipeError or StorageError."""
    sys.stdout.write(text)


def stream_output(texts: Iterable[str]) -> None:
    """Writes texts to standard output as they are produced, flushed every FLUSH_INTERVAL; raises as `write_output`."""
    flushed = -math.inf
    for text in filter(None, texts):  # an empty text must not use up the first flush
        write_output(text)
        if time.monotonic() - flushed >= FLUSH_INTERVAL:
            sys.stdout.flush()
            flushed = time.monotonic()
    sys.stdout.flush()  # who reads them may wait for the last before it writes the next input


def can_show_progress() -> bool:
    """Whether standard error is a terminal that can redraw lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def notify(message: str) -> None:
    """Writes a message of one or more lines to standard error, with control characters escaped."""
    for line in message.splitlines():
        write_stderr(f"{escape_unprintable(line)}\n")


def write_stderr(text: str) -> None:
    """Writes text to standard error unchanged; a failure is ignored, because it cannot be reported anywhere."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _redirect_to_null(sys.stderr)


def program_name() -> str:
    """The name of the command as the user typed it; `llm` if it is neither `llm` nor `quickfox`, as in tests."""
    name = Path(sys.argv[0]).stem
    return name if name in ("llm", "quickfox") else "llm"


def format_error(error: QuickfoxError, prefix: str = "--") -> str:
    """The message of an error with options, or with `/` commands of the prompt loop, in place of its settings.

    A name without an underscore, such as `budget`, is a setting where it occurs first, and afterwards a word.
    """
    message = re.sub(rf"\bllm (?=({'|'.join(COMMANDS)})\b)", f"{program_name()} ", str(error))
    for name in error.settings:
        count = 0 if "_" in name else 1
        message = re.sub(rf"(?<![\w-]){name}\b", f"{prefix}{name.replace('_', '-')}", message, count=count)
    return message


def format_failure(message: str) -> str:
    """The error message of the program: a single line that starts with the program's name."""
    return f"{program_name()}: {escape_unprintable(message)}\n"


def escape_unprintable(text: str) -> str:
    """The text with every unprintable character, line ends included, replaced by its escape sequence."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _redirect_to_null(stream: TextIO) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
