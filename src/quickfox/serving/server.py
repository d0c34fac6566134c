"""The server: its socket, its connections, and its end."""

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

from quickfox.errors import CannotCreateError
from quickfox.serving.app import build_app
from quickfox.serving.generation import Event, Generation
from quickfox.serving.models import Log, ServedModel
from quickfox.serving.service import Service
from quickfox.system.ports import find_listener

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
MAX_CONNECTIONS = 512
MAX_HEADER_BYTES = 2**14
HEADER_SECONDS = 10.0
"""Time in which a client must have sent the headers of a request, the first or the next of a connection."""
STALLED_SECONDS = 30.0
"""Time for which a client may leave its response unread."""
KEEP_ALIVE_SECONDS = 30
"""Time for which a connection without a request is kept open after a response."""
SHUTDOWN_SECONDS = 30
"""Time that requests in hand have to finish after a stop signal."""


def is_loopback(host: str) -> bool:
    """Whether a server at this address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at an address, port 0: any free port.

    Raises:
        CannotCreateError: the port is taken or may not be used, or there is no such address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sets TCP_NODELAY only if the protocol is given
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # despite connections that ended just now
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: not a possible host name
        holder = find_listener(port)
        by = f", by {holder}" if holder else ""
        reason = getattr(error, "strerror", None) or error
        message = f"cannot serve at {host} port {port}: {reason}{by}; choose another with --port"
        raise CannotCreateError(message) from None
    return listener


def format_url(listener: socket.socket) -> str:
    """The address of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@dataclass(frozen=True)
class ServerSettings:
    """How models are served.

    Attributes:
        threads: processor threads of each model.
        max_length: maximum number of tokens of a prompt, and of all texts of a request together.
        max_requests: most requests to a model in hand at a time.
        api_key, host_names, allowed_origins: see `middleware.Guard`.
    """

    threads: int
    max_length: int
    max_requests: int
    api_key: str | None
    host_names: Sequence[str] | None
    allowed_origins: Sequence[str]


def serve(
    listener: socket.socket,
    paths: Mapping[str, Path],
    settings: ServerSettings,
    log: Log,
    access_log: Log | None,
    on_ready: Callable[[], None],
) -> None:
    """Serves models until a stop signal, whose handler, as it was before, is then called.

    Args:
        listener: closed at the end.
        paths: name -> run, checkpoint or model directory; the first is the default.
        settings: how they are served.
        log: receives messages.
        access_log: receives a line for each request; None: none.
        on_ready: called when requests are accepted.

    Raises:
        NoInputError, DataError, StorageError: a model cannot be loaded.
    """
    asyncio.run(_serve(listener, paths, settings, log, access_log, on_ready))


async def _serve(
    listener: socket.socket,
    paths: Mapping[str, Path],
    settings: ServerSettings,
    log: Log,
    access_log: Log | None,
    on_ready: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))  # encodes prompts

    def deliver(events: list[tuple[Generation, list[Event]]]) -> None:
        loop.call_soon_threadsafe(_call_listeners, events)

    models: dict[str, ServedModel] = {}
    try:
        for name, path in paths.items():
            models[name] = ServedModel(
                name, path, threads=settings.threads, max_requests=settings.max_requests, deliver=deliver, log=log
            )
        app = build_app(
            Service(models, settings.max_length),
            api_key=settings.api_key,
            host_names=settings.host_names,
            allowed_origins=settings.allowed_origins,
            access_log=access_log,
        )
        config = Config(
            app,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        _redirect_log(log)
        await StoppableServer(config, on_ready).serve([listener])
    finally:
        for model in models.values():
            model.close()


def _call_listeners(events: list[tuple[Generation, list[Event]]]) -> None:
    for generation, its_events in events:
        generation.listener(its_events)


def _redirect_log(log: Log) -> None:
    """Sends messages of uvicorn and asyncio to `log`."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)):
                log(self.format(record))  # cancelled: a request that was in hand for too long after a stop signal

    for name in ("uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [Handler()]
        logger.propagate = False


class StoppableServer(Server):
    """A server that tells when it is ready, and that SIGHUP stops too."""

    def __init__(self, config: Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():  # at its end, the signals are raised again
            previous = signal.getsignal(signal.SIGHUP)
            if previous != signal.SIG_IGN:  # ignored by nohup
                signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, previous)


class BoundedConnection(H11Protocol):
    """A connection that is cut off if its client is too slow, or if there are too many."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_timer = _Timer(HEADER_SECONDS, transport.abort)
        self._stalled_timer = _Timer(STALLED_SECONDS, transport.abort)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._header_timer.start(self.loop)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._header_timer.stop()
        else:
            self._header_timer.start(self.loop)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_timer.start(self.loop)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_timer.stop()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # close would wait for the client to read the rest of its response

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_timer.stop()
        self._stalled_timer.stop()
        super().connection_lost(exc)


class _Timer:
    """Calls a function once, after a time, unless it is stopped before."""

    def __init__(self, seconds: float, function: Callable[[], object]) -> None:
        self._seconds = seconds
        self._function = function
        self._handle: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the timer unless it runs."""
        if self._handle is None:
            self._handle = loop.call_later(self._seconds, self._function)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
