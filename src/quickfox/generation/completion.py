"""From a prompt to finished texts: what is drawn as token ids becomes text here.

Samples are drawn side by side, and told of one after the other. Knows the tokenizer and the sampler, neither files nor
the terminal.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.errors import UsageError
from quickfox.generation.beam_search import beam_search
from quickfox.generation.sampler import NO_TOKEN, Sampler, log_softmax, prefill
from quickfox.generation.stopping import Completion, Continuation, Token
from quickfox.models.registry import LanguageModel
from quickfox.tokenizers.base import StreamingDecoder, Tokenizer

MAX_ROWS = 64
"""Samples drawn side by side; more gain no speed, and their state takes memory."""

Veto = Callable[[str, str], bool]
"""(the text so far, the next token's text) -> whether that token is not allowed."""


def complete(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int] | np.ndarray,
    config: SamplingConfig,
    *,
    samples: Sequence[int] | None = None,
    veto: Veto | None = None,
) -> Iterator[Token | Completion]:
    """Continue a prompt.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        prompt_ids: (n,) token ids to continue, n >= 1.
        config: how to draw.
        samples: the numbers of the samples to draw; None: as many as `config` says, from 0 on.
        veto: which tokens are not allowed; None: all are.

    Yields:
        For one sample after the other its tokens, each as soon as it is known to be a part of the text, and then its
        Completion. With `best_of` and `num_beams` the best come first.

    Raises:
        UsageError: the prompt is empty; a text with a bias is not one token; there is a veto on a beam search.
        DataError: the model's logits are no numbers.
    """
    deadline = None if config.max_seconds is None else time.monotonic() + config.max_seconds
    drawing = GenerationRequest(model, tokenizer, prompt_ids, config, deadline, veto)
    if samples is None:
        samples = range(config.best_of or config.num_samples)
    if config.num_beams > 1:
        yield from _in_order(drawing.search()[: config.num_samples])
    elif config.best_of is not None:
        completions = [event for event in drawing.draw_all(samples) if isinstance(event, Completion)]
        completions.sort(key=lambda completion: -completion.mean_logprob)
        yield from _in_order(completions[: config.num_samples])
    else:
        yield from drawing.draw_all(samples)


def _in_order(completions: list[Completion]) -> Iterator[Token | Completion]:
    for completion in completions:
        yield from completion.tokens
        yield completion


class _Text(Continuation):
    """A continuation, and the decoder that its tokens go through."""

    def __init__(self, sample: int, stops: Sequence[str], tokenizer: Tokenizer) -> None:
        super().__init__(sample, stops)
        self.decoder = StreamingDecoder(tokenizer)


