"""The connections between workers before TensorFlow makes its own: is the network private, does every worker listen.

TensorFlow's servers have no authentication, and listen on all interfaces of a machine. While a worker is missing,
TensorFlow waits in a call that blocks Python, and does not say which one; so the workers first wait here.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

from quickfox.errors import UnavailableError, UsageError
from quickfox.training.distributed.cluster_spec import ClusterSpec

CONNECT_SECONDS = 60.0
"""Time between the start of the first and of the last worker, at most."""

_ATTEMPT_SECONDS = 2.0
_RETRY_SECONDS = 0.2


def await_peers(
    spec: ClusterSpec, notify: Callable[[str], None], *, trust_network: bool, timeout: float = CONNECT_SECONDS
) -> None:
    """Warns that the ports of the workers are open, and waits until every worker listens on its port.

    Raises:
        UnavailableError: a worker does not listen after `timeout` seconds, or the port of this one is in use.
        UsageError: a worker has a public address, and `trust_network` is false.
    """
    ports = sorted({spec.endpoint(rank)[1] for rank in range(spec.size)})
    notify(
        f"warning: whoever reaches port {', '.join(map(str, ports))} of the workers, open on every network interface, "
        f"can run code there: let only the workers reach it"
    )
    deadline = time.monotonic() + timeout
    with _listen(spec):
        for rank in range(spec.size):
            while reason := _try_to_reach(spec, rank, trust_network):
                if time.monotonic() > deadline:
                    name = spec.describe(rank)
                    raise UnavailableError(f"{name} did not connect within {timeout:.0f} seconds: {reason}")
                time.sleep(_RETRY_SECONDS)


def _try_to_reach(spec: ClusterSpec, rank: int, trust_network: bool) -> str:
    """Connects to a worker, other than this one, and closes the connection; returns why that failed, or nothing."""
    try:
        for *_, address in socket.getaddrinfo(*spec.endpoint(rank), type=socket.SOCK_STREAM):
            if not trust_network and not _is_private(str(address[0])):
                raise UsageError(
                    f"{spec.describe(rank)} has the public address {address[0]}: use a private network, or set "
                    f"trust_network if a firewall lets only the workers reach it",
                    "trust_network",
                )
        if rank != spec.rank:
            socket.create_connection(spec.endpoint(rank), _ATTEMPT_SECONDS).close()
    except OSError as error:  # not started yet, or its host name does not resolve yet
        return error.strerror or str(error)
    return ""


def _is_private(text: str) -> bool:
    """Whether a numeric address is private or of the loopback interface."""
    address = ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_private


def _listen(spec: ClusterSpec) -> socket.socket:
    """Opens a server socket on the port of this process, for IPv6 too where available."""
    address = ("", spec.endpoint(spec.rank)[1])
    try:
        with suppress(OSError):
            return socket.create_server(address, family=socket.AF_INET6, backlog=spec.size, dualstack_ipv6=True)
        return socket.create_server(address, backlog=spec.size)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        name = spec.describe(spec.rank)
        raise UnavailableError(f"{name} cannot listen on its port: {reason}; choose another port") from None
