"""Prompt -> finished texts: sampling or beam search, decoding, stop conditions.

Samples are generated as a batch and yielded one after the other. Independent of files and the terminal.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.errors import UsageError
from quickfox.generation.beam_search import beam_search
from quickfox.generation.healing import HealedPrompt, heal_prompt
from quickfox.generation.logprobs import make_tokens
from quickfox.generation.sampler import NO_TOKEN, PREFILL_TOKENS, Sampler, prefill
from quickfox.generation.stopping import Completion, PartialCompletion, Token
from quickfox.models.language_model import LanguageModel
from quickfox.text.vocabulary import leave_out_unknown
from quickfox.tokenizers.base import StreamingDecoder, Tokenizer

MAX_BATCH_SIZE = 64
"""Samples generated at a time; a larger batch is not faster, and its state takes more memory."""

TextFilter = Callable[[Callable[[int], str], str], bool]
"""(number of characters -> that many last characters of the text, text of a possible next token) -> whether that token
is banned. The whole text would be copied at each token."""


def complete(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int] | np.ndarray,
    config: SamplingConfig,
    *,
    samples: Sequence[int] | None = None,
    is_banned: TextFilter | None = None,
) -> Iterator[Token | Completion]:
    """Continue a prompt.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        prompt_ids: (n,) token ids to continue, n >= 1.
        config: the sampling configuration.
        samples: numbers of the samples to generate; None: as many as `config` requests, from 0 on.
        is_banned: which tokens must not be generated; None: none is banned. Not with a beam search.

    Yields:
        For one sample after the other its tokens, each as soon as it is known to be part of the text, then its
        Completion. With `best_of` and `num_beams` the most probable first.

    Raises:
        UsageError: the prompt is empty, or a text of `logit_bias` is not one token.
        DataError: the model's logits are NaN or infinite.
    """
    assert config.num_beams == 1 or is_banned is None
    request = GenerationRequest(model, tokenizer, prompt_ids, config, is_banned)
    if samples is None:
        samples = range(config.best_of or config.num_samples)
    if config.num_beams > 1:
        completions = request.search()
    elif config.best_of is not None:
        completions = [event for event in request.sample(samples) if isinstance(event, Completion)]
        completions.sort(key=lambda completion: -completion.mean_logprob)
    else:
        yield from request.sample(samples)
        return
    for completion in completions[: config.num_samples]:
        yield from completion.tokens
        yield completion


def bias_by_token_id(config: SamplingConfig, tokenizer: Tokenizer) -> np.ndarray | None:
    """`config.logit_bias` by token id, (V,) float64; None: no bias. Raises UsageError if a text is not one token."""
    if not config.logit_bias:
        return None
    bias = np.zeros(tokenizer.vocabulary_size)
    for text, value in config.logit_bias:
        known, unknown = leave_out_unknown(text, tokenizer.known_characters)
        token_ids = tokenizer.encode(known)
        if unknown or len(token_ids) != 1:
            advice = r"; a newline is written $'\n=X' in a shell" if text == r"\n" else ""
            raise UsageError(f"logit_bias: {text!r} is not one token of this model{advice}", "logit_bias")
        bias[token_ids[0]] += value
    return bias


class GenerationRequest:
    """The generation of all continuations of one prompt; for the arguments see `complete`."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] | np.ndarray,
        config: SamplingConfig,
        is_banned: TextFilter | None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        ids = np.asarray(prompt_ids, np.int64)
        # The hypotheses of a beam search have no rest to spell: they continue the whole prompt.
        self._prompt = heal_prompt(tokenizer, ids) if config.num_beams == 1 else HealedPrompt(ids)
        self._config = config
        self._is_banned = is_banned
        self._deadline = None if config.max_seconds is None else time.monotonic() + config.max_seconds
        self._logit_bias = bias_by_token_id(config, tokenizer)
        self._has_logprobs = config.logprobs is not None or config.best_of is not None  # best_of compares them

    def sample(self, samples: Sequence[int]) -> Iterator[Token | Completion]:
        """The tokens of each sample and its completion, sample after sample."""
        for start in range(0, len(samples), MAX_BATCH_SIZE):
            yield from self._sample_batch(samples[start : start + MAX_BATCH_SIZE])

    def _sample_batch(self, samples: Sequence[int]) -> Iterator[Token | Completion]:
        """Generate a batch; the tokens of its first unfinished sample are yielded at each step."""
        rest = self._prompt.rest
        texts = {sample: DecodedText(sample, self._config, self._tokenizer, rest) for sample in samples}
        is_banned = None if self._is_banned is None else _token_filter(self._is_banned, texts)
        sampler = Sampler(
            self._model,
            self._prompt.token_ids,
            self._config,
            samples,
            logit_bias=self._logit_bias,
            is_banned=is_banned,
            rest=rest,
            token_bytes=self._tokenizer.tokens,
        )
        if self._config.length == 0:
            for text in texts.values():
                text.finish("length")
        for text in texts.values():
            num_yielded = 0
            while text.finish_reason is None:
                self._step(sampler, texts)
                yield from text.tokens[num_yielded:]
                num_yielded = len(text.tokens)
            yield from text.tokens[num_yielded:]
            yield text.to_completion(self._has_logprobs)

    def _step(self, sampler: Sampler, texts: dict[int, "DecodedText"]) -> None:
        """Generate one token of each unfinished sample."""
        token_ids = sampler.step()
        token_texts = [
            "" if token_id == NO_TOKEN else texts[sample].decode(token_id)
            for sample, token_id in zip(sampler.samples, token_ids, strict=True)
        ]
        logits = sampler.logits if self._has_logprobs else None
        rests = [texts[sample].rest_before for sample in sampler.samples]
        tokens = make_tokens(self._tokenizer, token_ids, token_texts, logits, self._config.logprobs, rests)
        is_out_of_time = self._is_out_of_time()
        for sample, token in zip(sampler.samples, tokens, strict=True):
            if token.token_id == NO_TOKEN:
                texts[sample].finish("nothing_allowed")
            elif not texts[sample].is_in_prompt:
                texts[sample].append(token, is_out_of_time=is_out_of_time)
        unfinished = [row for row, sample in enumerate(sampler.samples) if texts[sample].finish_reason is None]
        if len(unfinished) < len(token_ids):
            sampler.select_rows(unfinished)

    def search(self) -> list[Completion]:
        """The completions that beam search finds, the most probable first."""
        hypotheses = beam_search(
            self._model,
            self._prompt.token_ids,
            self._config,
            has_ended=self._has_ended,
            is_out_of_time=self._is_out_of_time,
            logit_bias=self._logit_bias,
        )
        completions = []
        for sample, hypothesis in enumerate(hypotheses):
            text = DecodedText(sample, self._config, self._tokenizer)
            for token in self._make_tokens(hypothesis.token_ids, text):
                text.append(token, is_out_of_time=False)
            if self._config.length == 0:
                text.finish("length")
            elif text.finish_reason is None:
                text.finish("time" if self._is_out_of_time() else "nothing_allowed")
            completions.append(text.to_completion(self._has_logprobs))
        return completions

    def _has_ended(self, token_ids: Sequence[int]) -> bool:
        """Whether the last token of a continuation ends it, given that no earlier one does."""
        if token_ids[-1] == self._tokenizer.end_of_text:
            return True
        longest = max(map(len, self._config.stop), default=0)
        tail = self._tokenizer.decode(token_ids[-4 * longest :]) if longest else ""  # a character has at most 4 bytes
        return any(stop in tail for stop in self._config.stop)

    def _make_tokens(self, token_ids: Sequence[int], text: "DecodedText") -> Iterator[Token]:
        """The tokens of a continuation, decoded by `text`; with log-probabilities a part at a time."""
        start = 0
        parts: Iterable[np.ndarray | None] = self._logits_before(token_ids) if self._has_logprobs else [None]
        for logits in parts:
            ids = token_ids[start : None if logits is None else start + len(logits)]
            texts = list(map(text.decode, ids))
            yield from make_tokens(self._tokenizer, ids, texts, logits, self._config.logprobs)
            start += len(ids)

    def _logits_before(self, token_ids: Sequence[int]) -> Iterator[np.ndarray]:
        """The model's logits at each token of a continuation, (n, V) in parts: all together would take much memory."""
        logits, state = prefill(self._model, self._prompt.token_ids)  # (V,)
        if token_ids:
            yield logits[np.newaxis]
        for start in range(0, len(token_ids) - 1, PREFILL_TOKENS):
            part = token_ids[start : min(start + PREFILL_TOKENS, len(token_ids) - 1)]
            rows, state = self._model.forward(np.array([part]), state)
            yield rows[0]

    def _is_out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


