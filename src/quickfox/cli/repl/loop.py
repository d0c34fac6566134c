"""`llm generate --interactive`: one prompt after the other, the text drawn live, settings changed in between.

What is typed and told stays at the terminal; standard output gets the texts alone.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from quickfox.cli.generation_output import Presentation
from quickfox.cli.repl.line_reader import open_lines, read_joined
from quickfox.cli.repl.settings import SETTINGS, changed, shown
from quickfox.cli.signals import Stopped
from quickfox.cli.streams import notify, stream_product, write_product
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import MAX_INTEGER
from quickfox.errors import DataError, ExitStatus, UsageError
from quickfox.evaluation.memorization import CopyIndex
from quickfox.generation.stopping import Completion, Token
from quickfox.model import Model, Prompt, Unknown

PROMPT = "> "

HELP = r"""A line is a prompt, which the model continues. An empty line continues the text so far.
A line that ends in \ goes on in the next one. Ctrl-C stops the text, Ctrl-D ends the program.

//TEXT              a prompt that begins with a slash
/temperature 0.7    change a setting, named like the option; without a value, show it; none switches it off
/stop "\n"          one more text to stop at, as typed or quoted as in JSON; /logit-bias "e"=-2 is alike
/settings           show all settings
/reset              forget the text so far
/help, /quit

Each text has the random seed after that of the text before: /random-seed shows the next one's, and
/random-seed N repeats what was drawn with N. Of several samples the last becomes the text so far."""


@dataclass(frozen=True)
class RecordedModel(Model):
    """A model that remembers what it wrote last, as far as it came.

    Attributes:
        written: the tokens' texts; of several samples those of the last.
    """

    written: list[str] = dataclasses.field(default_factory=list)

    def complete(
        self,
        prompt: Prompt,
        config: SamplingConfig,
        *,
        samples: Sequence[int] | None = None,
        copy_index: CopyIndex | None = None,
    ) -> Iterator[Token | Completion]:
        """Continue a prompt, as any model does."""
        self.written.clear()
        has_ended = False
        for event in super().complete(prompt, config, samples=samples, copy_index=copy_index):
            if has_ended:
                self.written.clear()
            has_ended = isinstance(event, Completion)
            if isinstance(event, Token):
                self.written.append(event.text)
            yield event


def run_prompt_loop(
    model: RecordedModel,
    config: SamplingConfig,
    presentation: Presentation,
    unknown: Unknown,
    *,
    seed: str | None,
    echo: bool,
) -> None:
    """Continues what is typed, or piped, line by line, until there is no more.

    Args:
        model: what draws.
        config: the settings to begin with.
        presentation: shows what `model` draws, without the prompts.
        unknown: what to do with characters that the model does not know.
        seed: the first prompt; None: it is asked for.
        echo: whether a prompt is a part of the product.

    Raises:
        ClosedPipeError, StorageError: standard output or input fails.
    """
    conversation = Conversation(model, config, presentation, unknown, echo=echo)
    with open_lines() as lines:
        if seed is not None:
            with _turn(lines.is_terminal):
                conversation.begin(seed)
        while conversation.is_open:
            with _turn(lines.is_terminal):
                conversation.take(read_joined(lines, PROMPT))


@contextmanager
def _turn(is_terminal: bool) -> Iterator[None]:
    """What is wrong with a line is told, and at a terminal Ctrl-C ends the turn only."""
    try:
        yield
    except (UsageError, DataError) as error:
        notify(str(error))
    except Stopped as stopped:
        if not is_terminal or stopped.exit_status != ExitStatus.INTERRUPTED:
            raise


class Conversation:
    """What lasts from line to line: the settings and the text so far.

    For its arguments see `run_prompt_loop`.
    """

    def __init__(
        self,
        model: RecordedModel,
        config: SamplingConfig,
        presentation: Presentation,
        unknown: Unknown,
        *,
        echo: bool,
    ) -> None:
        self.is_open = True
        self._model = model
        self._config = config
        self._presentation = presentation
        self._unknown = unknown
        self._echo = echo
        self._text = model.read_prompt("")
        self._commands: dict[str, Callable[[], None]] = {
            "settings": self._show_settings,
            "reset": self._reset,
            "help": lambda: notify(HELP),
            "quit": self._quit,
        }

    def take(self, line: str | None) -> None:
        """A line that was typed; None: the end.

        Raises:
            UsageError, DataError: it asks for what cannot be done.
        """
        if line is None:
            self._quit()
        elif line.startswith("/") and not line.startswith("//"):
            name, _, value = line.removeprefix("/").partition(" ")
            self._obey(name, value)
        elif line:
            self.begin(line.removeprefix("/"))
        else:
            self._draw(self._text, "")

    def begin(self, seed: str) -> None:
        """A new text."""
        prompt = self._read_prompt(seed)
        self._draw(prompt, self._head(prompt))

    def _draw(self, prompt: Prompt, head: str) -> None:
        config = self._config
        self._config = dataclasses.replace(config, random_seed=(config.random_seed + 1) % (MAX_INTEGER + 1))
        try:
            stream_product(_headed(head, self._presentation.show(prompt, config)))
        except Stopped:
            write_product("\n")
            raise
        finally:
            written = "".join(self._model.written)
            token_ids = self._model.bundle.tokenizer.encode(written, Counter()).tolist()
            self._text = _extended(prompt, written, token_ids)
            sys.stdout.flush()

    def _obey(self, name: str, value: str) -> None:
        if name in SETTINGS:
            if value:
                self._config = changed(self._config, name, value)
            else:
                notify(shown(self._config, name))
        elif name not in self._commands:
            raise UsageError(f"unknown command /{name}: /help lists them, and //{name} is a prompt")
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
            notify(shown(self._config, name))

    def _read_prompt(self, text: str) -> Prompt:
        prompt = self._model.read_prompt(text, self._unknown)
        if prompt.warning:
            notify(f"warning: {prompt.warning}")
        return prompt

    def _head(self, prompt: Prompt) -> str:
        return prompt.text if self._echo else ""


def _extended(prompt: Prompt, text: str, token_ids: Sequence[int]) -> Prompt:
    """The prompt followed by this text, which the model reads as these tokens."""
    return Prompt(prompt.text + text, [*prompt.token_ids, *token_ids], Counter(), Counter())


def _headed(head: str, pieces: Iterable[str]) -> Iterator[str]:
    """The head before the first of the pieces, which comes when it is sure that they can be drawn."""
    for piece in pieces:
        yield head + piece
        head = ""
