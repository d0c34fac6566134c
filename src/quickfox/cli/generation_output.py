"""Formats generated samples for `llm generate`: as text, colored text or JSON lines."""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from quickfox.cli.formatting import color_by_surprisal
from quickfox.cli.streams import notify
from quickfox.config.sampling import SamplingConfig
from quickfox.evaluation.memorization import Copy, CopyIndex, longest_copies
from quickfox.generation.prompt import Prompt
from quickfox.generation.stopping import Completion, Token
from quickfox.model import Model
from quickfox.text.corpus import open_corpus

SAMPLE_SEPARATOR = "---\n"


@dataclass
class SampleFormatter:
    """Generates and formats the samples of prompts.

    Attributes:
        model: the model.
        corpus_names: names of the corpus in which copied text is searched; None or empty: no search.
        max_copy: maximum number of consecutive characters copied from the corpus; None: no limit.
        echo: whether the output includes the prompt.
        as_json: whether each sample is a line of JSON.
        in_color: whether each character has a background color by its surprisal.
        token_texts: the text of each token of the current sample that was output; not with `as_json`.

    Raises:
        QuickfoxError: the corpus cannot be read.
    """

    model: Model
    corpus_names: Sequence[str] | None
    max_copy: int | None
    echo: bool
    as_json: bool
    in_color: bool

    def __post_init__(self) -> None:
        self.token_texts: list[str] = []
        self._corpus = open_corpus(self.corpus_names, notify) if self.corpus_names else None
        self._copy_index: CopyIndex | None = None
        if self._corpus is not None and self.max_copy is not None:
            self._copy_index = CopyIndex(self._corpus.iter_text(), self.max_copy)
        self._has_warned_of_context = False

    def format_samples(
        self, prompt: Prompt, config: SamplingConfig, labels: dict[str, Any] | None = None
    ) -> Iterator[str]:
        """The output for a prompt, token by token where its format allows.

        Args:
            prompt: the prompt.
            config: settings; `num_samples` and others apply to each prompt.
            labels: first members of each JSON object, which tell which prompt it belongs to.
        """
        context = self.model.bundle.config.context
        if (
            context is not None
            and prompt.frames is None
            and len(prompt.token_ids) + config.length > context
            and not self._has_warned_of_context
        ):
            notify(f"the model's context is {context} tokens: only the last {context} tokens of a longer text are used")
            self._has_warned_of_context = True
        if self.in_color:
            config = dataclasses.replace(config, logprobs=0)
        self.token_texts.clear()
        events = self.model.complete(prompt, config, copy_index=self._copy_index)
        return (
            self._format_json(events, prompt, config, labels or {})
            if self.as_json
            else self._format_text(events, prompt)
        )

    def _format_text(self, events: Iterator[Token | Completion], prompt: Prompt) -> Iterator[str]:
        completions: list[Completion] = []  # only those that are searched for copies
        is_first_text = True
        head = self._head(prompt)
        is_first_token = True
        for event in events:
            if is_first_token:
                self.token_texts.clear()
                yield "" if is_first_text else SAMPLE_SEPARATOR
                yield color_by_surprisal(head, [0.0] * len(head)) if self.in_color else head
                is_first_token = False
            if isinstance(event, Token):
                self.token_texts.append(event.text)
                yield _color_token(event) if self.in_color else event.text
            else:
                yield "\n"
                if self._corpus is not None:
                    completions.append(event)
                is_first_token, is_first_text = True, False
        for completion, copy in self._find_copies(completions):
            if copy is not None:
                notify(_format_copy(completion.sample, copy))

    def _format_json(
        self, events: Iterator[Token | Completion], prompt: Prompt, config: SamplingConfig, labels: dict[str, Any]
    ) -> Iterator[str]:
        for completion, copy in self._find_copies(event for event in events if isinstance(event, Completion)):
            values = {
                **labels,
                "seed": prompt.text,
                "text": self._head(prompt) + completion.text,
                "tokens": completion.token_count,
                "finish_reason": completion.finish_reason,
                "random_seed": config.random_seed,
                "sample": completion.sample,
                "model": str(self.model.path),
            }
            if completion.logprob is not None:
                values["logprob"] = completion.logprob
            if config.logprobs is not None:
                values["logprobs"] = [
                    {"token": token.text, "logprob": token.logprob, "top": [list(pair) for pair in token.alternatives]}
                    for token in completion.tokens
                ]
            if copy is not None:
                values["longest_copy"] = {
                    "characters": len(copy.text),
                    "text": copy.text,
                    "position": copy.corpus_start,
                }
            yield json.dumps(values, ensure_ascii=False) + "\n"

    def _head(self, prompt: Prompt) -> str:
        """What the output begins with: the prompt, unless it is a question about a signal."""
        return prompt.text if self.echo and prompt.frames is None else ""

    def _find_copies(self, completions: Iterable[Completion]) -> Iterator[tuple[Completion, Copy | None]]:
        """Each completion with its longest copy from the corpus; None without a corpus."""
        if self._corpus is None:
            return zip(completions, repeat(None))
        completions = list(completions)  # the corpus is read once for all
        copies = longest_copies([completion.text for completion in completions], self._corpus.iter_text())
        return zip(completions, copies, strict=True)


def _color_token(token: Token) -> str:
    """The text of a token; each of its characters has an equal part of its surprisal."""
    assert token.logprob is not None
    bits = -token.logprob / math.log(2) / max(1, len(token.text))
    return color_by_surprisal(token.text, [bits] * len(token.text))


def _format_copy(sample: int, copy: Copy) -> str:
    if not copy.text:
        return f"sample {sample}: no text copied from the corpus"
    return f"sample {sample}: longest stretch copied from the corpus: {len(copy.text)} characters, {copy.text!r}"