class DecodedText(PartialCompletion):
    """A partial completion, and the decoder of its tokens, the first of which spell the rest of the prompt.

    Args:
        sample, config, tokenizer: see `complete`.
        rest: the bytes of the rest of the prompt, which are not part of the completion.
    """

    def __init__(self, sample: int, config: SamplingConfig, tokenizer: Tokenizer, rest: bytes = b"") -> None:
        super().__init__(sample, config.stop, tokenizer.end_of_text, config.length)
        self.is_in_prompt = False
        """Whether the token that was decoded last adds nothing to the rest of the prompt."""
        self.rest_before = b""
        """The rest of the prompt before the token that was decoded last."""
        self._tokenizer = tokenizer
        self._decoder = StreamingDecoder(tokenizer)
        self._rest = rest
        self._rest_bytes, self._rest_characters = len(rest), len(rest.decode())

    def decode(self, token_id: int) -> str:
        """The text that a token adds to the completion."""
        text = self._decoder.add(token_id)
        self.rest_before = self._rest[len(self._rest) - self._rest_bytes :]
        if self._rest_bytes == 0:
            self.is_in_prompt = False
            return text
        size = len(self._tokenizer.token_bytes(token_id))
        self.is_in_prompt = size <= self._rest_bytes
        self._rest_bytes = max(0, self._rest_bytes - size)
        added = text[self._rest_characters :]
        self._rest_characters = max(0, self._rest_characters - len(text))
        return added

    def peek(self, token_id: int) -> str:
        """The text that `decode` would return, without appending the token."""
        return self._decoder.peek(token_id)[self._rest_characters :]


def _token_filter(is_banned: TextFilter, texts: dict[int, DecodedText]) -> Callable[[int, int], bool]:
    """A filter of texts as a filter of (number of the sample, token id)."""
    return lambda sample, token_id: is_banned(texts[sample].last_characters, texts[sample].peek(token_id))
