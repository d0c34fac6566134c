"""Workers wait for each other before TensorFlow starts, and say which is missing or has a public address."""

import socket
from contextlib import ExitStack

import pytest

from quickfox.errors import UnavailableError, UsageError
from quickfox.training.distributed import connection
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.distributed.connection import await_peers


@pytest.fixture
def addresses() -> tuple[str, ...]:
    """Three unused addresses."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)


def connect(addresses: tuple[str, ...], rank: int = 0, timeout: float = 0.0, *, trust_network: bool = False) -> str:
    """Waits for the peers, and returns the warning."""
    notices: list[str] = []
    await_peers(ClusterSpec(addresses, rank), notices.append, trust_network=trust_network, timeout=timeout)
    [warning] = notices
    return warning


def test_a_worker_waits_for_all_others_and_warns_of_their_ports(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [address.partition(":")[2] for address in addresses]
    absent = list(map(int, ports[1:]))
    with ExitStack() as stack:
        start_one = lambda _: stack.enter_context(socket.create_server(("127.0.0.1", absent.pop())))  # noqa: E731
        monkeypatch.setattr(connection.time, "sleep", start_one)  # while this worker waits
        warning = connect(addresses, timeout=60.0)
    assert absent == []
    assert warning.startswith("warning: whoever reaches port ")
    assert all(port in warning for port in ports)


@pytest.mark.parametrize("worker", ["127.0.0.1:7", "ann.invalid:7"])
def test_a_worker_that_is_missing_or_whose_host_does_not_resolve_is_named(
    addresses: tuple[str, ...], worker: str
) -> None:
    with pytest.raises(UnavailableError, match=rf"^worker 1 \({worker}\) did not connect within 0 seconds: "):
        connect((addresses[0], worker))


def test_a_port_in_use_is_named(addresses: tuple[str, ...]) -> None:
    port = int(addresses[0].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), pytest.raises(UnavailableError, match="cannot listen on its port"):
        connect(addresses)


@pytest.mark.parametrize("host", ["8.8.8.8", "[2001:4860:4860::8888]", "[::ffff:8.8.8.8]", "100.64.0.1"])
@pytest.mark.parametrize("rank", [0, 1])
def test_public_addresses_are_refused_unless_the_network_is_trusted(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, host: str, rank: int
) -> None:
    """Also one of the process itself."""
    workers = (addresses[0], f"{host}:7000")
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    with pytest.raises(UsageError, match=r"worker 1 .* has the public address"):
        connect(workers, rank)
    connect(workers, rank, trust_network=True)


@pytest.mark.parametrize("host", ["10.1.2.3", "192.168.0.1", "172.16.0.1", "127.0.0.1", "[::1]", "[fd00::1]"])
def test_private_addresses_are_not_refused(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    connect((addresses[0], f"{host}:7000"))
