"""How the workers of a cluster find each other: the others come to the chief, and all must have been started alike.

The chief listens on its own address of the cluster until all have come. Then TensorFlow's server takes that port, and
the connections stay, for `control.py`. Like TensorFlow's own, this port has no authentication: it belongs behind a
firewall.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from quickfox.errors import DataError, QuickfoxError, UnavailableError, UsageError
from quickfox.training.cluster_spec import ClusterSpec
from quickfox.training.control import Control, Link, Message

JOIN_SECONDS = 60.0
"""How long after the first worker the last one may come."""

_HELLO_SECONDS = 5.0  # to say who one is, once connected
_RETRY_SECONDS = 0.2


@contextmanager
def joined(
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
    deadline = time.monotonic() + join_seconds
    links = _await_workers(spec, hello, deadline) if spec.is_chief else [_find_chief(spec, hello, deadline)]
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


def _await_workers(spec: ClusterSpec, hello: Message, deadline: float) -> list[Link]:
    """The chief's part: links to all workers, by rank."""
    links: dict[int, Link] = {}
    others = range(1, len(spec.addresses))
    with _listening(spec) as server:
        try:
            while len(links) < len(others):
                server.settimeout(max(0.01, deadline - time.monotonic()))
                link = Link("a worker", server.accept()[0])
                rank = _greeted(link, spec, hello)
                if rank is not None and rank not in links:
                    links[rank] = link
                else:  # none of us
                    link.close()
        except TimeoutError:
            missing = " and ".join(spec.describe(rank) for rank in others if rank not in links)
            error = UnavailableError(
                f"{missing} did not come within the time: started, and able to reach {spec.addresses[0]}?"
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
    port = int(spec.addresses[0].rsplit(":", 1)[1])
    try:
        return socket.create_server(("", port), backlog=len(spec.addresses))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnavailableError(f"{spec.describe(0)} cannot listen on its port: {reason}: choose another one") from None


def _greeted(link: Link, spec: ClusterSpec, hello: Message) -> int | None:
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
                f"{name} is {theirs.get(name)!r:.80} at {link.peer} and {hello.get(name)!r:.80} at the chief: "
                f"start all workers alike"
            )
    return rank


def _refuse(links: Iterable[Link], error: QuickfoxError) -> None:
    for link in links:
        link.send({"refused": [int(error.exit_status), str(error)]})
        link.close()


def _find_chief(spec: ClusterSpec, hello: Message, deadline: float) -> Link:
    """A worker's part: the link to the chief."""
    host, port = spec.addresses[0].rsplit(":", 1)
    while True:
        try:
            connection = socket.create_connection((host, int(port)), timeout=_HELLO_SECONDS)
            break
        except OSError as error:  # not there yet, or its name is not known yet
            if time.monotonic() > deadline:
                reason = error.strerror or str(error)
                raise UnavailableError(f"{spec.describe(0)} did not come within the time: {reason}") from None
            time.sleep(_RETRY_SECONDS)
    link = Link(spec.describe(0), connection)
    link.send({**hello, "rank": spec.rank})
    link.wait_at_most(max(0.0, deadline - time.monotonic()) + 2 * _HELLO_SECONDS)
    try:
        answer = next(link.received(), {})
    except (OSError, DataError):
        answer = {}
    link.wait_at_most(None)
    if "refused" in answer:
        status, reason = answer["refused"]
        raise (UsageError if status == UsageError.exit_status else UnavailableError)(reason)
    if not answer.get("welcome"):
        raise UnavailableError(f"{link.peer} ended before all workers had come")
    return link
