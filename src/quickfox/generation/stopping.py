"""The end of a text: a stop string, the end-of-text token, the maximum length, the time limit.

A stop string is not part of the text. Text that may begin a stop string is buffered until resolved. Independent of
models and tokenizers.
"""

import dataclasses
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["length", "stop", "end_of_text", "time", "nothing_allowed"]
"""Why a text ended; "nothing_allowed": every token was banned."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a continuation.

    Attributes:
        token_id: its id.
        text: the text it adds; of a token that a stop string truncates, the part before the stop string.
        logprob: its log-probability in nats by the model itself, before all processors; None: not requested.
        alternatives: texts and log-probabilities of the most probable tokens at its position, in descending order.
    """

    token_id: int
    text: str
    logprob: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Completion:
    """A finished continuation of a prompt.

    Attributes:
        sample: its number within the request.
        tokens: the tokens of its text, without those of a stop string.
        token_count: number of tokens generated, those of a stop string included.
        logprob: sum over all tokens generated, in nats, by the model itself; None: not requested.
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
        """Log-probability per token, which compares continuations of different lengths; -inf: not requested."""
        return -math.inf if self.logprob is None else self.logprob / max(1, self.token_count)


class PartialCompletion:
    """A continuation that grows token by token until it ends.

    Args:
        sample: its number within the request.
        stop: strings that end it.
        end_of_text: id of the token that ends it; None: there is none.
        length: number of tokens after which it ends.
    """

    def __init__(self, sample: int, stop: Sequence[str], end_of_text: int | None, length: int) -> None:
        self.sample = sample
        self.tokens: list[Token] = []  # released: certainly part of the text
        self._text = io.StringIO()  # of all tokens, the buffered ones included; `+=` would copy it at each token
        self.finish_reason: FinishReason | None = None
        self._stop = stop
        self._end_of_text = end_of_text
        self._length = length
        self._buffer: list[Token] = []  # the last tokens, whose text may begin a stop string
        self._token_count = 0
        self._logprob = 0.0

    def append(self, token: Token, *, is_out_of_time: bool) -> None:
        """Append a token, and end the continuation if a condition for that holds."""
        self._token_count += 1
        self._logprob += token.logprob or 0.0
        self._text.write(token.text)
        if token.token_id == self._end_of_text:
            self.finish("end_of_text")
            return
        self._buffer.append(token)
        if self._stop:
            self._check_stop_strings()
        else:
            self._release(1)
        if self.finish_reason is None and (self._token_count == self._length or is_out_of_time):
            self.finish("length" if self._token_count == self._length else "time")

    def last_characters(self, count: int) -> str:
        """The last `count` characters of all tokens so far, or all if there are fewer."""
        self._text.seek(max(0, self._text.tell() - count))
        return self._text.read()  # to the end, where the next token is written

    def finish(self, reason: FinishReason) -> None:
        """End the continuation; buffered text is released."""
        self._release(len(self._buffer))
        self.finish_reason = reason

    def to_completion(self, has_logprobs: bool) -> Completion:
        """The finished continuation; `has_logprobs`: its tokens have log-probabilities."""
        assert self.finish_reason is not None
        logprob = self._logprob if has_logprobs else None
        return Completion(self.sample, tuple(self.tokens), self._token_count, logprob, self.finish_reason)

    def _check_stop_strings(self) -> None:
        """End at the first stop string in the buffer, or release the tokens that cannot belong to one."""
        buffered = "".join(token.text for token in self._buffer)
        found = [index for stop in self._stop if (index := buffered.find(stop)) >= 0]
        if found:
            self._truncate_buffer(min(found))
            self.finish("stop")
            return
        longest = max(map(len, self._stop)) - 1
        starts = range(max(0, len(buffered) - longest), len(buffered))
        safe = next(
            (start for start in starts if any(stop.startswith(buffered[start:]) for stop in self._stop)), len(buffered)
        )
        ends = itertools.accumulate(len(token.text) for token in self._buffer)
        self._release(sum(end <= safe for end in ends))

    def _truncate_buffer(self, length: int) -> None:
        """Keep the first `length` characters of the buffer."""
        kept = []
        for token in self._buffer:
            if length > 0:
                kept.append(dataclasses.replace(token, text=token.text[:length]))
            length -= len(token.text)
        self._buffer = kept

    def _release(self, count: int) -> None:
        self.tokens += self._buffer[:count]
        del self._buffer[:count]
