"""The prompt loop of `llm generate --interactive`: continues each line and changes settings between lines.

Prompts and messages appear on the terminal; standard output receives the generated texts only.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from quickfox.cli.generation_output import SampleFormatter
from quickfox.cli.repl.line_reader import open_line_reader, read_continued_line
from quickfox.cli.repl.settings import SETTINGS, change_setting, format_setting
from quickfox.cli.signals import Stopped
from quickfox.cli.streams import notify, stream_product, write_product
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import MAX_INTEGER
from quickfox.errors import DataError, ExitStatus, UsageError
from quickfox.model import Model, Prompt, Unknown

PROMPT = "> "

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
    session = PromptSession(model, config, formatter, unknown, echo=echo)
    with open_line_reader() as reader:
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
    except DataError as error:
        notify(str(error))
    except UsageError as error:
        message = str(error)
        for name in error.settings:
            message = message.replace(name, f"/{name.replace('_', '-')}", 1)
        notify(message)
    except Stopped as stopped:
        if not is_terminal or stopped.exit_status != ExitStatus.INTERRUPTED:
            raise


class PromptSession:
    """The settings and the current text, which persist between lines; for its arguments see `run_prompt_loop`."""

    def __init__(
        self, model: Model, config: SamplingConfig, formatter: SampleFormatter, unknown: Unknown, *, echo: bool
    ) -> None:
        self.is_open = True
        self._model = model
        self._config = config
        self._formatter = formatter
        self._unknown = unknown
        self._echo = echo
        self._text = model.read_prompt("")
        self._commands: dict[str, Callable[[], None]] = {
            "settings": self._show_settings,
            "reset": self._reset,
            "help": lambda: notify(HELP),
            "quit": self._quit,
        }

    def handle_line(self, line: str | None) -> None:
        """Runs a command or continues a prompt; None, the end of the input, ends the session.

        Raises:
            UsageError, DataError: the line is invalid.
        """
        if line is None:
            self._quit()
        elif line.startswith("/") and not line.startswith("//"):
            name, _, value = line.removeprefix("/").partition(" ")
            self._run_command(name, value)
        elif line:
            self.start_text(line.removeprefix("/"))
        else:
            self._generate(self._text, "")

    def start_text(self, seed: str) -> None:
        """Continues a new prompt."""
        prompt = self._model.read_prompt(seed, self._unknown)
        if prompt.warning:
            notify(f"warning: {prompt.warning}")
        self._generate(prompt, prompt.text if self._echo else "")

    def _generate(self, prompt: Prompt, head: str) -> None:
        """Writes `head` and the continuation of a prompt; both, also when stopped, become the current text."""
        config = self._config
        self._config = dataclasses.replace(config, random_seed=(config.random_seed + 1) % (MAX_INTEGER + 1))
        token_texts: list[str] = []
        try:
            stream_product(_prepend(head, self._formatter.format_samples(prompt, config, token_texts=token_texts)))
        except Stopped:
            write_product("\n")
            raise
        finally:
            self._text = self._append(prompt, "".join(token_texts))
            sys.stdout.flush()

    def _append(self, prompt: Prompt, text: str) -> Prompt:
        token_ids = self._model.bundle.tokenizer.encode(text, Counter()).tolist()
        return Prompt(prompt.text + text, [*prompt.token_ids, *token_ids], Counter(), Counter())

    def _run_command(self, name: str, value: str) -> None:
        if name in SETTINGS:
            if value:
                self._config = change_setting(self._config, name, value)
            else:
                notify(format_setting(self._config, name))
        elif name not in self._commands:
            raise UsageError(f"unknown command /{name}: see /help; to use it as a prompt, type //{name}")
        elif value.strip():
            raise UsageError(f"/{name} takes no value")
        else:
            self._commands[name]()

    def _reset(self) -> None:
        self._text = self._model.read_prompt("")

    def _quit(self) -> None:
        self.is_open = False

    def _show_settings(self) -> None:
        for name in SETTINGS:
            notify(format_setting(self._config, name))


def _prepend(head: str, texts: Iterable[str]) -> Iterator[str]:
    """Writes `head` with the first text, so that it is not written if generation fails at the start."""
    for text in texts:
        yield head + text
        head = ""
