"""Workers that connect, are missing or have other settings, and connections of other programs."""

import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from quickfox.errors import UnavailableError, UsageError
from quickfox.training.distributed.cluster_spec import SINGLE_PROCESS, ClusterSpec
from quickfox.training.distributed.messaging import Message
from quickfox.training.distributed.rendezvous import connect_workers


def addresses(count: int) -> tuple[str, ...]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)


def connect_all(
    handshakes: list[Message], seconds: float = 30.0, size: int | None = None
) -> list[Callable[[], object]]:
    """Connects workers with these handshakes; returns a function per rank that returns its messages or raises."""
    hosts = addresses(size or len(handshakes))

    def join(rank: int) -> object:
        with connect_workers(ClusterSpec(hosts, rank), handshakes[rank], lambda _: None, seconds) as control:
            control.send(rank=rank)
            return control.receive()

    with ThreadPoolExecutor(len(handshakes)) as pool:
        futures = [pool.submit(join, rank) for rank in range(len(handshakes))]
    return [future.result for future in futures]


def connect_when_listening(address: str) -> socket.socket:
    """Connects to the chief as soon as it listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=10)
        except ConnectionRefusedError:
            threading.Event().wait(0.01)


def test_connected_workers_exchange_messages_with_the_chief() -> None:
    chief, first, second = connect_all([{"version": 1}] * 3)
    assert chief() == [{"rank": 1}, {"rank": 2}]
    assert first() == second() == [{"rank": 0}]


def test_a_missing_worker_is_named_in_all_processes() -> None:
    for outcome in connect_all([{}, {}], seconds=1.0, size=3):
        with pytest.raises(UnavailableError, match=r"worker 2 \(127\.0\.0\.1:\d+\) did not connect"):
            outcome()


def test_a_missing_chief_is_named() -> None:
    with (
        pytest.raises(UnavailableError, match=r"the chief \(127\.0\.0\.1:\d+\) did not connect"),
        connect_workers(ClusterSpec(addresses(2), 1), {}, lambda _: None, 0.5),
    ):
        pytest.fail("connected to a missing chief")


def test_different_settings_are_refused() -> None:
    for outcome in connect_all([{"--steps": 5, "--size": "tiny"}, {"--steps": 6, "--size": "tiny"}]):
        with pytest.raises(
            UsageError, match=r"--steps is 6 at worker 1 .* and 5 at the chief: start all workers with the same options"
        ):
            outcome()


@pytest.mark.parametrize(("rank", "name"), [(0, "the chief"), (1, "worker 1")])
def test_a_port_in_use_is_named(rank: int, name: str) -> None:
    with socket.create_server(("", 0)) as taken:
        hosts = ["127.0.0.1:1", "127.0.0.1:1"]
        hosts[rank] = f"127.0.0.1:{taken.getsockname()[1]}"
        spec = ClusterSpec(tuple(hosts), rank)
        with (
            pytest.raises(UnavailableError, match=f"{name} .* cannot listen"),
            connect_workers(spec, {}, lambda _: None, 0.5),
        ):
            pytest.fail("listened on a port in use")


def test_a_restarted_worker_replaces_its_first_connection() -> None:
    hosts = addresses(3)

    def join(rank: int) -> object:
        if rank == 1:
            with connect_when_listening(hosts[0]) as first_attempt:
                first_attempt.sendall(b'{"rank": 1}\n')
            ended.set()
        if rank == 2:
            ended.wait()
        with connect_workers(ClusterSpec(hosts, rank), {}, lambda _: None) as control:
            control.send(rank=rank)
            return control.receive()

    ended = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        chief, *workers = list(pool.map(join, range(3)))
    assert chief == [{"rank": 1}, {"rank": 2}]
    assert workers == [[{"rank": 0}]] * 2


def test_two_workers_of_one_rank_are_refused() -> None:
    hosts = addresses(3)
    with ThreadPoolExecutor(3) as pool:

        def join(rank: int) -> object:
            with connect_workers(ClusterSpec(hosts, rank), {}, lambda _: None, 2.0) as control:
                return control.receive()

        outcomes = [pool.submit(join, rank) for rank in (0, 1, 1)]
    messages = "\n".join(str(outcome.exception()) for outcome in outcomes)
    assert re.search(
        "another process is already connected as worker 1|worker 1 .* cannot listen", messages
    )  # at once, or in turn


def test_a_worker_retries_if_another_program_uses_the_chiefs_port() -> None:
    hosts = addresses(2)
    stranger = socket.create_server(("127.0.0.1", int(hosts[0].rsplit(":", 1)[1])))

    def join(rank: int) -> object:
        if rank == 0:
            with stranger, stranger.accept()[0] as caller:
                caller.sendall(b"\x00\x00\x12\x04\n")
        with connect_workers(ClusterSpec(hosts, rank), {}, lambda _: None) as control:
            control.send(rank=rank)
            return control.receive()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(join, range(2))) == [[{"rank": 1}], [{"rank": 0}]]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_addresses_may_be_ipv6() -> None:
    hosts = tuple(place.replace("127.0.0.1", "[::1]") for place in addresses(2))

    def join(rank: int) -> object:
        with connect_workers(ClusterSpec(hosts, rank), {}, lambda _: None) as control:
            control.send(rank=rank)
            return control.receive()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(join, range(2))) == [[{"rank": 1}], [{"rank": 0}]]


def test_connections_of_other_programs_are_closed() -> None:
    hosts = addresses(2)

    def knock() -> None:
        for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"rank": 7}\n', b'{"rank": 0}\n', b""):
            with connect_when_listening(hosts[0]) as stranger:
                stranger.sendall(words)

    def join(rank: int) -> object:
        if rank:
            knock()
        with connect_workers(ClusterSpec(hosts, rank), {}, lambda _: None) as control:
            control.send(rank=rank)
            return control.receive()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(join, range(2))) == [[{"rank": 1}], [{"rank": 0}]]


def test_a_single_process_waits_for_no_connection() -> None:
    with connect_workers(SINGLE_PROCESS, {}, lambda _: None) as control:
        assert control.receive() == []
