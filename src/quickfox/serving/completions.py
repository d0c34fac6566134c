"""`POST /v1/completions`: continues prompts, in the shape of OpenAI's API."""

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quickfox.generation.stopping import Token
from quickfox.model import Model
from quickfox.serving.http import RequestError, read_body
from quickfox.serving.parameters import (
    CompletionBody,
    EncodedPrompt,
    encode_prompts,
    include_usage,
    read_logit_bias,
    sampling_config,
)
from quickfox.serving.responses import EventStream, Formatter, collect
from quickfox.serving.service import GenerationJob, Service


async def create_completion(request: Request) -> Response:
    """The endpoint."""
    body = await read_body(request, CompletionBody)
    if body.stream and body.best_of is not None:
        raise RequestError("best_of cannot be streamed: the texts are compared when all are complete", param="best_of")
    return await respond(request, body, partial(encode_prompts, body), CompletionFormatter)


async def respond(
    request: Request,
    body: CompletionBody,
    encode: Callable[[Model, int], list[EncodedPrompt]],
    create_formatter: Callable[[str, GenerationJob], Formatter],
    end: tuple[str, ...] = (),
) -> Response:
    """Generates the texts of a request.

    Args:
        request: the request.
        body: how the texts are generated.
        encode: encodes the prompts for a model, each with at most the given number of tokens.
        create_formatter: called with the name of the model.
        end: strings that end a text, besides those of the body.
    """
    service: Service = request.app.state.service
    with_usage = include_usage(body)
    served = service.find(body.model)
    with ExitStack() as resources:
        loaded = resources.enter_context(served.accept())
        prompts = await asyncio.to_thread(encode, loaded.model, service.max_length)
        config = sampling_config(body, loaded.model, len(prompts), service.max_length, end)
        job = GenerationJob(
            loaded.engine,
            prompts,
            config,
            read_logit_bias(body, loaded.model),
            has_prompt_logprobs=body.echo and body.logprobs is not None,
            is_streaming=body.stream,
        )
        formatter = create_formatter(served.name, job)
        if body.stream:
            return EventStream(
                request, job, formatter, echo=body.echo, with_usage=with_usage, resources=resources.pop_all()
            )
        return JSONResponse(await collect(request, job, formatter, echo=body.echo))


def response_head(prefix: str, kind: str, model: str, job: GenerationJob) -> dict[str, Any]:
    """The members that all responses with texts have.

    Args:
        prefix: of the id.
        kind: of the object.
        model: its name.
        job: the generations.
    """
    head = {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "seed": job.config.random_seed,
    }
    if warnings := [prompt.warning for prompt in job.prompts if prompt.warning]:
        head["warnings"] = warnings
    return head


class CompletionFormatter:
    """Formats the texts of a request; see `Formatter`.

    Args:
        model: name of the model.
        job: the generations.
    """

    def __init__(self, model: str, job: GenerationJob) -> None:
        self._head = response_head("cmpl", "text_completion", model, job)
        self._has_logprobs = job.config.logprobs is not None

    def format_head(self, *, is_stream: bool) -> dict[str, Any]:
        return self._head

    def format_text(
        self, index: int, tokens: Sequence[Token], offset: int, finish_reason: str | None, *, is_part: bool
    ) -> dict[str, Any]:
        return {
            "index": index,
            "text": "".join(token.text for token in tokens),
            "logprobs": format_logprobs(tokens, offset) if self._has_logprobs else None,
            "finish_reason": finish_reason,
        }


def format_logprobs(tokens: Sequence[Token], offset: int) -> dict[str, list[Any]]:
    """The log-probabilities of tokens, the first of which is at position `offset` of its text."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [None if token.logprob == -math.inf else token.logprob for token in tokens],
        "top_logprobs": [_format_alternatives(token) for token in tokens],
        "text_offset": offsets,
    }


def _format_alternatives(token: Token) -> dict[str, float] | None:
    """The most probable tokens and the token itself; None for a token that was not predicted."""
    if token.logprob is None:
        return None
    alternatives: dict[str, float] = {}
    own = [] if token.logprob == -math.inf else [(token.text, token.logprob)]  # JSON has no infinity
    for text, logprob in (*token.alternatives, *own):
        alternatives.setdefault(text, logprob)  # of tokens with the same text, the most probable
    return alternatives
