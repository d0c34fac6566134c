"""How the workers of a cluster talk to each other beside TensorFlow: who is there, what to do next, who was lost.

Each worker has a connection to the chief, made in `rendezvous.py`. What goes over it is a JSON object a line: a message
for the training loop; {}, a sign of life; or one of three that are dealt with here,

    {"stop": true}  a worker asks for the run to be saved and stopped
    {"failed": [status, reason]}  a process fails, and all shall
    {"bye": true}  it ends, and that is no loss

A peer whose connection breaks, or which gives no sign of life for `LOST_SECONDS`, is lost, and so is the run until it
is resumed: every worker ends. So it is where a peer lives but does not answer, see `Control.response_deadline`. A process
that trains alone is the chief of nobody. Knows no TensorFlow.
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

from quickfox.errors import (
    CannotCreateError,
    DataError,
    ExitStatus,
    NoInputError,
    PeerLostError,
    QuickfoxError,
    StorageError,
    UnavailableError,
    UsageError,
)
from quickfox.files.json import MAX_JSON_BYTES, parse_json

LOST_SECONDS = 20.0  # without a sign of life; importing TensorFlow from a slow disk may stop all threads for some
ABORT_SECONDS = 4.0  # for a process to end by itself when a peer is lost, unless a call of TensorFlow holds it
_BEAT_SECONDS = 1.0
_POLL_SECONDS = 0.2

Message = dict[str, Any]

_KINDS = (UsageError, DataError, NoInputError, UnavailableError, CannotCreateError, StorageError, PeerLostError)
_ERRORS = {kind.exit_status: kind for kind in _KINDS}


class Control:
    """The connections of one process: of the chief to all workers, of a worker to the chief.

    Args:
        links: one for each peer, by rank.
        leave: ends the process at once, with a message; called from another thread when a peer is lost or has failed
            and the main thread, which is told by an exception, does not get to see it.
    """

    def __init__(self, links: list["Link"], leave: Callable[[QuickfoxError], None] = lambda _: None) -> None:
        self._links = links
        self._leave = leave
        self._failure: QuickfoxError | None = None
        self._stop_requested = False
        self._closed = threading.Event()
        self._answer_due = math.inf  # by `time.monotonic`
        self.advice = "start all again"
        for link in links:
            link.last_received = time.monotonic()  # it may have waited for others to come
            threading.Thread(target=self._read, args=(link,), daemon=True).start()
        if links:
            threading.Thread(target=self._watch, daemon=True).start()

    def send(self, **message: Any) -> None:
        """Sends a message, of anything JSON can hold, to every peer."""
        for link in self._links:
            link.send(message)

    def receive(self, on_idle: Callable[[], None] = lambda: None) -> list[Message]:
        """The next message of each peer, by rank; `on_idle` is called a few times a second.

        Raises:
            PeerLostError: a peer is lost.
            QuickfoxError: a peer has failed: the kind of its error, where that is one of ours.
        """
        return [self._next(link, on_idle) for link in self._links]

    def check(self) -> None:
        """Raises what `receive` does if there is a reason."""
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def response_deadline(self, seconds: float) -> Iterator[None]:
        """Takes a peer for lost if the block, which waits for all of them, takes longer.

        A process may give signs of life while its main thread hangs, on a disk that does not answer for example.
        """
        self._answer_due = time.monotonic() + seconds
        try:
            yield
        finally:
            self._answer_due = math.inf

    def raise_failure(self, error: Exception) -> NoReturn:
        """Raises why what all peers do together has failed: one is lost, or has failed, or cannot be reached.

        Without peers, it is `error` itself.
        """
        deadline = time.monotonic() + LOST_SECONDS + 2 * _BEAT_SECONDS
        while self._links and time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_SECONDS)
        if not self._links:
            raise error
        reason = str(error).splitlines()[0]
        raise PeerLostError(f"the workers do not reach each other: {reason:.200}; {self.advice}") from error

    def request_stop(self) -> None:
        """Asks the chief to save and to stop, once."""
        if not self._stop_requested:
            self._stop_requested = True
            self.send(stop=True)

    def stop_requested(self) -> bool:
        """Whether any of the peers, or this process by `request_stop`, has asked to stop."""
        return self._stop_requested

    def fail(self, error: BaseException) -> None:
        """Tells the peers that this process fails, and why."""
        if error is self._failure:
            return
        status, reason = ExitStatus.FAILURE, f"failed: {type(error).__name__}"
        if isinstance(error, QuickfoxError):
            status, reason = error.exit_status, str(error)
        elif not isinstance(error, Exception):  # asked to stop by a signal, before there was anything to save
            status, reason = ExitStatus.TEMPORARY, f"was stopped; {self.advice}"
        self.send(failed=[int(status), reason])

    def close(self) -> None:
        """Ends all connections; the peers are told that this is no loss."""
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
        """Takes what a peer says, until it is gone."""
        try:
            for message in link.received():
                link.last_received = time.monotonic()
                if message.get("stop"):
                    self._stop_requested = True
                elif "failed" in message:
                    status, reason = message["failed"]
                    self._end(_ERRORS.get(status, QuickfoxError)(f"{link.peer}: {reason}"))
                elif message.get("bye"):
                    link.is_done = True
                elif message:
                    link.messages.put(message)
        except (OSError, DataError):
            pass  # a broken connection, or what is no message: either way the peer is lost
        if not link.is_done:
            self._lose(link, "the connection broke")

    def _watch(self) -> None:
        """Gives signs of life, and looks for those of the peers."""
        while not self._closed.is_set():
            for link in self._links:
                link.send({})
                if not link.is_done and time.monotonic() - link.last_received > LOST_SECONDS:
                    self._lose(link, f"no sign of life for {LOST_SECONDS:.0f} seconds")
            if time.monotonic() > self._answer_due:
                self._end(PeerLostError(f"a worker hangs, and all wait for it; {self.advice}"))
            self._closed.wait(_BEAT_SECONDS)

    def _lose(self, link: "Link", why: str) -> None:
        self._end(PeerLostError(f"{link.peer} is lost: {why}; {self.advice}"))

    def _end(self, failure: QuickfoxError) -> None:
        """Makes the main thread raise `failure`, or else, after a while, leaves."""
        if self._failure is not None or self._closed.is_set():
            return
        self._failure = failure
        self.send(failed=[int(failure.exit_status), str(failure)])

        def leave_if_stuck() -> None:
            if not self._closed.wait(ABORT_SECONDS):
                self._leave(failure)

        threading.Thread(target=leave_if_stuck, daemon=True).start()


class Link:
    """A connection to one peer.

    Attributes:
        peer: its name, for messages.
        messages: those received and not yet taken.
        last_received: when it last gave a sign of life, by `time.monotonic`.
        is_done: whether it has ended in an orderly way.
    """

    def __init__(self, peer: str, connection: socket.socket) -> None:
        self.peer = peer
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.last_received = time.monotonic()
        self.is_done = False
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._sending = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Message) -> None:
        """Sends a message; if that fails the peer is lost, which its reader finds out."""
        with self._sending, suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def received(self) -> Iterator[Message]:
        """The messages as they come, until the connection ends.

        Raises:
            OSError: the connection broke, or nothing came for as long as was set by `wait_at_most`.
            DataError: what came is no message.
        """
        while line := self._lines.readline(MAX_JSON_BYTES):
            message = parse_json(line, self.peer)
            if not isinstance(message, dict):
                raise DataError(f"{self.peer}: not a message")
            yield message

    def has_ended(self) -> bool:
        """Whether the peer is gone, though nobody has read so; to be asked when it has nothing to say."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def wait_at_most(self, seconds: float | None) -> None:
        """Bounds how long each sending and receiving may take; None: for ever."""
        self._connection.settimeout(seconds)

    def close(self) -> None:
        """Ends the connection."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
