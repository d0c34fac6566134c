"""Reads lines for the prompt loop: from a terminal, with editing and history, or from a pipe or file.

Prompts and typed lines appear on the terminal only, never in redirected standard output.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quickfox.cli.signals import Stopped, interrupt_blocking_read
from quickfox.cli.streams import notify, write_stderr
from quickfox.errors import DataError, StorageError
from quickfox.files.errors import translate_read_errors

MAX_HISTORY_LINES = 1000
CONTINUATION = "\\"
CONTINUATION_PROMPT = "... "


@contextmanager
def open_line_reader() -> Iterator["TerminalReader | PipeReader"]:
    """A reader of standard input; on a terminal it loads the history, and saves it when the block is left.

    `read_line` gives the next line without its line end, or None at the end of the input; its argument is shown on a
    terminal. It raises DataError if the line is not UTF-8, and reading can continue; StorageError if reading failed;
    and Stopped at any moment a stop signal is received.
    """
    if sys.stdin is None:
        raise StorageError("cannot read standard input: it is closed")
    if sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty()):
        with _history():
            yield TerminalReader()
    else:
        yield PipeReader()


def read_continued_line(reader: "TerminalReader | PipeReader", prompt: str) -> str | None:
    """The next line; as long as it ends in a backslash, the backslash is replaced by a newline and another line."""
    line = reader.read_line(prompt)
    while line is not None and line.endswith(CONTINUATION):
        line = f"{line.removesuffix(CONTINUATION)}\n{reader.read_line(CONTINUATION_PROMPT) or ''}"
    return line


class TerminalReader:
    """Lines typed at a terminal; Ctrl-D ends the input."""

    is_terminal = True

    def read_line(self, prompt: str) -> str | None:
        try:
            with _standard_output_at_terminal(), interrupt_blocking_read():
                return input(prompt)
        except EOFError:
            write_stderr("\n")
            return None
        except Stopped:
            write_stderr("\n")
            raise
        except UnicodeDecodeError:
            raise DataError(f"the line is not valid {sys.stdin.encoding}") from None


class PipeReader:
    """Lines of a pipe or file, each as soon as it is complete."""

    is_terminal = False

    def __init__(self) -> None:
        self._number = 0

    def read_line(self, prompt: str) -> str | None:
        del prompt
        with translate_read_errors("standard input"), interrupt_blocking_read():
            line = sys.stdin.buffer.readline()
        self._number += 1
        try:
            return line.decode().removesuffix("\n").removesuffix("\r") if line else None
        except UnicodeDecodeError:
            raise DataError(f"standard input line {self._number}: not UTF-8") from None


@contextmanager
def _standard_output_at_terminal() -> Iterator[None]:
    """Within the block, standard output is a terminal, that of standard error if it is redirected.

    `input` writes its prompt to standard output, and uses readline only if that is a terminal.
    """
    sys.stdout.flush()
    if sys.stdout.isatty():
        yield
        return
    descriptor = sys.stdout.fileno()
    redirected = os.dup(descriptor)
    os.dup2(sys.stderr.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(redirected, descriptor)
        os.close(redirected)


@contextmanager
def _history() -> Iterator[None]:
    """Loads the history of lines, and saves it when the block is left; does nothing without readline."""
    try:
        import readline  # also makes `input` use readline
    except ImportError:
        yield
        return
    readline.set_history_length(MAX_HISTORY_LINES)
    is_loaded = False
    with _warn_of_history():
        path = _history_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            readline.read_history_file(path)
        is_loaded = True
    try:
        yield
    finally:
        if is_loaded:  # otherwise saving would overwrite a history that could not be read
            with _warn_of_history():
                readline.write_history_file(path)


def _history_path() -> Path:
    """The history file, by the XDG Base Directory Specification, which declares a relative $XDG_STATE_HOME invalid."""
    state_home = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state_home.is_absolute():
        state_home = Path.home() / ".local" / "state"
    return state_home / "quickfox" / "history"


@contextmanager
def _warn_of_history() -> Iterator[None]:
    """Shows a warning if the block, which reads or writes the history, fails."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        notify(f"warning: the history of lines is not available: {error}")
