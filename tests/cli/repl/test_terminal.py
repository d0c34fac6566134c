"""`llm generate --interactive` at a pseudo-terminal: Ctrl-C, signals, history, redirected output."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import quickfox
from quickfox.model import Model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals and signals of POSIX")

TIMEOUT = 60  # seconds
CTRL_C, CTRL_D, CTRL_P = "\x03", "\x04", "\x10"

BLOCKED_READ = """
import signal, threading
from quickfox.cli.repl.line_reader import open_line_reader
from quickfox.cli.signals import Stopped, StopSignals

threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])  # only the other thread receives signals
try:
    with StopSignals(), open_line_reader() as reader:
        print("ready", flush=True)
        reader.read_line("> ")
except Stopped as stopped:
    raise SystemExit(stopped.exit_status)
"""


class Terminal:
    """A command at a pseudo-terminal that controls it, as a terminal window does.

    Args:
        command: the command.
        environment: its environment variables.
        redirects_output: whether its standard output is a pipe instead of the terminal.
    """

    def __init__(self, command: list[str], environment: dict[str, str], *, redirects_output: bool = False) -> None:
        import fcntl
        import pty
        import termios

        self.output = b""
        self._screen, terminal = pty.openpty()
        self._shown = b""
        self._files = {self._screen}
        self._pipe, stdout = os.pipe() if redirects_output else (None, terminal)
        if self._pipe is not None:
            self._files.add(self._pipe)
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=terminal,
            stdout=stdout,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        for descriptor in {terminal, stdout}:
            os.close(descriptor)

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def read_until(self, text: str) -> str:
        """What the terminal shows up to and including the next occurrence of `text`."""
        wanted = text.encode()
        while wanted not in self._shown:
            assert self._read(), f"waited for {text!r} after {self._shown!r}"
        end = self._shown.index(wanted) + len(wanted)
        shown, self._shown = self._shown[:end], self._shown[end:]
        return shown.decode()

    def read_output(self, size: int) -> None:
        """Waits until at least `size` bytes have been written to redirected standard output."""
        while len(self.output) < size:
            assert self._read(), f"waited for {size} bytes after {self.output!r}"

    def wait(self) -> int:
        """Reads everything that is written and returns the exit status."""
        while self._files:
            assert self._read(), f"waited for the end after {self._shown!r}"
        return self._process.wait(timeout=TIMEOUT)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(timeout=TIMEOUT)
        for descriptor in filter(None, (self._screen, self._pipe)):
            os.close(descriptor)

    def _read(self) -> bool:
        """Reads what is available; false if nothing is within TIMEOUT."""
        ready = select.select(list(self._files), [], [], TIMEOUT)[0]
        for descriptor in ready:
            data = b""
            with contextlib.suppress(OSError):  # Linux reports the end of a pseudo-terminal as an error
                data = os.read(descriptor, 2**16)
            if not data:
                self._files.remove(descriptor)
            elif descriptor == self._pipe:
                self.output += data
            else:
                self._shown = (self._shown + data).replace(b"\r\n", b"\n")
        return bool(ready)


@pytest.fixture
def terminal(program, environment, model_directory: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts the prompt loop, or another command, at a terminal."""
    environment = {**environment, "XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "dumb"}
    loop = [*program, "generate", "--interactive", "--model", str(model_directory), "--random-seed", "1"]
    loop += ["--length", "8"]
    with contextlib.ExitStack() as stack:

        def start(command: list[str] = loop, *, redirects_output: bool = False, **variables: str) -> Terminal:
            terminal = Terminal(command, environment | variables, redirects_output=redirects_output)
            stack.callback(terminal.close)
            return terminal

        yield start


@pytest.fixture(scope="module")
def model(model_directory: Path) -> Model:
    return quickfox.load(model_directory)


@pytest.fixture
def without_readline(tmp_path: Path) -> dict[str, str]:
    """Environment variables with which `import readline` fails."""
    folder = tmp_path / "without_readline"
    folder.mkdir()
    (folder / "readline.py").write_text("raise ImportError('not on this platform')")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(quickfox.__file__).parents[1])])}


def start_endless_text(window: Terminal) -> None:
    window.read_until("> ")
    window.type("/length 1000000000\n")
    window.read_until("\n> ")
    window.type("fox\n")


