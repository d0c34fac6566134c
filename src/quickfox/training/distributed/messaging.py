"""Messages between the chief and the workers of a cluster, over connections other than TensorFlow's.

Each worker has a connection to the chief, made by `rendezvous.py`. It carries one JSON object per line: a message for
the training loop; {}, a heartbeat; or one of three that this module handles:

    {"stop": true}  a worker requests that the run is saved and stopped
    {"failed": [class, reason, setting, ...]}  a process has failed, and all others must
    {"bye": true}  a process ends in an orderly way

A peer is lost if its connection breaks, if it sends no heartbeat for `LOST_SECONDS`, or if it does not respond (see
`Control.response_deadline`). Every worker then ends, and the run can be resumed. In a single process, the chief has no
peers. Independent of TensorFlow.
"""

import json
import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from quickfox.errors import DataError, PeerLostError, QuickfoxError
from quickfox.files.json import MAX_JSON_BYTES, parse_json

LOST_SECONDS = 20.0  # without a heartbeat; importing TensorFlow from a slow disk may suspend all threads for seconds
ABORT_SECONDS = 4.0  # from the loss of a peer until a process blocked in TensorFlow is aborted
_HEARTBEAT_SECONDS = 1.0
_POLL_SECONDS = 0.2

Message = dict[str, Any]

_ERRORS = {kind.__name__: kind for kind in QuickfoxError.__subclasses__()}


