"""The endpoints that generate no text: models, scores, tokens, health and metrics."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from quickfox.checkpoints.checkpoint import describe_model
from quickfox.errors import DataError
from quickfox.generation.prompt import Unknown
from quickfox.model import Model
from quickfox.serving.http import RequestError, read_body, run_until_gone
from quickfox.serving.models import LoadedModel, ServedModel
from quickfox.serving.parameters import check_token_ids, encode_text
from quickfox.serving.service import Service
from quickfox.tokenizers.base import start_of_text
from quickfox.tokenizers.bpe import END_OF_TEXT


@dataclass(frozen=True, kw_only=True)
class ScoreBody:
    """The body of a request to /v1/score; `unknown` "skip" leaves characters out that the model does not know."""

    model: str | None = None
    input: str | tuple[str, ...]
    unknown: Unknown = "skip"


@dataclass(frozen=True, kw_only=True)
class TokenizeBody:
    """The body of a request to /tokenize; `add_special_tokens`: begin with the token that a text starts with."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool = True
    unknown: Unknown = "fold"


@dataclass(frozen=True, kw_only=True)
class DetokenizeBody:
    """The body of a request to /detokenize."""

    model: str | None = None
    tokens: tuple[int, ...]


async def list_models(request: Request) -> Response:
    """`GET /v1/models`."""
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": [_model_object(service.find(name)) for name in service.models]})


async def show_model(request: Request) -> Response:
    """`GET /v1/models/NAME`, with what `llm info` tells."""
    served = request.app.state.service.find(request.path_params["name"])
    return JSONResponse(_model_object(served) | describe_model(served.loaded.model.bundle))


def _model_object(served: ServedModel) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": int(served.loaded.loaded), "owned_by": "quickfox"}


async def score(request: Request) -> Response:
    """`POST /v1/score`: what `llm score --json` tells of each text."""
    service: Service = request.app.state.service
    body = await read_body(request, ScoreBody)
    texts = (body.input,) if isinstance(body.input, str) else body.input
    served = service.find(body.model)
    with served.accept() as loaded:
        work = asyncio.get_running_loop().run_in_executor(
            served.executor, _score, loaded, texts, body.unknown, service.max_length
        )
        data = await run_until_gone(request, _await(work))
    return JSONResponse({"object": "list", "model": served.name, "data": data})


async def _await(future: "asyncio.Future[Any]") -> Any:
    return await future


def _score(loaded: LoadedModel, texts: tuple[str, ...], unknown: Unknown, max_length: int) -> list[dict[str, Any]]:
    from quickfox.evaluation.scoring import describe_score

    model: Model = loaded.model
    unknown_counts = None if unknown == "error" else Counter[str]()
    if unknown == "fold":
        texts = tuple(model.read_prompt(text).text for text in texts)
    longest = max(map(len, texts), default=0)
    if longest > max_length:
        raise RequestError(f"a text has {longest} characters, more than the limit of {max_length}", param="input")
    try:
        scores = model.score(texts, unknown_counts, threads=model.threads)
    except DataError as error:
        raise RequestError(str(error), param="input") from None
    return [
        {"index": index, **describe_score(text, each)}
        for index, (text, each) in enumerate(zip(texts, scores, strict=True))
    ]


async def tokenize(request: Request) -> Response:
    """`POST /tokenize`: the token ids of a text as `llm generate` reads it, in the shape of vLLM's server.

    The name of the end-of-text token, alone, is that token, which evaluation programs find its id by.
    """
    service: Service = request.app.state.service
    body = await read_body(request, TokenizeBody)
    model = service.find(body.model).loaded.model
    end_of_text = model.bundle.tokenizer.end_of_text
    warning = None
    if body.prompt == END_OF_TEXT and end_of_text is not None:
        token_ids = [end_of_text]
    elif not body.prompt and not body.add_special_tokens:
        token_ids = []
    else:
        prompt = await asyncio.to_thread(encode_text, body.prompt, body.unknown, model, service.max_length)
        start = 0 if body.add_special_tokens else prompt.num_start_tokens
        token_ids, warning = prompt.token_ids[start:].tolist(), prompt.warning
    response = {"tokens": token_ids, "count": len(token_ids), "max_model_len": service.max_length}
    return JSONResponse(response | ({"warnings": [warning]} if warning else {}))


async def show_tokenizer(request: Request) -> Response:
    """`GET /tokenizer_info`: the tokens that begin and end a text, in the shape of vLLM's server."""
    tokenizer = request.app.state.service.find(request.query_params.get("model")).loaded.model.bundle.tokenizer
    has_end = tokenizer.end_of_text is not None
    start = tokenizer.decode(start_of_text(tokenizer)) or None
    return JSONResponse(
        {
            "tokenizer_class": f"quickfox {tokenizer.kind}",
            "bos_token": END_OF_TEXT if has_end else start,
            "eos_token": END_OF_TEXT if has_end else None,
        }
    )


async def detokenize(request: Request) -> Response:
    """`POST /detokenize`: the text of token ids, in the shape of vLLM's server."""
    body = await read_body(request, DetokenizeBody)
    model = request.app.state.service.find(body.model).loaded.model
    check_token_ids(body.tokens, model, "tokens")
    return JSONResponse({"prompt": model.bundle.tokenizer.decode(body.tokens)})


async def health(_request: Request) -> Response:
    """`GET /health`."""
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """`GET /metrics`, in the text format of Prometheus."""
    text = request.app.state.metrics.format(request.app.state.service.models.values())
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
