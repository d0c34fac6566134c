"""`llm serve`: an HTTP server with OpenAI's API for trained models."""

import os
from pathlib import Path
from typing import Annotated

import typer

from quickfox.cli.options import ThreadsOption, option
from quickfox.cli.signals import STOP_SIGNALS, allow_slow_stop
from quickfox.cli.streams import flush_standard_output, notify, write_output
from quickfox.errors import UnavailableError, UsageError
from quickfox.system.threads import choose_threads, pin_numpy_threads

EXAMPLES = """\b
Examples:
  llm serve
  llm serve runs/corpus runs/letters --port 8000
  curl http://127.0.0.1:8080/v1/completions -d '{"prompt": "The ", "max_tokens": 200}'"""

API_KEY_VARIABLE = "QUICKFOX_API_KEY"
BATCH_SIZE = 64

RunsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN...]",
        help="Runs, checkpoints or model directories, served by their names. Default: $QUICKFOX_MODEL, else the newest "
        "run under ./runs.",
        show_default=False,
    ),
]
HostOption = Annotated[str, option("--host", "Address to listen at. Default: 127.0.0.1.", metavar="ADDRESS")]
PortOption = Annotated[
    int, option("--port", "Port to listen at; 0 is any free one. Default: 8080.", metavar="N", min=0, max=65535)
]
ApiKeyOption = Annotated[
    str | None,
    option("--api-key", f"Key that requests must have. Default: ${API_KEY_VARIABLE}, else none.", metavar="KEY"),
]
OriginsOption = Annotated[
    list[str] | None,
    option(
        "--allowed-origins",
        "Site whose pages may use the server from a browser, such as https://example.org; repeatable. Default: none.",
        metavar="URL",
    ),
]
MaxLengthOption = Annotated[
    int,
    option(
        "--max-length",
        "Maximum number of tokens of a prompt, and of all texts of a request together. Default: 65536.",
        metavar="N",
        min=1,
        max=2**31,
    ),
]
QueueOption = Annotated[
    int,
    option(
        "--queue",
        f"Number of requests to a model that may wait while {BATCH_SIZE} are processed; more are refused. "
        "Default: 256.",
        metavar="N",
        min=0,
        max=2**20,
    ),
]
QuietOption = Annotated[bool, option("--quiet", "Do not log requests to standard error.")]


def run(
    runs: RunsArgument = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8080,
    api_key: ApiKeyOption = None,
    allowed_origins: OriginsOption = None,
    threads: ThreadsOption = None,
    max_length: MaxLengthOption = 2**16,
    queue: QueueOption = 256,
    quiet: QuietOption = False,
) -> None:
    """Serve trained models over HTTP: OpenAI's API, and a page to try them. Prints the address.

    A run is loaded again when it has a better checkpoint.
    """
    if api_key == "":
        raise UsageError("api_key must not be empty", "api_key")
    pin_numpy_threads(1)  # batches are sampled by threads of our own
    try:
        from quickfox.serving.server import LOOPBACK_NAMES, ServerSettings, format_url, is_loopback, open_socket, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "h11"):
            raise
        raise UnavailableError(f"`llm serve` needs {error.name}: pip install 'quickfox[serve]'") from None

    paths = _name_models(runs or [_default_run()])
    api_key = api_key or os.environ.get(API_KEY_VARIABLE) or None
    host_names = (*LOOPBACK_NAMES, host) if is_loopback(host) else None
    listener = open_socket(host, port)
    if host_names is None and api_key is None:
        notify(f"warning: everyone who can reach {host} can use the models: --api-key limits it to those with the key")

    def announce() -> None:
        allow_slow_stop(*STOP_SIGNALS)  # requests in hand are finished
        write_output(f"{format_url(listener)}\n")
        flush_standard_output()

    settings = ServerSettings(
        threads=choose_threads(threads, notify),
        max_length=max_length,
        max_requests=BATCH_SIZE + queue,
        api_key=api_key,
        host_names=host_names,
        allowed_origins=[origin.rstrip("/") for origin in allowed_origins or []],
    )
    serve(listener, paths, settings, notify, None if quiet else notify, announce)


def _default_run() -> str:
    """The run or model that is served if none is named."""
    from quickfox.checkpoints.run_directory import CHECKPOINTS_DIRECTORY, MODEL_VARIABLE, find_model

    directory, note, _ = find_model(None, os.environ, Path())
    if note:
        notify(note)
    if named := os.environ.get(MODEL_VARIABLE):
        return named
    assert directory.parent.name == CHECKPOINTS_DIRECTORY, "the newest run has checkpoints"
    return str(directory.parent.parent)


def _name_models(runs: list[str]) -> dict[str, Path]:
    """The path of each model by its name, the last part of its path.

    Raises:
        UsageError: two have the same name.
    """
    paths: dict[str, Path] = {}
    for run in runs:
        path = Path(run)
        name = path.resolve().name.encode(errors="backslashreplace").decode()  # it need not be UTF-8
        if name in paths:
            raise UsageError(f"{paths[name]} and {path} have the same name, {name}: rename one, or link to it")
        paths[name] = path
    return paths
