"""How continuations are shown: as text, as text in colour, or as JSON, a line a sample."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from quickfox.cli.formatting import color_by_surprisal
from quickfox.cli.streams import notify
from quickfox.config.sampling import SamplingConfig
from quickfox.evaluation.memorization import Copy, CopyIndex, longest_copies
from quickfox.generation.stopping import Completion, Token
from quickfox.model import Model, Prompt
from quickfox.text.corpus import open_corpus

SAMPLE_SEPARATOR = "---\n"


class Presentation:
    """What is shown of each prompt's continuations.

    Args:
        model: what draws them.
        corpus: names of the corpus that each is compared with; None or empty: they are not.
        max_copy: characters in a row that may be copied from it; None: any number.
        echo: whether the prompt is shown too.
        as_json: a JSON object a sample.
        in_colour: each character is shaded by its probability.

    Raises:
        QuickfoxError: the corpus cannot be read.
    """

    def __init__(
        self,
        model: Model,
        corpus: Sequence[str] | None,
        max_copy: int | None,
        *,
        echo: bool,
        as_json: bool,
        in_colour: bool,
    ) -> None:
        self._model = model
        self._corpus = open_corpus(corpus, notify) if corpus else None
        self._copy_index: CopyIndex | None = None
        if self._corpus is not None and max_copy is not None:
            self._copy_index = CopyIndex(self._corpus.iter_text(), max_copy)
        self._echo = echo
        self._as_json = as_json
        self._in_colour = in_colour
        self._has_told_context = False

    def show(self, prompt: Prompt, config: SamplingConfig, line: int | None = None) -> Iterator[str]:
        """The product, piece by piece as it is drawn; `line` is that of the prompt, if it is one of a file."""
        self._tell_context(len(prompt.token_ids) + config.length)
        if self._in_colour:
            config = dataclasses.replace(config, logprobs=0)
        events = self._model.complete(prompt, config, copy_index=self._copy_index)
        return self._json_lines(events, prompt, config, line) if self._as_json else self._texts(events, prompt)

    def _tell_context(self, tokens: int) -> None:
        """Says once that a text may become longer than the model looks back."""
        context = self._model.language_model.context
        if context is not None and tokens > context and not self._has_told_context:
            notify(f"the model looks back {context} tokens: of a longer text it sees the end")
            self._has_told_context = True

    def _texts(self, events: Iterator[Token | Completion], prompt: Prompt) -> Iterator[str]:
        completions: list[Completion] = []
        head = prompt.text if self._echo else ""
        is_begun = False
        for event in events:
            if not is_begun:
                yield SAMPLE_SEPARATOR if completions else ""
                yield color_by_surprisal(head, [0.0] * len(head)) if self._in_colour else head
                is_begun = True
            if isinstance(event, Token):
                yield _paint(event) if self._in_colour else event.text
            else:
                yield "\n"
                completions.append(event)
                is_begun = False
        for completion, copy in zip(completions, self._copies(completions), strict=False):
            notify(_describe_copy(completion.sample, copy))

    def _json_lines(
        self, events: Iterator[Token | Completion], prompt: Prompt, config: SamplingConfig, line: int | None
    ) -> Iterator[str]:
        completions = (event for event in events if isinstance(event, Completion))
        if self._corpus is None:
            for completion in completions:
                yield self._as_json_line(completion, prompt, config, line, None)
        else:  # the corpus is read once for all samples
            complete = list(completions)
            for completion, copy in zip(complete, self._copies(complete), strict=True):
                yield self._as_json_line(completion, prompt, config, line, copy)

    def _as_json_line(
        self, completion: Completion, prompt: Prompt, config: SamplingConfig, line: int | None, copy: Copy | None
    ) -> str:
        values: dict[str, Any] = {} if line is None else {"line": line}
        values |= {
            "seed": prompt.text,
            "text": (prompt.text if self._echo else "") + completion.text,
            "tokens": completion.token_count,
            "finish_reason": completion.finish_reason,
            "random_seed": config.random_seed,
            "sample": completion.sample,
            "model": str(self._model.path),
        }
        if completion.logprob is not None:
            values["logprob"] = completion.logprob
        if config.logprobs is not None:
            values["logprobs"] = [
                {"token": token.text, "logprob": token.logprob, "top": [list(pair) for pair in token.alternatives]}
                for token in completion.tokens
            ]
        if copy is not None:
            values["longest_copy"] = {"characters": len(copy.text), "text": copy.text, "position": copy.corpus_start}
        return json.dumps(values, ensure_ascii=False) + "\n"

    def _copies(self, completions: list[Completion]) -> list[Copy]:
        """The longest stretch of each that is in the corpus; of none if there is none to compare with."""
        if self._corpus is None:
            return []
        return longest_copies([completion.text for completion in completions], self._corpus.iter_text())


def _paint(token: Token) -> str:
    """A token in the colour of its surprise, which its characters share."""
    assert token.logprob is not None
    bits = -token.logprob / math.log(2) / max(1, len(token.text))
    return color_by_surprisal(token.text, [bits] * len(token.text))


def _describe_copy(sample: int, copy: Copy) -> str:
    if not copy.text:
        return f"sample {sample}: nothing is copied from the corpus"
    return f"sample {sample}: longest stretch copied from the corpus: {len(copy.text)} characters, {copy.text!r}"
