"""The texts of a request as one response, or as a stream of server-sent events."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quickfox.generation.stopping import Completion, FinishReason, Token
from quickfox.serving.generation import NewTokens, PromptRead
from quickfox.serving.http import ClientGoneError, RequestError, format_error, run_until_gone
from quickfox.serving.service import GenerationJob

SEND_INTERVAL = 0.02
"""Seconds between two events of a stream: about one frame of a display, and far less work than one for each token."""

FINISH_REASONS: dict[FinishReason, str] = {
    "length": "length",
    "time": "length",
    "stop": "stop",
    "end_of_text": "stop",
    "nothing_allowed": "stop",
}
"""Why a text ended -> OpenAI's word for it."""


class Formatter(Protocol):
    """Formats the texts of an endpoint."""

    def format_head(self, *, is_stream: bool) -> dict[str, Any]:
        """The members of a response, or of each part of a stream, but `choices` and `usage`."""

    def format_text(
        self, index: int, tokens: Sequence[Token], offset: int, finish_reason: str | None, *, is_part: bool
    ) -> dict[str, Any]:
        """A member of `choices`.

        Args:
            index: number of the text within the request.
            tokens: of the text or, if `is_part`, its next tokens.
            offset: position of the first token, in characters, in the prompt and its continuation.
            finish_reason: None: the text has not ended.
        """


async def collect(request: Request, job: GenerationJob, formatter: Formatter, *, echo: bool) -> dict[str, Any]:
    """The response with all texts of a request, when they are complete.

    Raises:
        RequestError: the generation failed.
        ClientGoneError: the client closed the connection.
    """
    prompt_tokens, completions = await run_until_gone(request, _collect_events(job))
    choices: list[dict[str, Any]] = []
    for number, prompt in enumerate(job.prompts):
        head = prompt_head(job, number, prompt_tokens[number]) if echo else ()
        offset = 0 if echo else len(prompt.text)
        texts = sorted(completions[number], key=lambda completion: completion.sample)
        if job.config.best_of is not None:
            texts.sort(key=lambda completion: -completion.mean_logprob)
        for text in texts[: job.config.num_samples]:
            reason = FINISH_REASONS[text.finish_reason]
            tokens = (*head, *text.tokens)
            choices.append(formatter.format_text(len(choices), tokens, offset, reason, is_part=False))
    count = sum(text.token_count for texts in completions.values() for text in texts)
    return formatter.format_head(is_stream=False) | {"choices": choices, "usage": record_usage(request, job, count)}


async def _collect_events(job: GenerationJob) -> tuple[dict[int, tuple[Token, ...]], dict[int, list[Completion]]]:
    """The tokens of each prompt, and its completions, by the number of the prompt."""
    prompt_tokens: dict[int, tuple[Token, ...]] = {}
    completions: dict[int, list[Completion]] = defaultdict(list)
    missing = job.num_completions
    with job:
        while missing:
            for number, event in await job.queue.get_all():
                if isinstance(event, PromptRead):
                    prompt_tokens[number] = event.tokens
                elif isinstance(event, Completion):
                    completions[number].append(event)
                    missing -= 1
    return prompt_tokens, completions


def prompt_head(job: GenerationJob, number: int, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """The tokens of a prompt that a text begins with; without log-probabilities its whole text is one token."""
    prompt = job.prompts[number]
    return tokens[prompt.num_start_tokens :] if tokens else (Token(-1, prompt.text),)


def record_usage(request: Request, job: GenerationJob, completion_tokens: int) -> dict[str, int]:
    """The numbers of tokens of a request, which the log shows too."""
    prompt_tokens = sum(len(prompt.token_ids) for prompt in job.prompts)
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    request.state.usage = usage
    return usage


class EventStream(Response):
    """The texts of a request as server-sent events, each with the tokens since the last.

    Args:
        request: the request.
        job: its generations.
        formatter: of the endpoint.
        echo: whether the texts begin with the prompt.
        with_usage: whether the numbers of tokens are sent at the end.
        resources: closed at the end.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        request: Request,
        job: GenerationJob,
        formatter: Formatter,
        *,
        echo: bool,
        with_usage: bool,
        resources: ExitStack,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._request = request
        self._job = job
        self._formatter = formatter
        self._echo = echo
        self._with_usage = with_usage
        self._resources = resources
        self._head = formatter.format_head(is_stream=True) | ({"usage": None} if with_usage else {})
        self._offsets: Counter[int] = Counter()  # index of a text -> characters of it that were sent
        self._token_count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._resources:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                await run_until_gone(self._request, self._send_events(send))
            except RequestError as error:
                await send({"type": "http.response.body", "body": _format_event(format_error(error))})
            except ClientGoneError:
                self._request.state.is_gone = True

    async def _send_events(self, send: Send) -> None:
        missing = self._job.num_completions
        with self._job:
            while missing:
                choices = []
                for index, tokens, completion in _merge(await self._job.queue.get_all(), self._job, self._echo):
                    choices += self._format_part(index, tokens, completion)
                    missing -= completion is not None
                parts = [_format_event(self._head | {"choices": [choice]}) for choice in choices]
                if parts:
                    await send({"type": "http.response.body", "body": b"".join(parts), "more_body": True})
                if missing:
                    await asyncio.sleep(SEND_INTERVAL)
        usage = record_usage(self._request, self._job, self._token_count)
        last = [_format_event(self._head | {"choices": [], "usage": usage})] if self._with_usage else []
        await send({"type": "http.response.body", "body": b"".join([*last, b"data: [DONE]\n\n"])})

    def _format_part(self, index: int, tokens: Sequence[Token], completion: Completion | None) -> list[dict[str, Any]]:
        """The next part of a text; none if it has nothing to tell."""
        if index not in self._offsets:
            prompt = self._job.prompts[index // self._job.config.num_samples]
            self._offsets[index] = 0 if self._echo else len(prompt.text)
        offset = self._offsets[index]
        length = sum(len(token.text) for token in tokens)
        self._offsets[index] += length
        reason = None
        if completion is not None:
            reason = FINISH_REASONS[completion.finish_reason]
            self._token_count += completion.token_count
        if not length and completion is None and self._job.config.logprobs is None:
            return []
        return [self._formatter.format_text(index, tokens, offset, reason, is_part=True)]


def _merge(
    events: Sequence[tuple[int, Any]], job: GenerationJob, echo: bool
) -> Iterator[tuple[int, list[Token], Completion | None]]:
    """The index of each text that grew or ended, its new tokens, and its completion if it ended."""
    samples = job.config.num_samples
    tokens: dict[int, list[Token]] = defaultdict(list)
    completions: dict[int, Completion] = {}
    for number, event in events:
        if isinstance(event, PromptRead):
            if echo:
                for sample in range(samples):
                    tokens[number * samples + sample] += prompt_head(job, number, event.tokens)
        else:
            index = number * samples + event.sample
            if isinstance(event, NewTokens):
                tokens[index] += event.tokens
            else:
                completions[index] = event
    for index in sorted({*tokens, *completions}):
        yield index, tokens[index], completions.get(index)


def _format_event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
