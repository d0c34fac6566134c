"""Lines that a person types, edited and remembered by readline, or that a program pipes to us.

Prompts and what is typed stay at the terminal; of standard output they leave no trace.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from quickfox.cli.signals import Stopped
from quickfox.cli.streams import notify, write_stderr
from quickfox.errors import DataError, StorageError
from quickfox.files.errors import translate_read_errors

MAX_HISTORY_LINES = 1000
CONTINUATION = "\\"
CONTINUATION_PROMPT = "... "


class Lines(Protocol):
    """Where lines come from."""

    is_terminal: bool
    """Whether a person types them."""

    def read(self, prompt: str) -> str | None:
        """The next line, without its end; None: there is none.

        Raises:
            DataError: the line is not UTF-8; the next one may be.
            StorageError: reading failed.
        """


@contextmanager
def open_lines() -> Iterator[Lines]:
    """The lines of standard input; within the block readline remembers what is typed, and at its end writes it down."""
    if sys.stdin is None:
        raise StorageError("cannot read standard input: it is closed")
    if sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty()):
        with _history():
            yield TypedLines()
    else:
        yield PipedLines()


def read_joined(lines: Lines, prompt: str) -> str | None:
    """The next line, with the one that follows if it ends in a backslash, and so on; line ends stand between them."""
    line = lines.read(prompt)
    while line is not None and line.endswith(CONTINUATION):
        line = f"{line.removesuffix(CONTINUATION)}\n{lines.read(CONTINUATION_PROMPT) or ''}"
    return line


class TypedLines:
    """Lines from a terminal, where Ctrl-D ends them."""

    is_terminal = True

    def read(self, prompt: str) -> str | None:
        try:
            with _standard_output_at_terminal():
                return input(prompt)
        except EOFError:
            write_stderr("\n")
            return None
        except Stopped:
            write_stderr("\n")
            raise
        except UnicodeDecodeError:
            raise DataError(f"what was typed is not {sys.stdin.encoding}") from None


class PipedLines:
    """Lines from a pipe or a file, each as soon as it is there."""

    is_terminal = False

    def __init__(self) -> None:
        self._number = 0

    def read(self, prompt: str) -> str | None:
        with translate_read_errors("standard input"):
            line = sys.stdin.buffer.readline()
        self._number += 1
        try:
            return line.decode().removesuffix("\n").removesuffix("\r") if line else None
        except UnicodeDecodeError:
            raise DataError(f"standard input line {self._number}: not UTF-8") from None


@contextmanager
def _standard_output_at_terminal() -> Iterator[None]:
    """Within the block what is written to standard output goes to the terminal, which may be that of standard error.

    `input` writes its prompt to standard output, and edits lines only if that is a terminal.
    """
    sys.stdout.flush()
    if sys.stdout.isatty():
        yield
        return
    descriptor = sys.stdout.fileno()
    product = os.dup(descriptor)
    os.dup2(sys.stderr.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(product, descriptor)
        os.close(product)


@contextmanager
def _history() -> Iterator[None]:
    """Within the block lines can be edited, and those of earlier sessions called back; without readline neither."""
    try:
        import readline  # importing it is what makes `input` use it
    except ImportError:
        yield
        return
    readline.set_history_length(MAX_HISTORY_LINES)
    is_kept = _told_if_it_fails(lambda: _read_history(readline.read_history_file))
    try:
        yield
    finally:
        if is_kept:  # what could not be read must not be written over
            _told_if_it_fails(lambda: readline.write_history_file(history_path()))


def history_path() -> Path:
    """Where lines are remembered, by the XDG Base Directory Specification: a relative $XDG_STATE_HOME is not valid."""
    state_home = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state_home.is_absolute():
        state_home = Path.home() / ".local" / "state"
    return state_home / "quickfox" / "history"


def _read_history(read: Callable[[Path], None]) -> None:
    path = history_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        read(path)


def _told_if_it_fails(keep: Callable[[], None]) -> bool:
    """Whether the history could be kept; if not, a notice says so: no text depends on it."""
    try:
        keep()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        notify(f"lines are not remembered: {error}")
        return False
    return True
