"""Pick mode of `llm generate --interactive`: the likeliest next tokens are shown, a person chooses."""

from collections import Counter
from collections.abc import Callable, Sequence

from quickfox.cli.streams import notify, printable, write_stderr
from quickfox.cli.tables import format_table
from quickfox.sampling.growing_text import GrowingText
from quickfox.text.tokenizers.protocol import StreamingDecoder
from quickfox.trained_model import Model, Prompt

CHOICES = 9
"""As many as there are digits to choose them by."""

SHOWN_CHARACTERS = 60
"""Of the end of the text: enough to go on from, and it stays on one line."""


class Picking:
    """A text to which tokens are added by hand.

    Args:
        model: what expects them.
        text: the text so far.
        head: how the product begins.
        read_prompt: reads what is typed, and says what it left out.

    Raises:
        UsageError: there is nothing to start from.
    """

    def __init__(self, model: Model, text: Prompt, head: str, read_prompt: Callable[[str], Prompt]) -> None:
        self.text = text
        """The text so far."""
        self.product = head
        """The head, and all that was added."""
        self._growing = GrowingText(model.language_model, text.token_ids)
        self._tokenizer = model.bundle.tokenizer
        self._decoder = StreamingDecoder(self._tokenizer)
        self._read_prompt = read_prompt

    def show(self) -> None:
        """The end of the text, and what may come next."""
        end = self.text.text[-SHOWN_CHARACTERS:]
        notify(f"{'...' if len(end) < len(self.text.text) else ''}{printable(end)}")
        rows = [
            (str(number), repr(self._tokenizer.decode([token_id])), f"{probability:.1%}")
            for number, (token_id, probability) in enumerate(self._growing.likeliest(CHOICES), start=1)
        ]
        write_stderr(format_table(rows))

    def take(self, line: str) -> None:
        """Add what is typed: the number of a token, nothing for the first, or any other text."""
        token_ids = [token_id for token_id, _ in self._growing.likeliest(CHOICES)]
        choices = {str(number): token_id for number, token_id in enumerate(token_ids, start=1)}
        choice = choices.get(line or "1")
        if choice is not None:
            self._add(self._decoder.add(choice), [choice])
            return
        typed = self._read_prompt(line)
        if typed.text:  # else nothing of it is known
            self._decoder = StreamingDecoder(self._tokenizer)  # an unfinished character stays unfinished
            self._add(typed.text, self._tokenizer.encode(typed.text).tolist())

    def _add(self, text: str, token_ids: Sequence[int]) -> None:
        self._growing.read(token_ids)
        self.text = extended(self.text, text, token_ids)
        self.product += text


def extended(prompt: Prompt, text: str, token_ids: Sequence[int]) -> Prompt:
    """A longer prompt: it goes on with this text, which the model reads as these tokens."""
    return Prompt(prompt.text + text, [*prompt.token_ids, *token_ids], Counter(), Counter())
