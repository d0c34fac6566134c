"""A continuation as it grows, token by token, until a stop string, an end-of-text token, its length or time ends it.

A stop string is not a part of the text, nor is any beginning of one told of before it is known that none comes.
Knows neither models nor tokenizers.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["length", "stop", "end_of_text", "time", "nothing_allowed"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a continuation.

    Attributes:
        token_id: its id.
        text: what it adds to the text; of a token cut by a stop string, the part before that.
        logprob: its log-probability in nats by the model itself, before all processors; None: not asked for.
        alternatives: the texts and log-probabilities of the likeliest tokens in its place, the likeliest first.
    """

    token_id: int
    text: str
    logprob: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Completion:
    """A continuation, complete.

    Attributes:
        sample: its number among those drawn for the request.
        tokens: what it consists of; `token_count` may be larger, as a stop string's own tokens are not here.
        token_count: tokens drawn.
        logprob: of all tokens drawn, in nats by the model itself; None: not asked for.
        finish_reason: why it ended.
    """

    sample: int
    tokens: tuple[Token, ...]
    token_count: int
    logprob: float | None
    finish_reason: FinishReason

    @property
    def text(self) -> str:
        """The continuation, without the prompt."""
        return "".join(token.text for token in self.tokens)

    @property
    def mean_logprob(self) -> float:
        """Nats per token, as which continuations of different lengths are compared; -inf: not asked for."""
        return -math.inf if self.logprob is None else self.logprob / max(1, self.token_count)


class Continuation:
    """A continuation as it grows.

    Args:
        sample: its number.
        stops: texts that end it.
    """

    def __init__(self, sample: int, stops: Sequence[str]) -> None:
        self.sample = sample
        self.tokens: list[Token] = []  # known to be a part of it
        self.written = ""  # the text of all tokens, held ones too
        self.finish_reason: FinishReason | None = None
        self._stops = stops
        self._held: list[Token] = []  # the last ones, whose text may be the beginning of a stop string
        self._token_count = 0
        self._logprob = 0.0

    def add(self, token: Token, end_of_text: int | None, length: int, *, is_late: bool) -> None:
        """One more token, after which the text ends if it says so, has `length` tokens, or is late."""
        self._token_count += 1
        self._logprob += token.logprob or 0.0
        self.written += token.text
        if token.token_id == end_of_text:
            self.finish("end_of_text")
            return
        self._held.append(token)
        if self._stops:
            self._look_for_stops()
        else:
            self._release(1)
        if self.finish_reason is None and (self._token_count == length or is_late):
            self.finish("length" if self._token_count == length else "time")

    def finish(self, reason: FinishReason) -> None:
        """The end, of which nothing need be held back any more."""
        self._release(len(self._held))
        self.finish_reason = reason

    def completion(self, has_logprobs: bool) -> Completion:
        """The text, which has ended."""
        assert self.finish_reason is not None
        logprob = self._logprob if has_logprobs else None
        return Completion(self.sample, tuple(self.tokens), self._token_count, logprob, self.finish_reason)

    def _look_for_stops(self) -> None:
        held = "".join(token.text for token in self._held)
        found = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if found:
            self._cut(min(found))
            self.finish("stop")
            return
        longest = max(map(len, self._stops)) - 1
        starts = range(max(0, len(held) - longest), len(held))
        safe = next(
            (start for start in starts if any(stop.startswith(held[start:]) for stop in self._stops)), len(held)
        )
        count = end = 0
        while count < len(self._held) and end + len(self._held[count].text) <= safe:
            end += len(self._held[count].text)
            count += 1
        self._release(count)

    def _cut(self, length: int) -> None:
        """Leaves `length` characters of what is held."""
        kept = []
        for token in self._held:
            if length > 0:
                kept.append(dataclasses.replace(token, text=token.text[:length]))
            length -= len(token.text)
        self._held = kept

    def _release(self, count: int) -> None:
        self.tokens += self._held[:count]
        del self._held[:count]