class Control:
    """The connections of one process: of the chief to all workers, of a worker to the chief.

    Args:
        links: one for each peer, by rank.
        abort: ends the process at once with an error; called in another thread if a peer is lost or has failed and the
            main thread, in which an exception is raised, is blocked.
    """

    def __init__(self, links: list["Link"], abort: Callable[[QuickfoxError], None] = lambda _: None) -> None:
        self._links = links
        self._abort = abort
        self._failure: QuickfoxError | None = None
        self._stop_requested = False
        self._closed = threading.Event()
        self._deadline = math.inf  # by `time.monotonic`
        self.advice = "restart all workers"
        for link in links:
            link.last_received = time.monotonic()  # connecting the other workers may have taken long
            threading.Thread(target=self._read, args=(link,), daemon=True).start()
        if links:
            threading.Thread(target=self._monitor, daemon=True).start()

    def send(self, **message: Any) -> None:
        """Sends a message of JSON values to every peer."""
        for link in self._links:
            link.send(message)

    def receive(self, on_idle: Callable[[], None] = lambda: None) -> list[Message]:
        """Waits for the next message of each peer, in order of rank; calls `on_idle` a few times a second meanwhile.

        Raises:
            PeerLostError: a peer is lost.
            QuickfoxError: a peer has failed; of the same type as its error.
        """
        return [self._next(link, on_idle) for link in self._links]

    def check(self) -> None:
        """Raises the errors of `receive` if a peer is lost or has failed."""
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def response_deadline(self, seconds: float) -> Iterator[None]:
        """Treats a peer as lost if the body, which waits for all peers, takes longer than `seconds`.

        A process may send heartbeats while its main thread hangs, for example on a disk that does not respond.
        """
        self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            self._deadline = math.inf

    def raise_failure(self, error: Exception) -> NoReturn:
        """Raises the cause of an error in a collective operation: a peer is lost, has failed or cannot be reached.

        Without peers, the cause is `error` itself.
        """
        deadline = time.monotonic() + LOST_SECONDS + 2 * _HEARTBEAT_SECONDS
        while self._links and time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_SECONDS)
        if not self._links:
            raise error
        reason = str(error).splitlines()[0]
        raise PeerLostError(f"the workers cannot reach each other: {reason:.200}; {self.advice}") from error

    def request_stop(self) -> None:
        """Requests, once, that the chief saves and stops the run."""
        if not self._stop_requested:
            self._stop_requested = True
            self.send(stop=True)

    def stop_requested(self) -> bool:
        """Whether a peer, or this process by `request_stop`, has requested to stop."""
        return self._stop_requested

    def fail(self, error: BaseException) -> None:
        """Notifies the peers that this process has failed, and why."""
        if error is self._failure:
            return
        if isinstance(error, QuickfoxError):
            self._send_failure(error)
        elif isinstance(error, Exception):
            self._send_failure(QuickfoxError(f"failed: {type(error).__name__}"))
        else:  # a signal before there was anything to save
            self._send_failure(PeerLostError(f"was stopped; {self.advice}"))

    def _send_failure(self, error: QuickfoxError) -> None:
        self.send(failed=[type(error).__name__, str(error), *error.settings])

    def close(self) -> None:
        """Closes all connections in an orderly way."""
        self.send(bye=True)
        self._closed.set()
        for link in self._links:
            link.close()

    def _next(self, link: "Link", on_idle: Callable[[], None]) -> Message:
        while True:
            self.check()
            with suppress(queue.Empty):
                return link.messages.get(timeout=_POLL_SECONDS)
            if link.is_done:
                self.check()
                raise PeerLostError(f"{link.peer} has ended; {self.advice}")
            on_idle()

    def _read(self, link: "Link") -> None:
        """Handles the messages of a peer until its connection ends."""
        try:
            for message in link.iter_messages():
                link.last_received = time.monotonic()
                if message.get("stop"):
                    self._stop_requested = True
                elif "failed" in message:
                    kind, reason, *settings = message["failed"]
                    self._end_run(_ERRORS.get(kind, QuickfoxError)(f"{link.peer}: {reason}", *settings))
                elif message.get("bye"):
                    link.is_done = True
                elif message:
                    link.messages.put(message)
        except (OSError, DataError):
            pass  # a broken connection or an invalid message: the peer is lost
        if not link.is_done:
            self._report_loss(link, "the connection broke")

    def _monitor(self) -> None:
        """Sends heartbeats, and checks those of the peers and the deadline."""
        while not self._closed.is_set():
            for link in self._links:
                link.send({})
                if not link.is_done and time.monotonic() - link.last_received > LOST_SECONDS:
                    self._report_loss(link, f"no heartbeat for {LOST_SECONDS:.0f} seconds")
            if time.monotonic() > self._deadline:
                self._end_run(PeerLostError(f"a worker hangs, and the others wait for it; {self.advice}"))
            self._closed.wait(_HEARTBEAT_SECONDS)

    def _report_loss(self, link: "Link", reason: str) -> None:
        self._end_run(PeerLostError(f"{link.peer} is lost: {reason}; {self.advice}"))

    def _end_run(self, failure: QuickfoxError) -> None:
        """Makes the main thread raise `failure`; aborts the process if it does not within `ABORT_SECONDS`."""
        if self._failure is not None or self._closed.is_set():
            return
        self._failure = failure
        self._send_failure(failure)

        def abort_if_blocked() -> None:
            if not self._closed.wait(ABORT_SECONDS):
                self._abort(failure)

        threading.Thread(target=abort_if_blocked, daemon=True).start()


class Link:
    """A connection to one peer.

    Attributes:
        peer: its name, for error messages.
        connection: the socket.
        messages: queue of those received.
        last_received: time of the last message or heartbeat, by `time.monotonic`.
        is_done: whether the peer has ended in an orderly way.
    """

    def __init__(self, peer: str, connection: socket.socket) -> None:
        self.peer = peer
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.last_received = time.monotonic()
        self.is_done = False
        self.connection = connection
        self._lines = connection.makefile("rb")
        self._send_lock = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Message) -> None:
        """Sends a message; failure is left to the thread that reads from this connection, which notices it too."""
        with self._send_lock, suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def iter_messages(self) -> Iterator[Message]:
        """Yields messages until the connection ends.

        Raises:
            OSError: the connection broke, or the timeout passed.
            DataError: an invalid message.
        """
        while line := self._lines.readline(MAX_JSON_BYTES):
            message = parse_json(line, self.peer)
            if not isinstance(message, dict):
                raise DataError(f"{self.peer}: not a message")
            yield message

    def is_closed(self) -> bool:
        """Whether the peer has closed the connection; valid only while no message is due."""
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
