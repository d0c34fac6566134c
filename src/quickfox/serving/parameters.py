"""The bodies of requests, and the generations that they ask for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import MAX_INTEGER, bounds_of, setting
from quickfox.errors import DataError, UsageError
from quickfox.generation.prompt import Unknown
from quickfox.model import Model
from quickfox.serving.batch import LogitBias
from quickfox.serving.http import RequestError, parse_members, usage_error

MAX_TEXTS = 128
"""Texts of a request: all begin between two tokens of the others."""

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_LOGPROBS = 20
MAX_BIAS = 100.0

_setting = partial(setting, "", None)


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """`include_usage`: whether the numbers of tokens are sent before the end of a stream."""

    include_usage: bool = False


@dataclass(frozen=True, kw_only=True)
class SamplingBody:
    """The members of a body that say how texts are sampled; None: the value saved with the model, else the default.

    Those of OpenAI's API have its names, all others those of `SamplingConfig`.
    """

    model: str | None = None
    n: int = setting("", 1, bounds_of(SamplingConfig, "num_samples"))
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    stop: str | tuple[str, ...] = ()
    seed: int | None = _setting((0, MAX_INTEGER))
    temperature: float | None = _setting(bounds_of(SamplingConfig, "temperature"))
    top_p: float | None = _setting(bounds_of(SamplingConfig, "top_p"))
    presence_penalty: float | None = _setting(bounds_of(SamplingConfig, "presence_penalty"))
    frequency_penalty: float | None = _setting(bounds_of(SamplingConfig, "frequency_penalty"))
    logit_bias: dict[str, float] | None = None
    top_k: int | None = _setting(bounds_of(SamplingConfig, "top_k"))
    min_p: float | None = _setting(bounds_of(SamplingConfig, "min_p"))
    typical_p: float | None = _setting(bounds_of(SamplingConfig, "typical_p"))
    repetition_penalty: float | None = _setting(bounds_of(SamplingConfig, "repetition_penalty"))
    penalty_window: int | None = _setting(bounds_of(SamplingConfig, "penalty_window"))
    no_repeat_ngram: int | None = _setting(bounds_of(SamplingConfig, "no_repeat_ngram"))
    max_seconds: float | None = _setting(bounds_of(SamplingConfig, "max_seconds"))
    unknown: Unknown = "fold"


@dataclass(frozen=True, kw_only=True)
class CompletionBody(SamplingBody):
    """The body of a request to /v1/completions."""

    prompt: str | tuple[str, ...] | tuple[int, ...] | tuple[tuple[int, ...], ...] = ""
    max_tokens: int = setting("", 16, bounds_of(SamplingConfig, "length"))
    best_of: int | None = _setting(bounds_of(SamplingConfig, "best_of"))
    echo: bool = False
    logprobs: int | None = _setting((0, MAX_LOGPROBS))


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as a model reads it.

    Attributes:
        text: the prompt; characters that the model does not know are replaced or left out.
        token_ids: (n,) int64, n >= 1.
        num_start_tokens: number of tokens at the beginning that are not part of the text: 0 or 1.
        warning: how the text differs from the request; None: it does not.
        ends_at_border: whether its last tokens do not depend on what follows the text.
    """

    text: str
    token_ids: np.ndarray
    num_start_tokens: int
    warning: str | None
    ends_at_border: bool = False


