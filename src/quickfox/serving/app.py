"""The application: the endpoints, and errors in the shape of OpenAI's API."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quickfox.serving import endpoints
from quickfox.serving.chat import create_chat_completion
from quickfox.serving.completions import create_completion
from quickfox.serving.http import ClientGoneError, RequestError, error_response
from quickfox.serving.metrics import Metrics
from quickfox.serving.middleware import AccessLog, Guard
from quickfox.serving.models import Log
from quickfox.serving.page import load_page, show_history, show_page
from quickfox.serving.service import Service

ROUTES = (
    Route("/", show_page),
    Route("/health", endpoints.health),
    Route("/metrics", endpoints.metrics),
    Route("/tokenizer_info", endpoints.show_tokenizer),
    Route("/tokenize", endpoints.tokenize, methods=["POST"]),
    Route("/detokenize", endpoints.detokenize, methods=["POST"]),
    Route("/v1/completions", create_completion, methods=["POST"]),
    Route("/v1/chat/completions", create_chat_completion, methods=["POST"]),
    Route("/v1/score", endpoints.score, methods=["POST"]),
    Route("/v1/models", endpoints.list_models),
    Route("/v1/models/{name}", endpoints.show_model),
    Route("/v1/models/{name}/history", show_history),
)


def build_app(
    service: Service,
    *,
    api_key: str | None = None,
    host_names: Sequence[str] | None = None,
    allowed_origins: Sequence[str] = (),
    access_log: Log | None = None,
) -> Starlette:
    """The ASGI application that serves `service`.

    Args:
        service: the models and limits.
        api_key, host_names, allowed_origins: see `Guard`.
        access_log: see `AccessLog`.
    """
    load_page()
    metrics = Metrics()
    middleware = [Middleware(AccessLog, [route.path for route in ROUTES], metrics, access_log)]
    if allowed_origins:
        from starlette.middleware.cors import CORSMiddleware

        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=allowed_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
            )
        )
    middleware.append(Middleware(Guard, api_key, host_names, allowed_origins))
    app = Starlette(
        routes=ROUTES,
        middleware=middleware,
        exception_handlers={
            RequestError: _answer_request_error,
            ClientGoneError: _answer_gone_client,
            HTTPException: _answer_http_exception,
            Exception: _answer_failure,
        },
    )
    app.state.service = service
    app.state.metrics = metrics
    return app


async def _answer_request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)


async def _answer_gone_client(request: Request, _error: Exception) -> Response:
    request.state.is_gone = True
    return Response(status_code=204)  # reaches nobody


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Of Starlette: an unknown path, or a method that the path does not have."""
    assert isinstance(error, HTTPException)
    messages = {404: "there is no such path", 405: f"the path does not have the method {request.method[:16]}"}
    message = messages.get(error.status_code, error.detail)
    return error_response(RequestError(message, error.status_code, headers=dict(error.headers or {})))


async def _answer_failure(_request: Request, _error: Exception) -> Response:
    """Of a bug: the server logs its traceback."""
    return error_response(RequestError("internal error: see the server's log", 500))
