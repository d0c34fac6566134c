"""The page at /, and the history of a run, which it draws.

The page is one file, which loads nothing: its policy allows exactly its own script and style, and requests to this
server.
"""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from quickfox.serving.service import Service


async def show_page(_request: Request) -> Response:
    """`GET /`: the page to try the models."""
    html, headers = load_page()
    return HTMLResponse(html, headers=headers)


async def show_history(request: Request) -> Response:
    """`GET /v1/models/NAME/history`: the losses and samples of a run; of a model that is no run, none."""
    service: Service = request.app.state.service
    served = service.find(request.path_params["name"])
    return JSONResponse({"object": "history", "model": served.name, **await served.get_history()})


@cache
def load_page() -> tuple[bytes, dict[str, str]]:
    """The page and its headers; read once, when the server starts."""
    html = resources.files("quickfox.serving").joinpath("page.html").read_bytes()
    policy = (
        f"default-src 'none'; script-src {_hash_source(html, 'script')}; style-src {_hash_source(html, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return html, headers


def _hash_source(html: bytes, tag: str) -> str:
    """What allows the only script or style of the page in its Content-Security-Policy: the hash of its content."""
    [content] = re.findall(f"<{tag}>(.*?)</{tag}>".encode(), html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
