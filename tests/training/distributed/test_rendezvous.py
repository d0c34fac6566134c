"""Workers that find each other, that are missing, that were started otherwise, and strangers at the door."""

import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from quickfox.errors import UnavailableError, UsageError
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.distributed.messaging import Message
from quickfox.training.distributed.rendezvous import connect_workers


def addresses(count: int) -> tuple[str, ...]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)


def meet(hellos: list[Message], seconds: float = 30.0, size: int | None = None) -> list[Callable[[], object]]:
    """What becomes of workers with these greetings, by rank: to be called for the result or the error."""
    places = addresses(size or len(hellos))

    def join(rank: int) -> object:
        with connect_workers(ClusterSpec(places, rank), hellos[rank], lambda _: None, seconds) as control:
            control.send(rank=rank)
            return control.receive()

    with ThreadPoolExecutor(len(hellos)) as pool:
        futures = [pool.submit(join, rank) for rank in range(len(hellos))]
    return [future.result for future in futures]


def until_there(address: str) -> socket.socket:
    """A connection to the chief, as soon as it listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=10)
        except ConnectionRefusedError:
            threading.Event().wait(0.01)


def test_all_who_come_talk_to_the_chief() -> None:
    chief, first, second = meet([{"version": 1}] * 3)
    assert chief() == [{"rank": 1}, {"rank": 2}]
    assert first() == second() == [{"rank": 0}]


def test_one_that_does_not_come_is_named_to_all() -> None:
    for outcome in meet([{}, {}], seconds=1.0, size=3):
        with pytest.raises(UnavailableError, match=r"worker 2 \(127\.0\.0\.1:\d+\) did not connect"):
            outcome()


def test_a_chief_that_does_not_come_is_named() -> None:
    with (
        pytest.raises(UnavailableError, match=r"the chief \(127\.0\.0\.1:\d+\) did not connect"),
        connect_workers(ClusterSpec(addresses(2), 1), {}, lambda _: None, 0.5),
    ):
        pytest.fail("nobody is there")


def test_all_must_have_been_started_alike() -> None:
    for outcome in meet([{"--steps": 5, "--size": "tiny"}, {"--steps": 6, "--size": "tiny"}]):
        with pytest.raises(
            UsageError, match=r"--steps is 6 at worker 1 .* and 5 at the chief: start all workers with the same options"
        ):
            outcome()


@pytest.mark.parametrize(("rank", "name"), [(0, "the chief"), (1, "worker 1")])
def test_a_taken_port_is_named(rank: int, name: str) -> None:
    with socket.create_server(("", 0)) as taken:
        places = ["127.0.0.1:1", "127.0.0.1:1"]
        places[rank] = f"127.0.0.1:{taken.getsockname()[1]}"
        spec = ClusterSpec(tuple(places), rank)
        with (
            pytest.raises(UnavailableError, match=f"{name} .* cannot listen"),
            connect_workers(spec, {}, lambda _: None, 0.5),
        ):
            pytest.fail("the port is taken")


def test_a_worker_that_ended_and_was_started_again_takes_its_place() -> None:
    places = addresses(3)

    def join(rank: int) -> object:
        if rank == 1:
            with until_there(places[0]) as first_attempt:
                first_attempt.sendall(b'{"rank": 1}\n')
            ended.set()
        if rank == 2:
            ended.wait()
        with connect_workers(ClusterSpec(places, rank), {}, lambda _: None) as control:
            control.send(rank=rank)
            return control.receive()

    ended = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        chief, *workers = list(pool.map(join, range(3)))
    assert chief == [{"rank": 1}, {"rank": 2}]
    assert workers == [[{"rank": 0}]] * 2


def test_two_of_one_rank_are_told() -> None:
    places = addresses(3)
    with ThreadPoolExecutor(3) as pool:

        def join(rank: int) -> object:
            with connect_workers(ClusterSpec(places, rank), {}, lambda _: None, 2.0) as control:
                return control.receive()

        outcomes = [pool.submit(join, rank) for rank in (0, 1, 1)]
    said = "\n".join(str(outcome.exception()) for outcome in outcomes)
    assert re.search("another process is already connected as worker 1|worker 1 .* cannot listen", said)  # at once, or in turn


def test_a_worker_that_finds_another_program_at_the_chiefs_port_tries_again() -> None:
    places = addresses(2)
    stranger = socket.create_server(("127.0.0.1", int(places[0].rsplit(":", 1)[1])))

    def join(rank: int) -> object:
        if rank == 0:
            with stranger, stranger.accept()[0] as caller:
                caller.sendall(b"\x00\x00\x12\x04\n")
        with connect_workers(ClusterSpec(places, rank), {}, lambda _: None) as control:
            control.send(rank=rank)
            return control.receive()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(join, range(2))) == [[{"rank": 1}], [{"rank": 0}]]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_addresses_may_be_of_ipv6() -> None:
    places = tuple(place.replace("127.0.0.1", "[::1]") for place in addresses(2))

    def join(rank: int) -> object:
        with connect_workers(ClusterSpec(places, rank), {}, lambda _: None) as control:
            control.send(rank=rank)
            return control.receive()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(join, range(2))) == [[{"rank": 1}], [{"rank": 0}]]


def test_strangers_are_sent_away() -> None:
    places = addresses(2)

    def knock() -> None:
        for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"rank": 7}\n', b'{"rank": 0}\n', b""):
            with until_there(places[0]) as stranger:
                stranger.sendall(words)

    def join(rank: int) -> object:
        if rank:
            knock()
        with connect_workers(ClusterSpec(places, rank), {}, lambda _: None) as control:
            control.send(rank=rank)
            return control.receive()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(join, range(2))) == [[{"rank": 1}], [{"rank": 0}]]


def test_a_process_that_is_alone_waits_for_nobody() -> None:
    with connect_workers(None, {}, lambda _: None) as control:
        assert control.receive() == []