def test_ctrl_c_stops_the_text_and_not_the_program(terminal) -> None:
    window = terminal()
    start_endless_text(window)
    window.read_until("fox\nfox")
    window.type(CTRL_C)
    window.read_until("\n> ")
    window.type("half a line" + CTRL_C)
    window.read_until("\n> ")
    window.type("/length 0\n")
    window.read_until("\n> ")
    window.type("dog\n")
    assert window.read_until("> ") == "dog\ndog\n> "
    window.type(CTRL_D)
    assert window.wait() == 0


def test_a_stopped_text_becomes_the_current_text(terminal, model) -> None:
    window = terminal(redirects_output=True)
    start_endless_text(window)
    window.read_output(20)
    window.type(CTRL_C)
    window.read_until("> ")
    window.type("/length 40\n")
    window.read_until("\n> ")
    window.type("\n")
    window.read_until("\n> ")
    window.type(CTRL_D)
    assert window.wait() == 0
    output = window.output.decode()
    stopped, rest = output[:-42], output[-42:]
    whole = model.generate("fox", length=len(stopped), random_seed=1)
    assert whole.startswith(stopped)
    # A signal between the generation of a token and its output leaves the text one token longer than the output.
    texts = whole[: len(stopped)], whole[: len(stopped) + 1]
    assert rest in [f"\n{model.generate(text, length=40, random_seed=2, echo=False)}\n" for text in texts]


def test_sigterm_ends_the_program_while_it_generates(terminal) -> None:
    window = terminal()
    start_endless_text(window)
    window.read_until("fox\nfox")
    window.send_signal(signal.SIGTERM)
    assert window.wait() == 143


def test_sigterm_ends_the_program_at_the_prompt(terminal) -> None:
    window = terminal()
    window.read_until("> ")
    window.send_signal(signal.SIGTERM)
    assert window.wait() == 143


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("has_readline", [True, False])
def test_a_signal_ends_a_read_that_it_does_not_interrupt(
    terminal, without_readline, number: signal.Signals, has_readline: bool
) -> None:
    """As if the signal had arrived after the last check for signals and before the system call."""
    window = terminal([sys.executable, "-c", BLOCKED_READ], **({} if has_readline else without_readline))
    window.read_until("> ")
    window.send_signal(number)
    assert window.wait() == 128 + number


def test_a_signal_ends_a_read_from_a_pipe_that_it_does_not_interrupt() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKED_READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=TIMEOUT) == 143
        finally:
            process.kill()


def test_lines_are_edited_and_kept_in_a_history(terminal, model, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    window = terminal()
    window.read_until("> ")
    window.type("fix\b\x7fox\n")
    window.read_until("\n")
    first = model.generate("fox", length=8, random_seed=1)
    assert window.read_until("\n> ") == f"{first}\n> "
    window.type(CTRL_D)
    assert window.wait() == 0
    assert (tmp_path / "state" / "quickfox" / "history").read_text().endswith("fox\n")
    window = terminal()
    window.read_until("> ")
    window.type(f"{CTRL_P}\n")
    window.read_until("\n")
    assert window.read_until("\n> ") == f"{first}\n> "


def test_a_history_that_cannot_be_saved_is_reported_once(terminal, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    (tmp_path / "state").write_text("not a folder")
    window = terminal()
    assert window.read_until("> ").count("the history of lines is not available") == 1
    window.type(CTRL_D)
    assert window.wait() == 0
    assert window.read_until("\n") == "\n"


def test_redirected_standard_output_receives_the_texts_only(terminal, model) -> None:
    window = terminal(redirects_output=True)
    window.read_until("> ")
    window.type("dog\n")
    window.read_until("dog\n> ")
    window.type(f"{CTRL_P}\n")
    window.read_until("dog\n> ")
    window.type(CTRL_D)
    assert window.wait() == 0
    texts = (model.generate("dog", length=8, random_seed=random_seed) for random_seed in (1, 2))
    assert window.output.decode() == "".join(f"{text}\n" for text in texts)


def test_the_loop_works_without_readline(terminal, without_readline, model, tmp_path: Path) -> None:
    window = terminal(**without_readline)
    window.read_until("> ")
    window.type("fox\n")
    window.read_until("fox\n")
    assert window.read_until("\n> ") == model.generate("fox", length=8, random_seed=1) + "\n> "
    assert not (tmp_path / "state").exists()
