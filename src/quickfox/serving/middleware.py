"""What happens to every request: it is checked, counted and logged."""

import hmac
import time
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quickfox.serving.http import RequestError, error_response
from quickfox.serving.metrics import Metrics
from quickfox.serving.models import Log

PUBLIC_PATHS = ("/", "/health")
"""Paths that need no key: they tell nothing of the models."""

CLIENT_GONE = 499
"""Logged as the status of a request whose client closed the connection."""


class AccessLog:
    """Logs and counts each request when it ends.

    Args:
        app: handles the request.
        endpoints: the paths that are counted by name.
        metrics: counts the requests.
        log: receives a line for each; None: none.
    """

    def __init__(self, app: ASGIApp, endpoints: Sequence[str], metrics: Metrics, log: Log | None) -> None:
        self._app = app
        self._endpoints = frozenset(endpoints)
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status = CLIENT_GONE

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        state = scope.setdefault("state", {})
        try:
            await self._app(scope, receive, record_status)
        finally:
            seconds = time.perf_counter() - started
            if state.get("is_gone"):
                status = CLIENT_GONE
            path = scope["path"]
            self._metrics.record(path if path in self._endpoints else "other", status, seconds)
            if self._log is not None:
                client = scope["client"][0] if scope.get("client") else "-"
                usage = state.get("usage")
                tokens = f" {usage['prompt_tokens']}+{usage['completion_tokens']} tokens" if usage else ""
                self._log(f"{client} {scope['method']} {quote(path)} {status} {seconds:.3f} s{tokens}")


class Guard:
    """Refuses requests that must not reach an endpoint.

    Args:
        app: handles the others.
        api_key: which a request must have; None: none is needed.
        host_names: which the header Host may have; None: any. A server that can be reached from this machine only is
            given its own, or a page of another site whose name resolves to this machine could use it (DNS rebinding).
        allowed_origins: whose pages may use the server, besides its own.
    """

    def __init__(
        self, app: ASGIApp, api_key: str | None, host_names: Sequence[str] | None, allowed_origins: Sequence[str]
    ) -> None:
        self._app = app
        self._api_key = None if api_key is None else api_key.encode()
        self._host_names = host_names
        self._allowed_origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope["path"], Headers(scope=scope))
        except RequestError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, path: str, headers: Headers) -> None:
        """Raises RequestError if a request is refused."""
        host = headers.get("host", "")
        if self._host_names is not None and _parse_host(host) not in self._host_names:
            raise RequestError(f"the header Host must be a name of this machine, such as localhost, not {host[:64]!r}",
                               403)  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and origin not in self._allowed_origins and origin.partition("://")[2] != host:
            raise RequestError(f"pages of {origin[:64]!r} may not use this server: see --allowed-origins", 403)
        if self._api_key is not None and path not in PUBLIC_PATHS:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            is_correct = hmac.compare_digest(key.strip().encode("latin-1"), self._api_key)  # in constant time
            if scheme.lower() != "bearer" or not is_correct:
                raise RequestError("the API key is missing or wrong: send it as `Authorization: Bearer KEY`", 401,
                                   headers={"WWW-Authenticate": "Bearer"})  # fmt: skip


def _parse_host(host: str) -> str:
    """The host of a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # an invalid IPv6 address
        return ""
