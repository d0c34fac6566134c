"""Reading of request bodies, errors in the shape of OpenAI's API, and work that ends when its client goes away."""

import asyncio
import dataclasses
import reprlib
from collections.abc import Coroutine
from typing import Any, TypeVar, get_type_hints

from starlette.requests import Request
from starlette.responses import JSONResponse

from quickfox.config.schema import check_settings, has_type
from quickfox.errors import DataError, UsageError
from quickfox.files.json import parse_json

MAX_BODY_BYTES = 2**20
BODY_SECONDS = 20
"""Time in which a client must have sent the body of its request."""

Body = TypeVar("Body")
Result = TypeVar("Result")

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 500: "server_error"}
"""Status -> OpenAI's name of the type of error; all others are invalid requests."""


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        message: for the user; names no path of this machine.
        status: of HTTP.
        param: the field of the body that is the cause; None: another cause.
        headers: of the response.
    """

    def __init__(
        self, message: str, status: int = 400, *, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.headers = headers


class ClientGoneError(Exception):
    """The client closed its connection before the response was complete."""


def error_response(error: RequestError) -> JSONResponse:
    """The response for an error."""
    return JSONResponse(format_error(error), error.status, error.headers)


def format_error(error: RequestError) -> dict[str, Any]:
    """An error in the shape of OpenAI's API."""
    kind = _TYPES.get(error.status, "invalid_request_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": None}}


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Reads the JSON body of a request.

    Args:
        kind: a dataclass whose fields are the members that the body may have; those without a default are required. A
            member that is null counts as missing.

    Raises:
        RequestError: the body is too large, too slow, not JSON, or does not match `kind`.
        ClientGoneError: the client closed the connection.
    """
    try:
        values = parse_json(await _read_bytes(request), "the body", MAX_BODY_BYTES)
    except DataError as error:
        raise RequestError(str(error)) from None
    if not isinstance(values, dict):
        raise RequestError("the body must be a JSON object")
    return parse_members(values, kind)


async def _read_bytes(request: Request) -> bytes:
    too_large = RequestError(f"the body is larger than the limit of {MAX_BODY_BYTES} bytes", 413)
    if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:  # a number: the server checks it
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                data += message.get("body", b"")
                if len(data) > MAX_BODY_BYTES:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(data)
    except TimeoutError:
        raise RequestError(f"the body did not arrive within {BODY_SECONDS} seconds", 408) from None


def parse_members(values: dict[str, Any], kind: type[Body], prefix: str = "") -> Body:
    """Builds a dataclass from the members of a JSON object, strictly; see `read_body`.

    Args:
        prefix: path of the object in the body, for messages.
    """
    hints = get_type_hints(kind)
    if unknown := next((name for name in values if name not in hints), None):
        raise RequestError(f"unknown or unsupported field: {prefix}{reprlib.repr(unknown)}", param=unknown[:64])
    given = {name: value for name, value in values.items() if value is not None}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        is_required = field.default is dataclasses.MISSING
        if field.name not in given:
            if is_required:
                raise RequestError(f"{prefix}{field.name} is missing", param=field.name)
        elif not has_type(given[field.name], hints[field.name]):
            value = reprlib.repr(given[field.name])
            raise RequestError(
                f"{prefix}{field.name} cannot be {value}: it has another type or range", param=field.name
            )
    try:
        body = kind(**given)
        check_settings(body)
    except UsageError as error:
        raise usage_error(error) from None
    return body


def usage_error(error: UsageError) -> RequestError:
    """The response to an invalid setting."""
    return RequestError(str(error), param=error.settings[0] if error.settings else None)


async def run_until_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine, and cancels it if the client closes the connection.

    Raises:
        ClientGoneError: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
