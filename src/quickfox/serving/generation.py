"""A generation: the continuations of a prompt, the events of their progress, and their state in the engine."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.generation.healing import HealedPrompt, heal_prompt
from quickfox.generation.logprobs import make_tokens
from quickfox.generation.sampler import iter_prefill
from quickfox.generation.stopping import Completion, Token
from quickfox.models.language_model import LanguageModel, State
from quickfox.serving.batch import LogitBias, Text
from quickfox.tokenizers.base import StreamingDecoder, Tokenizer


@dataclass(frozen=True)
class PromptRead:
    """The prompt was read.

    Attributes:
        tokens: its tokens with their log-probabilities, None for the first, if these were requested; else empty.
    """

    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class NewTokens:
    """Tokens that are certainly part of a text, the next after those of the last such event."""

    sample: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Failure:
    """The generation ended with this error."""

    error: Exception


Event = PromptRead | NewTokens | Completion | Failure


class Generation:
    """The continuations of a prompt, as requested from an engine.

    Args:
        prompt_ids: (n,) token ids, n >= 1.
        config: the sampling configuration, without beam search and `logit_bias`.
        listener: called with the events of this generation, in order, in the thread that `Engine.deliver` chooses.
        logit_bias: added to the logits.
        has_prompt_logprobs: whether the log-probabilities of the prompt's tokens are requested.
        ends_at_border: whether the last tokens of the prompt do not depend on what follows it.
        is_streaming: whether the listener wants the tokens one by one, and not only the completions.
    """

    def __init__(
        self,
        prompt_ids: np.ndarray,
        config: SamplingConfig,
        listener: Callable[[list[Event]], None],
        *,
        logit_bias: LogitBias = (),
        has_prompt_logprobs: bool = False,
        ends_at_border: bool = False,
        is_streaming: bool = False,
    ) -> None:
        self.prompt_ids = prompt_ids
        self.config = config
        self.listener = listener
        self.logit_bias = logit_bias
        self.has_prompt_logprobs = has_prompt_logprobs
        self.ends_at_border = ends_at_border
        self.is_streaming = is_streaming
        self.is_cancelled = False
        """Set by any thread; the generation then ends at the next token, without further events."""


class RunningGeneration:
    """The state of a generation, used by the engine's thread only."""

    def __init__(self, generation: Generation, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.generation = generation
        self.ready: deque[Text] = deque()  # texts that wait for a place in the batch
        self.events: list[Event] = []
        self._tokenizer = tokenizer
        # Log-probabilities of the prompt are those of all its tokens.
        is_exact = generation.has_prompt_logprobs or generation.ends_at_border or generation.config.length == 0
        prompt_ids = generation.prompt_ids
        self._prompt = HealedPrompt(prompt_ids) if is_exact else heal_prompt(tokenizer, prompt_ids)
        self._prefill = iter_prefill(model, self._prompt.token_ids)
        self._prompt_decoder = StreamingDecoder(tokenizer)
        self._prompt_tokens: list[Token] = []
        self._tokens_read = 0
        self._num_sent: dict[int, int] = {}
        seconds = generation.config.max_seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._last: tuple[np.ndarray, State] | None = None

    def read_prompt_part(self) -> int:
        """Read the next part of the prompt; returns its number of tokens, 0 after the last."""
        part = next(self._prefill, None)
        if part is None:
            return 0
        logits, _ = self._last = part
        if self.generation.has_prompt_logprobs:
            self._append_prompt_tokens(logits)
        self._tokens_read += len(logits)
        return len(logits)

    @property
    def is_prompt_read(self) -> bool:
        return self._tokens_read == len(self._prompt.token_ids)

    def _append_prompt_tokens(self, logits: np.ndarray) -> None:
        """Append the tokens that `logits`, (T, V) after the last T tokens read, predict."""
        first, prompt = self._tokens_read, self.generation.prompt_ids
        if first == 0:
            start = int(prompt[0])
            self._prompt_tokens.append(Token(start, self._prompt_decoder.add(start)))
        token_ids = prompt[first + 1 : first + 1 + len(logits)].tolist()
        texts = [self._prompt_decoder.add(token_id) for token_id in token_ids]
        count = self.generation.config.logprobs
        self._prompt_tokens += make_tokens(self._tokenizer, token_ids, texts, logits[: len(token_ids)], count)

    def start_texts(self) -> int:
        """Sample the first token of each text, after the prompt was read; returns the number of tokens."""
        assert self._last is not None
        generation, (logits, state), config = self.generation, self._last, self.generation.config
        self.events.append(PromptRead(tuple(self._prompt_tokens)))
        count = 0
        for sample in range(config.best_of or config.num_samples):
            text = Text(
                self._tokenizer,
                self._prompt.token_ids,
                config,
                sample,
                generation.logit_bias,
                state,
                self._deadline,
                self._prompt.rest,
            )
            if not text.is_finished:
                text.start(logits[-1])
                count += 1
            if not text.is_finished:
                self.ready.append(text)
            self.collect(text)
        return count

    def collect(self, text: Text) -> None:
        """Record the events of a text after it grew."""
        partial = text.partial
        sent = self._num_sent.get(partial.sample, 0)
        if self.generation.is_streaming and len(partial.tokens) > sent:
            self.events.append(NewTokens(partial.sample, tuple(partial.tokens[sent:])))
            self._num_sent[partial.sample] = len(partial.tokens)
        if text.is_finished:
            self.events.append(partial.to_completion(text.has_logprobs))
