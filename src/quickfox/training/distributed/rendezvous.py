"""Connect the workers of a cluster to the chief, and check that all were started with the same settings.

The chief listens on its address until all workers have connected; a worker that cannot reach it, or finds another
program there, retries until the timeout. TensorFlow's server then takes that port, and the connections stay open for
`messaging.py`. Like TensorFlow's own, this port has no authentication: it belongs behind a firewall.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from quickfox.errors import DataError, QuickfoxError, UnavailableError, UsageError
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.distributed.messaging import Control, Link, Message

CONNECT_SECONDS = 60.0
"""Time between the start of the first and of the last worker, at most."""

_HANDSHAKE_SECONDS = 5.0  # from connection to handshake
_RETRY_SECONDS = 0.2


@contextmanager
def connect_workers(
    spec: ClusterSpec,
    handshake: Message,
    abort: Callable[[QuickfoxError], None],
    timeout: float = CONNECT_SECONDS,
) -> Iterator[Control]:
    """Context manager that connects the workers, waiting at most `timeout` seconds for the others.

    Args:
        spec: the cluster.
        handshake: what must be the same in all workers, by name; JSON values.
        abort: see Control.

    Raises:
        UnavailableError: a worker did not connect in time, or the port of this one is in use.
        UsageError: the handshakes differ.
    """
    links = []
    if not spec.is_chief:
        links = [_connect_to_chief(spec, handshake, timeout)]
    elif spec.size > 1:
        links = _accept_workers(spec, handshake, timeout)
    control = Control(links, abort)
    try:
        yield control
    except GeneratorExit:  # the consumer of the events has had the last one
        raise
    except BaseException as error:
        control.fail(error)
        raise
    finally:
        control.close()


def _accept_workers(spec: ClusterSpec, handshake: Message, timeout: float) -> list[Link]:
    """The connections of the chief to all workers, by rank."""
    deadline = time.monotonic() + timeout
    links: dict[int, Link] = {}
    others = range(1, spec.size)
    with _listen(spec) as server:
        try:
            while len(links) < len(others):
                server.settimeout(max(0.01, deadline - time.monotonic()))
                link = Link("a worker", server.accept()[0])
                rank = _read_handshake(link, spec, handshake)
                if rank is None:  # not a worker of this cluster
                    link.close()
                    continue
                links = {other: known for other, known in links.items() if not known.is_closed()}
                if rank in links:
                    _reject([link], UsageError(f"another process is already connected as {spec.describe(rank)}"))
                else:
                    links[rank] = link
        except TimeoutError:
            missing = " and ".join(spec.describe(rank) for rank in others if rank not in links)
            error = UnavailableError(
                f"{missing} did not connect within {timeout:.0f} seconds: check that it is running and can reach "
                f"{spec.addresses[0]}"
            )
            _reject(links.values(), error)
            raise error from None
        except UsageError as error:
            _reject([*links.values(), link], error)
            raise
    for link in links.values():
        link.send({"welcome": True})
    return [links[rank] for rank in others]


def _listen(spec: ClusterSpec) -> socket.socket:
    """Opens a server socket on the port of this process, for IPv6 too where available."""
    address = ("", spec.endpoint(spec.rank)[1])
    try:
        with suppress(OSError):
            return socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(address)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnavailableError(
            f"{spec.describe(spec.rank)} cannot listen on its port: {reason}; choose another port"
        ) from None


def _read_handshake(link: Link, spec: ClusterSpec, handshake: Message) -> int | None:
    """Returns the rank of a new peer; None if it is not a worker. Raises UsageError if the handshakes differ."""
    theirs = _receive_first(link, _HANDSHAKE_SECONDS)
    rank = theirs.pop("rank", None)
    if type(rank) is not int or not 0 < rank < spec.size:
        return None
    link.peer = spec.describe(rank)
    for name in sorted(handshake.keys() | theirs.keys()):
        if theirs.get(name) != handshake.get(name):
            raise UsageError(
                f"{name} is {theirs.get(name, 'not given')!s:.80} at {link.peer} and "
                f"{handshake.get(name, 'not given')!s:.80} at the chief: start all workers with the same options",
                *([name] if name.isidentifier() else []),
            )
    return rank


def _reject(links: Iterable[Link], error: QuickfoxError) -> None:
    for link in links:
        link.send({"rejected": [int(error.exit_status), str(error), *error.settings]})
        link.close()


def _connect_to_chief(spec: ClusterSpec, handshake: Message, timeout: float) -> Link:
    with _listen(spec):
        pass  # TensorFlow's server needs this port later: fail now if it is in use
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection = socket.create_connection(spec.endpoint(0), timeout=_HANDSHAKE_SECONDS)
        except OSError as error:  # not started yet, or its host name does not resolve yet
            reason = error.strerror or str(error)
        else:
            link = Link(spec.describe(0), connection)
            link.send({**handshake, "rank": spec.rank})
            answer = _receive_first(link, timeout + 2 * _HANDSHAKE_SECONDS)  # when all have connected, or its timeout
            if answer.get("welcome"):
                return link
            link.close()
            if "rejected" in answer:
                status, reason, *settings = answer["rejected"]
                raise UsageError(reason, *settings) if status == UsageError.exit_status else UnavailableError(reason)
            reason = "it ended before all workers had connected, or another program uses its port"
        if time.monotonic() > deadline:
            raise UnavailableError(f"{spec.describe(0)} did not connect within {timeout:.0f} seconds: {reason}")
        time.sleep(_RETRY_SECONDS)


def _receive_first(link: Link, seconds: float) -> Message:
    """The first message of a peer; empty if it sends none within `seconds`, or an invalid one."""
    link.connection.settimeout(seconds)
    try:
        return next(link.iter_messages(), {})
    except (OSError, DataError):
        return {}
    finally:
        link.connection.settimeout(None)