class GenerationRequest:
    """One request: what all its continuations share."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] | np.ndarray,
        config: SamplingConfig,
        deadline: float | None,
        veto: Veto | None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._prompt_ids = prompt_ids
        self._config = config
        self._deadline = deadline
        self._veto = veto
        self._end_of_text = tokenizer.end_of_text
        self._logit_bias = logit_bias(tokenizer, config)
        self._reports_logprobs = config.logprobs is not None or config.best_of is not None

    def draw_all(self, samples: Sequence[int]) -> Iterator[Token | Completion]:
        """The tokens of each sample and its completion, sample after sample."""
        for start in range(0, len(samples), MAX_ROWS):
            yield from self._draw(samples[start : start + MAX_ROWS])

    def _draw(self, samples: Sequence[int]) -> Iterator[Token | Completion]:
        """Of samples that are drawn side by side the first that has not ended is told of as it is drawn."""
        texts = {sample: _Text(sample, self._config.stop, self._tokenizer) for sample in samples}
        sampler = Sampler(
            self._model,
            self._prompt_ids,
            self._config,
            samples,
            logit_bias=self._logit_bias,
            veto=self._token_veto(texts),
        )
        waiting = iter(texts.values())
        current: _Text | None = next(waiting)
        told = 0
        if self._config.length == 0:
            for text in texts.values():
                text.finish("length")
        while current is not None:
            if current.finish_reason is None:
                self._step(sampler, texts)
            yield from current.tokens[told:]
            told = len(current.tokens)
            if current.finish_reason is not None:
                yield current.completion(self._reports_logprobs)
                current, told = next(waiting, None), 0

    def _step(self, sampler: Sampler, texts: dict[int, "_Text"]) -> None:
        """One more token of each text that has not ended."""
        token_ids = sampler.step()
        pieces = [
            "" if token_id == NO_TOKEN else texts[sample].decoder.add(token_id)
            for sample, token_id in zip(sampler.samples, token_ids, strict=True)
        ]
        tokens = self._tokens(token_ids, pieces, sampler.logits)
        is_late = self._is_out_of_time()
        for sample, token in zip(sampler.samples, tokens, strict=True):
            if token.token_id == NO_TOKEN:
                texts[sample].finish("nothing_allowed")
            else:
                texts[sample].add(token, self._end_of_text, self._config.length, is_late=is_late)
        going_on = [row for row, sample in enumerate(sampler.samples) if texts[sample].finish_reason is None]
        if len(going_on) < len(token_ids):
            sampler.keep(going_on)

    def search(self) -> list[Completion]:
        """The completions that beam search finds, the best first."""
        if self._veto is not None:
            raise UsageError("num-beams and max-copy exclude each other: a beam is searched for, not drawn")
        found = beam_search(
            self._model,
            self._prompt_ids,
            self._config,
            has_ended=self._has_ended,
            is_out_of_time=self._is_out_of_time,
            logit_bias=self._logit_bias,
        )
        completions = []
        for sample, hypothesis in enumerate(found):
            text = _Text(sample, self._config.stop, self._tokenizer)
            token_ids = hypothesis.token_ids
            pieces = [text.decoder.add(token_id) for token_id in token_ids]
            logits = self._logits_before(token_ids) if self._reports_logprobs else None
            for token in self._tokens(token_ids, pieces, logits):
                text.add(token, self._end_of_text, self._config.length, is_late=False)
            if self._config.length == 0:
                text.finish("length")
            elif text.finish_reason is None:
                text.finish("time" if self._is_out_of_time() else "nothing_allowed")
            completions.append(text.completion(self._reports_logprobs))
        return completions

    def _has_ended(self, token_ids: Sequence[int]) -> bool:
        """Whether a text has ended with the last of its tokens, and not before."""
        if token_ids[-1] == self._end_of_text:
            return True
        longest = max(map(len, self._config.stop), default=0)
        tail = self._tokenizer.decode(token_ids[-4 * longest :]) if longest else ""  # a character has 4 bytes at most
        return any(stop in tail for stop in self._config.stop)

    def _logits_before(self, token_ids: Sequence[int]) -> np.ndarray:
        """What the model says before each token of a continuation: (n,) -> (n, V)."""
        first, state = prefill(self._model, np.asarray(self._prompt_ids, np.int64))
        if len(token_ids) < 2:
            return first[np.newaxis][: len(token_ids)]
        rest, _ = self._model.forward(np.array([token_ids[:-1]]), state)
        return np.concatenate([first[np.newaxis], rest[0]])

    def _tokens(self, token_ids: Sequence[int], texts: Sequence[str], logits: np.ndarray | None) -> list[Token]:
        """The tokens, what each adds to its text, and what is to be reported: by the logits (n, V) it was drawn by."""
        if not self._reports_logprobs or logits is None:
            return [Token(token_id, text) for token_id, text in zip(token_ids, texts, strict=True)]
        logprobs = log_softmax(logits)
        most = self._config.logprobs or 0
        likeliest = np.argsort(-logprobs, axis=-1, kind="stable")[:, :most].tolist() if most else [[]] * len(texts)
        return [
            Token(
                token_id,
                text,
                float(row[token_id]),
                tuple((self._tokenizer.decode([other]), float(row[other])) for other in others),
            )
            for token_id, text, row, others in zip(token_ids, texts, logprobs, likeliest, strict=True)
        ]

    def _token_veto(self, texts: dict[int, "_Text"]) -> Callable[[int, int], bool] | None:
        """The veto on a text's next piece as one on a sample's next token."""
        veto = self._veto
        if veto is None:
            return None
        return lambda sample, token_id: veto(texts[sample].written, texts[sample].decoder.peek(token_id))

    def _is_out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


def logit_bias(tokenizer: Tokenizer, config: SamplingConfig) -> np.ndarray | None:
    """What is added to the logits, (V,) float64; None: nothing is.

    Raises:
        UsageError: a text with a bias is not one token of the tokenizer.
    """
    if not config.logit_bias:
        return None
    bias = np.zeros(tokenizer.vocabulary_size)
    for text, value in config.logit_bias:
        token_ids = tokenizer.encode(text, Counter())
        if len(token_ids) != 1 or tokenizer.decode(token_ids) != text:
            raise UsageError(f"logit-bias: {text!r} is not one token of this model")
        bias[token_ids[0]] += value
    return bias
