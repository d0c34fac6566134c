"""How the workers of a cluster find each other: the others come to the chief, and all must have been started alike.

The chief listens on its own address of the cluster until all have come; a worker that cannot reach it, or finds another
program there, tries again until its time is over. Then TensorFlow's server takes that port, and the connections stay,
for `control.py`. Like TensorFlow's own, this port has no authentication: it belongs behind a firewall.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from quickfox.errors import DataError, QuickfoxError, UnavailableError, UsageError
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.distributed.messaging import Control, Link, Message

JOIN_SECONDS = 60.0
"""How long after the first worker the last one may come."""

_HELLO_SECONDS = 5.0  # to say who one is, once connected
_RETRY_SECONDS = 0.2


@contextmanager
def connect_workers(
    spec: ClusterSpec | None,
    hello: Message,
    leave: Callable[[QuickfoxError], None],
    join_seconds: float = JOIN_SECONDS,
) -> Iterator[Control]:
    """Finds the other workers, and stays connected with them for the length of the block.

    Args:
        spec: the cluster; None: this process is alone.
        hello: what must be the same of all workers, by name; anything JSON can hold.
        leave: see Control.
        join_seconds: how long to wait for the others.

    Raises:
        UnavailableError: a worker has not come in time, and which; or this one's port is taken.
        UsageError: the workers were not started alike.
    """
    if spec is None:
        yield Control([], leave)
        return
    links = _await_workers(spec, hello, join_seconds) if spec.is_chief else [_find_chief(spec, hello, join_seconds)]
    control = Control(links, leave)
    try:
        yield control
    except GeneratorExit:  # who asked for the run's events has had the last one
        raise
    except BaseException as error:
        control.fail(error)
        raise
    finally:
        control.close()


def _await_workers(spec: ClusterSpec, hello: Message, join_seconds: float) -> list[Link]:
    """The chief's part: links to all workers, by rank."""
    deadline = time.monotonic() + join_seconds
    links: dict[int, Link] = {}
    others = range(1, len(spec.addresses))
    with _listening(spec) as server:
        try:
            while len(links) < len(others):
                server.settimeout(max(0.01, deadline - time.monotonic()))
                link = Link("a worker", server.accept()[0])
                rank = _accept_handshakes(link, spec, hello)
                if rank is None:  # none of us
                    link.close()
                    continue
                links = {other: known for other, known in links.items() if not known.has_ended()}
                if rank in links:
                    _refuse([link], UsageError(f"another process has come as {spec.describe(rank)} before"))
                else:
                    links[rank] = link
        except TimeoutError:
            missing = " and ".join(spec.describe(rank) for rank in others if rank not in links)
            error = UnavailableError(
                f"{missing} did not come within {join_seconds:.0f} seconds: started, not failed by itself, and able to "
                f"reach {spec.addresses[0]}?"
            )
            _refuse(links.values(), error)
            raise error from None
        except UsageError as error:
            _refuse([*links.values(), link], error)
            raise
    for link in links.values():
        link.send({"welcome": True})
    return [links[rank] for rank in others]


def _listening(spec: ClusterSpec) -> socket.socket:
    """A server at this process's port, for IPv6 too where there is any."""
    place = ("", spec.endpoint(spec.rank)[1])
    try:
        with suppress(OSError):
            return socket.create_server(place, family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(place)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnavailableError(
            f"{spec.describe(spec.rank)} cannot listen on its port: {reason}: choose another one"
        ) from None


def _accept_handshakes(link: Link, spec: ClusterSpec, hello: Message) -> int | None:
    """The rank of who has connected; None if it is nobody of ours. Raises UsageError if it was started otherwise."""
    link.wait_at_most(_HELLO_SECONDS)
    try:
        theirs = next(link.received(), {})
    except (OSError, DataError):
        return None
    link.wait_at_most(None)
    rank = theirs.pop("rank", None)
    if type(rank) is not int or not 0 < rank < len(spec.addresses):
        return None
    link.peer = spec.describe(rank)
    for name in sorted(hello.keys() | theirs.keys()):
        if theirs.get(name) != hello.get(name):
            raise UsageError(
                f"{name} is {theirs.get(name, 'not given')!s:.80} at {link.peer} and "
                f"{hello.get(name, 'not given')!s:.80} at the chief: start all workers alike"
            )
    return rank


def _refuse(links: Iterable[Link], error: QuickfoxError) -> None:
    for link in links:
        link.send({"refused": [int(error.exit_status), str(error)]})
        link.close()


def _find_chief(spec: ClusterSpec, hello: Message, join_seconds: float) -> Link:
    """A worker's part: the link to the chief."""
    with _listening(spec):
        pass  # TensorFlow's server will need the port: better to know now that it is taken
    deadline = time.monotonic() + join_seconds
    while True:
        try:
            connection = socket.create_connection(spec.endpoint(0), timeout=_HELLO_SECONDS)
        except OSError as error:  # not there yet, or its name is not known yet
            reason = error.strerror or str(error)
        else:
            link = Link(spec.describe(0), connection)
            answer = _answer(link, {**hello, "rank": spec.rank}, join_seconds + 2 * _HELLO_SECONDS)
            if answer.get("welcome"):
                return link
            link.close()
            if "refused" in answer:
                status, reason = answer["refused"]
                raise (UsageError if status == UsageError.exit_status else UnavailableError)(reason)
            reason = "it ended before all workers had come, or another program is there"
        if time.monotonic() > deadline:
            raise UnavailableError(f"{spec.describe(0)} did not come within {join_seconds:.0f} seconds: {reason}")
        time.sleep(_RETRY_SECONDS)


def _answer(link: Link, hello: Message, seconds: float) -> Message:
    """What the chief says to a greeting, when all have come or its time is over; empty if it says nothing of ours."""
    link.send(hello)
    link.wait_at_most(seconds)
    try:
        return next(link.received(), {})
    except (OSError, DataError):
        return {}
    finally:
        link.wait_at_most(None)