def include_usage(body: SamplingBody) -> bool:
    """Whether the numbers of tokens are sent before the end of the stream."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise RequestError("stream_options needs stream", param="stream_options")
    return parse_members(body.stream_options, StreamOptions, "stream_options.").include_usage


def encode_prompts(body: CompletionBody, model: Model, max_length: int) -> list[EncodedPrompt]:
    """The prompts of a body, at least one."""
    prompts = body.prompt
    if isinstance(prompts, str):
        prompts = (prompts,)
    elif prompts and isinstance(prompts[0], int):
        prompts = (prompts,)  # one prompt of token ids
    if not prompts:
        raise RequestError("prompt is an empty list", param="prompt")
    return [
        encode_text(prompt, body.unknown, model, max_length)
        if isinstance(prompt, str)
        else encode_token_ids(prompt, model, max_length)  # type: ignore[arg-type]
        for prompt in prompts
    ]


def encode_text(
    text: str | Sequence[str], unknown: Unknown, model: Model, max_length: int, param: str = "prompt"
) -> EncodedPrompt:
    """Encodes a prompt as `llm generate` does; it may be given in parts, as for `Model.read_prompt`.

    Raises:
        RequestError: it is too long or, if `unknown` is "error", has characters that the model does not know; or it is
            empty, and the model has no token to start from.
    """
    try:
        prompt = model.read_prompt(text, unknown)
    except DataError as error:
        raise RequestError(str(error), param=param) from None
    token_ids = np.array(prompt.token_ids, np.int64)
    _check_length(len(token_ids), max_length, param)
    end_of_text = model.bundle.tokenizer.end_of_text
    has_start = not prompt.text or (end_of_text is not None and prompt.token_ids[0] == end_of_text)
    return EncodedPrompt(prompt.text, token_ids, int(has_start), prompt.warning)


def encode_token_ids(token_ids: tuple[int, ...], model: Model, max_length: int) -> EncodedPrompt:
    """A prompt that is given as token ids, which the model reads as they are."""
    _check_length(len(token_ids), max_length, "prompt")
    check_token_ids(token_ids, model, "prompt")
    return EncodedPrompt(model.bundle.tokenizer.decode(token_ids), np.array(token_ids, np.int64), 0, None)


def check_token_ids(token_ids: tuple[int, ...], model: Model, param: str) -> None:
    """Raises RequestError if a token id is out of range."""
    size = model.bundle.tokenizer.vocabulary_size
    invalid = next((token_id for token_id in token_ids if not 0 <= token_id < size), None)
    if invalid is not None:
        raise RequestError(f"{param}: token id {invalid} is outside the vocabulary of {size} tokens", param=param)


def _check_length(num_tokens: int, max_length: int, param: str) -> None:
    if num_tokens == 0:
        raise RequestError(f"{param} is empty: the model knows none of its characters, or has no token to start from",
                           param=param)  # fmt: skip
    if num_tokens > max_length:
        raise RequestError(f"{param} has {num_tokens} tokens, more than the limit of {max_length}", param=param)


def sampling_config(
    body: CompletionBody, model: Model, num_prompts: int, max_length: int, end: tuple[str, ...] = ()
) -> SamplingConfig:
    """The sampling configuration of a body, for each of its prompts; `end` ends a text, besides the body's `stop`.

    Raises:
        RequestError: a value is outside its range, or the texts may have more than `max_length` tokens together.
    """
    if body.best_of is not None and body.best_of < body.n:
        raise RequestError(f"best_of must be at least n, which is {body.n}, not {body.best_of}", param="best_of")
    num_texts = num_prompts * (body.best_of or body.n)
    if num_texts > MAX_TEXTS:
        raise RequestError(f"{num_texts} texts for a request are more than the limit of {MAX_TEXTS}", param="n")
    if num_texts * max(1, body.max_tokens) > max_length:
        what = f"{num_texts} texts of {body.max_tokens} tokens"
        raise RequestError(f"{what} exceed the limit of {max_length} tokens", param="max_tokens")
    names = ("best_of", "logprobs", "temperature", "top_p", "presence_penalty", "frequency_penalty", "top_k", "min_p",
             "typical_p", "repetition_penalty", "penalty_window", "no_repeat_ngram", "max_seconds")  # fmt: skip
    try:
        return model.sampling_config(
            length=body.max_tokens,
            num_samples=body.n,
            random_seed=body.seed,
            stop=(*end, *_read_stop(body.stop)),
            **{name: getattr(body, name) for name in names},
        )
    except UsageError as error:
        raise usage_error(error) from None


def _read_stop(stop: str | tuple[str, ...]) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else stop
    if len(stops) > MAX_STOPS:
        raise RequestError(f"stop has {len(stops)} strings, more than the limit of {MAX_STOPS}", param="stop")
    if any(len(each) > MAX_STOP_CHARACTERS for each in stops):
        raise RequestError(f"a string of stop has more than {MAX_STOP_CHARACTERS} characters", param="stop")
    return stops


def read_logit_bias(body: SamplingBody, model: Model) -> LogitBias:
    """The pairs of a token id and the value added to its logit, in ascending order."""
    pairs = []
    size = model.bundle.tokenizer.vocabulary_size
    for key, value in (body.logit_bias or {}).items():
        if not (key.isascii() and key.isdigit() and len(key) < 19 and int(key) < size):
            message = f"logit_bias: {key[:64]!r} is not a token id from 0 to {size - 1}"
            raise RequestError(message, param="logit_bias")
        if not -MAX_BIAS <= value <= MAX_BIAS or math.isnan(value):
            message = f"logit_bias of token {key} must be from {-MAX_BIAS:g} to {MAX_BIAS:g}, not {value}"
            raise RequestError(message, param="logit_bias")
        pairs.append((int(key), float(value)))
    return tuple(sorted(pairs))
