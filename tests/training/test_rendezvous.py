"""Workers that find each other, that are missing, that were started otherwise, and strangers at the door."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from quickfox.errors import UnavailableError, UsageError
from quickfox.training.cluster_spec import ClusterSpec
from quickfox.training.control import Message
from quickfox.training.rendezvous import joined


def addresses(count: int) -> tuple[str, ...]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)


def meet(hellos: list[Message], seconds: float = 30.0, size: int | None = None) -> list[Callable[[], object]]:
    """What becomes of workers with these greetings, by rank: to be called for the result or the error."""
    places = addresses(size or len(hellos))

    def join(rank: int) -> object:
        with joined(ClusterSpec(places, rank), hellos[rank], lambda _: None, seconds) as control:
            control.tell(rank=rank)
            return control.hear()

    with ThreadPoolExecutor(len(hellos)) as pool:
        futures = [pool.submit(join, rank) for rank in range(len(hellos))]
    return [future.result for future in futures]


def test_all_who_come_talk_to_the_chief() -> None:
    chief, first, second = meet([{"version": 1}] * 3)
    assert chief() == [{"rank": 1}, {"rank": 2}]
    assert first() == second() == [{"rank": 0}]


def test_one_that_does_not_come_is_named_to_all() -> None:
    for outcome in meet([{}, {}], seconds=1.0, size=3):
        with pytest.raises(UnavailableError, match=r"worker 2 \(127\.0\.0\.1:\d+\) did not come"):
            outcome()


def test_a_chief_that_does_not_come_is_named() -> None:
    with (
        pytest.raises(UnavailableError, match=r"the chief \(127\.0\.0\.1:\d+\) did not come"),
        joined(ClusterSpec(addresses(2), 1), {}, lambda _: None, 0.5),
    ):
        pytest.fail("nobody is there")


def test_all_must_have_been_started_alike() -> None:
    for outcome in meet([{"the settings": {"steps": 5}}, {"the settings": {"steps": 6}}]):
        with pytest.raises(
            UsageError, match=r"the settings is \{'steps': 6\} at worker 1 .* and \{'steps': 5\} at the"
        ):
            outcome()


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        spec = ClusterSpec((f"127.0.0.1:{port}", "127.0.0.1:1"), 0)
        with pytest.raises(UnavailableError, match="cannot listen"), joined(spec, {}, lambda _: None, 0.5):
            pytest.fail("the port is taken")


def test_strangers_are_sent_away() -> None:
    places = addresses(2)
    port = int(places[0].rsplit(":", 1)[1])

    def knock() -> None:
        for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"rank": 7}\n', b'{"rank": 0}\n', b""):
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
                        stranger.sendall(words)
                    break
                except ConnectionRefusedError:
                    threading.Event().wait(0.01)

    def join(rank: int) -> object:
        if rank:
            knock()
        with joined(ClusterSpec(places, rank), {}, lambda _: None) as control:
            control.tell(rank=rank)
            return control.hear()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(join, range(2))) == [[{"rank": 1}], [{"rank": 0}]]


def test_a_process_that_is_alone_waits_for_nobody() -> None:
    with joined(None, {}, lambda _: None) as control:
        assert control.hear() == []
