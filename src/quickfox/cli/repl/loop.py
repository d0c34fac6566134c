"""The prompt loop of `llm generate --interactive`: continues each line and changes settings between lines.

Prompts and messages appear on the terminal; standard output receives the generated texts only.
"""

import dataclasses
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from quickfox.cli.generation_output import SampleFormatter
from quickfox.cli.repl.line_reader import open_line_reader, read_continued_line
from quickfox.cli.repl.settings import SETTINGS, change_setting, format_setting
from quickfox.cli.signals import Stopped, allow_slow_stop, resume_after_stop
from quickfox.cli.streams import format_error, notify, stream_output, write_output
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import MAX_INTEGER
from quickfox.errors import DataError, ExitStatus, UsageError
from quickfox.generation.prompt import Prompt, Unknown
from quickfox.model import Model

PROMPT = "> "
COMMANDS = ("settings", "reset", "help", "quit")

HELP = r"""Each line is a prompt, which the model continues. An empty line continues the current text.
A line that ends in \ is continued on the next line. Ctrl-C stops the text, Ctrl-D ends the program.

//TEXT              a prompt that begins with a slash
/temperature 0.7    change a setting, named like the option; without a value: show it; none: switch it off
/stop "\n"          add a stop string, plain or quoted as in JSON; likewise /logit-bias "e"=-2
/settings           show all settings
/reset              clear the current text
/help, /quit

The random seed increases by one with each text: /random-seed shows that of the next text, and /random-seed N
repeats the text generated with N. Of several samples, the last becomes the current text."""


def run_prompt_loop(
    model: Model, config: SamplingConfig, formatter: SampleFormatter, unknown: Unknown, *, seed: str | None, echo: bool
) -> None:
    """Continues lines of standard input until its end.

    Args:
        model: the model.
        config: the initial settings.
        formatter: formats the texts of `model`, without the prompts.
        unknown: what to do with characters that the model does not know.
        seed: the first prompt; None: the first line.
        echo: whether the output includes the prompts.

    Raises:
        ClosedPipeError, StorageError: standard output or input fails.
        Stopped: SIGTERM, or SIGINT without a terminal.
    """
    session = PromptSession(model, config, formatter, unknown, echo)
    with open_line_reader() as reader:
        if reader.is_terminal:
            allow_slow_stop(signal.SIGINT)  # stops the text, not the program
        if seed is not None:
            with _report_errors(reader.is_terminal):
                session.start_text(seed)
        while session.is_open:
            with _report_errors(reader.is_terminal):
                session.handle_line(read_continued_line(reader, PROMPT))


@contextmanager
def _report_errors(is_terminal: bool) -> Iterator[None]:
    """Reports an error in a line; at a terminal, SIGINT ends the block only."""
    try:
        yield
    except (DataError, UsageError) as error:
        notify(format_error(error, "/"))
    except Stopped as stopped:
        if not is_terminal or stopped.exit_status != ExitStatus.INTERRUPTED:
            raise
        resume_after_stop()


@dataclass
class PromptSession:
    """The settings and the current text, which persist between lines; for its fields see `run_prompt_loop`."""

    model: Model
    config: SamplingConfig
    formatter: SampleFormatter
    unknown: Unknown
    echo: bool
    is_open: bool = True

    def __post_init__(self) -> None:
        self._text = self.model.read_prompt("")

    def handle_line(self, line: str | None) -> None:
        """Runs a command or continues a prompt; None, the end of the input, ends the session.

        Raises:
            UsageError, DataError: the line is invalid.
        """
        if line is None:
            self.is_open = False
        elif line.startswith("/") and not line.startswith("//"):
            name, _, value = line.removeprefix("/").partition(" ")
            self._run_command(name, value)
        elif line:
            self.start_text(line.removeprefix("/"))
        else:
            self._generate(self._text, "")

    def start_text(self, seed: str) -> None:
        """Continues a new prompt."""
        prompt = self.model.read_prompt(seed, self.unknown)
        if prompt.warning:
            notify(f"warning: {prompt.warning}")
        self._generate(prompt, prompt.text if self.echo else "")

    def _generate(self, prompt: Prompt, head: str) -> None:
        """Writes `head` and the continuation of a prompt; both, also when stopped, become the current text."""
        config = self.config
        self.config = dataclasses.replace(config, random_seed=(config.random_seed + 1) % (MAX_INTEGER + 1))
        try:
            stream_output(_prepend(head, self.formatter.format_samples(prompt, config)))
        except Stopped:
            write_output("\n")
            raise
        finally:
            text = "".join(self.formatter.token_texts)
            token_ids = self.model.bundle.tokenizer.encode(text, Counter()).tolist()
            self._text = Prompt(prompt.text + text, [*prompt.token_ids, *token_ids], Counter(), Counter())
            sys.stdout.flush()

    def _run_command(self, name: str, value: str) -> None:
        if name in SETTINGS and value:
            self.config = change_setting(self.config, name, value)
        elif name in SETTINGS:
            notify(format_setting(self.config, name))
        elif name not in COMMANDS:
            raise UsageError(f"unknown command /{name}: see /help; to use it as a prompt, type //{name}")
        elif value.strip():
            raise UsageError(f"/{name} takes no value")
        elif name == "settings":
            notify("\n".join(format_setting(self.config, setting) for setting in SETTINGS))
        elif name == "reset":
            self._text = self.model.read_prompt("")
        elif name == "help":
            notify(HELP)
        else:
            self.is_open = False


def _prepend(head: str, texts: Iterable[str]) -> Iterator[str]:
    """Writes `head` with the first text, so that it is not written if generation fails at the start."""
    for text in texts:
        yield head + text
        head = ""
