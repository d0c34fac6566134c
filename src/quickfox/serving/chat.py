"""`POST /v1/chat/completions`: answers messages by a model that was trained on messages, as OpenAI's API does."""

import dataclasses
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import bounds_of, setting
from quickfox.errors import DataError
from quickfox.generation.stopping import Token
from quickfox.model import Model
from quickfox.serving.completions import respond, response_head
from quickfox.serving.http import RequestError, read_body
from quickfox.serving.parameters import MAX_LOGPROBS, CompletionBody, EncodedPrompt, SamplingBody, encode_text
from quickfox.serving.service import GenerationJob
from quickfox.text.chat import ASSISTANT, END_OF_TURN, parse_messages, prompt_parts

_REPLACEMENT = "\ufffd"  # in the text of a token that is a part of a character


@dataclass(frozen=True, kw_only=True)
class ChatBody(SamplingBody):
    """The body of a request to /v1/chat/completions; `max_tokens` is the former name of `max_completion_tokens`."""

    messages: tuple[dict[str, object], ...]
    max_tokens: int | None = setting("", None, bounds_of(SamplingConfig, "length"))
    max_completion_tokens: int | None = setting("", None, bounds_of(SamplingConfig, "length"))
    logprobs: bool = False
    top_logprobs: int | None = setting("", None, (0, MAX_LOGPROBS))


async def create_chat_completion(request: Request) -> Response:
    """The endpoint."""
    body = await read_body(request, ChatBody)
    return await respond(request, _completion_body(body), partial(_encode, body), ChatFormatter, end=(END_OF_TURN,))


def _completion_body(body: ChatBody) -> CompletionBody:
    """How the answers are generated.

    Raises:
        RequestError: two members exclude each other.
    """
    lengths = {length for length in (body.max_completion_tokens, body.max_tokens) if length is not None}
    if len(lengths) > 1:
        raise RequestError("max_tokens and max_completion_tokens differ: give one of them", param="max_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs", param="top_logprobs")
    shared = {field.name: getattr(body, field.name) for field in dataclasses.fields(SamplingBody)}
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return CompletionBody(**shared, max_tokens=lengths.pop() if lengths else SamplingConfig.length, logprobs=logprobs)


def _encode(body: ChatBody, model: Model, max_length: int) -> list[EncodedPrompt]:
    """The prompt of the messages, as conversations are encoded in training."""
    if not model.bundle.is_chat:
        reason = "the model was not trained on messages: continue a text with /v1/completions"
        raise RequestError(reason, param="model")
    for message in body.messages:
        _check_members(message, ("role", "content"))
        if isinstance(content := message.get("content"), list):
            for part in content:
                _check_members(part, ("type", "text"))
    try:
        messages = parse_messages(list(body.messages), "messages")
    except DataError as error:
        raise RequestError(str(error), param="messages") from None
    prompt = encode_text(prompt_parts(messages), body.unknown, model, max_length, "messages")
    return [dataclasses.replace(prompt, ends_at_border=True)]


def _check_members(value: object, known: Sequence[str]) -> None:
    """Raises RequestError if an object has other members, null aside."""
    if isinstance(value, dict):
        unknown = next((name for name, member in value.items() if name not in known and member is not None), None)
        if unknown is not None:
            raise RequestError(f"unknown or unsupported field of messages: {reprlib.repr(unknown)}", param="messages")


class ChatFormatter:
    """Formats the answers of a request; see `Formatter`.

    Args:
        model: name of the model.
        job: the generations.
    """

    def __init__(self, model: str, job: GenerationJob) -> None:
        self._head = response_head("chatcmpl", "chat.completion", model, job)
        self._has_logprobs = job.config.logprobs is not None
        self._started: set[int] = set()  # the answers of which a part was sent

    def format_head(self, *, is_stream: bool) -> dict[str, Any]:
        return self._head | ({"object": "chat.completion.chunk"} if is_stream else {})

    def format_text(
        self, index: int, tokens: Sequence[Token], offset: int, finish_reason: str | None, *, is_part: bool
    ) -> dict[str, Any]:
        is_first = index not in self._started
        self._started.add(index)
        role = {"role": ASSISTANT} if is_first else {}
        return {
            "index": index,
            "delta" if is_part else "message": {**role, "content": "".join(token.text for token in tokens)},
            "logprobs": {"content": [_format_token(token) for token in tokens]} if self._has_logprobs else None,
            "finish_reason": finish_reason,
        }


def _format_token(token: Token) -> dict[str, Any]:
    alternatives = [_format_logprob(*alternative) for alternative in token.alternatives]
    return {**_format_logprob(token.text, token.logprob), "top_logprobs": alternatives}


def _format_logprob(text: str, logprob: float | None) -> dict[str, Any]:
    """A token and its log-probability; its bytes are null if it is a part of a character."""
    return {"token": text, "logprob": logprob, "bytes": None if _REPLACEMENT in text else list(text.encode())}
