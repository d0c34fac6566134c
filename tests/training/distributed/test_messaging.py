"""Messages between processes over real sockets, and peers that fail, hang or disappear."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from quickfox.errors import DataError, PeerLostError, QuickfoxError, StorageError, UsageError
from quickfox.training.distributed import messaging as control
from quickfox.training.distributed.messaging import Control, Link


def connected() -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        return server.accept()[0], caller


@pytest.fixture
def aborts() -> list[QuickfoxError]:
    return []


@pytest.fixture
def pair(aborts: list[QuickfoxError]) -> Iterator[tuple[Control, Control]]:
    """A chief and its only worker."""
    ends = connected()
    chief = Control([Link("worker 1", ends[0])], aborts.append)
    worker = Control([Link("the chief", ends[1])], aborts.append)
    yield chief, worker
    chief.close()
    worker.close()


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true through another thread, within 20 seconds."""
    waiting = threading.Event()
    return any(condition() or waiting.wait(0.01) for _ in range(2000)) and condition()


def test_messages_arrive_in_order(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    chief.send(do="steps", count=3)
    chief.send(do="end")
    assert worker.receive() == [{"do": "steps", "count": 3}]
    assert worker.receive() == [{"do": "end"}]
    worker.send(text="é\n")
    assert chief.receive() == [{"text": "é\n"}]


def test_a_single_process_exchanges_no_messages() -> None:
    single = Control([])
    single.send(do="steps")
    assert single.receive() == []
    single.check()
    assert not single.stop_requested()


def test_a_stop_requested_by_a_worker_reaches_the_chief(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    worker.request_stop()
    assert eventually(chief.stop_requested)


def test_receive_calls_on_idle_while_it_waits(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    assert worker.receive(on_idle=lambda: chief.send(at_last=True))[0] == {"at_last": True}


def test_a_failed_worker_raises_its_error_in_the_chief(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    worker.fail(DataError("no such text"))
    with pytest.raises(DataError, match="worker 1: no such text"):
        chief.receive()


def test_a_failure_keeps_its_exception_class(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    worker.fail(StorageError("the disk is full"))
    with pytest.raises(StorageError, match="worker 1: the disk is full"):
        chief.receive()


def test_a_failure_keeps_its_settings(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    chief.fail(UsageError("hidden_dim must be even", "hidden_dim"))
    with pytest.raises(UsageError, match="the chief: hidden_dim must be even") as error:
        worker.receive()
    assert error.value.settings == ("hidden_dim",)


def test_an_unexpected_exception_is_reported_too(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    chief.fail(ZeroDivisionError())
    with pytest.raises(QuickfoxError, match="the chief: failed: ZeroDivisionError"):
        worker.receive()


def test_an_interrupted_peer_is_not_a_failure(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    chief.fail(KeyboardInterrupt())
    with pytest.raises(PeerLostError, match="the chief: was stopped; restart all workers"):
        worker.receive()


def test_a_broken_connection_is_a_lost_peer_and_says_how_to_resume(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    chief.advice = "resume with: llm train --resume fox"
    worker._links[0].close()  # as at the end of its process
    with pytest.raises(
        PeerLostError, match="worker 1 is lost: the connection broke; resume with: llm train --resume fox"
    ):
        chief.receive()


def test_a_peer_without_heartbeat_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LOST_SECONDS", 0.1)
    monkeypatch.setattr(control, "_HEARTBEAT_SECONDS", 0.05)
    ends = connected()
    chief = Control([Link("worker 1", ends[0])])
    with pytest.raises(PeerLostError, match="no heartbeat"):
        chief.receive()
    chief.close()
    ends[1].close()


def test_the_time_before_all_have_connected_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = connected()
    early = Link("worker 1", ends[0])
    early.last_received -= 10 * control.LOST_SECONDS
    chief = Control([early])
    ends[1].sendall(b'{"text": "abc"}\n')
    assert chief.receive() == [{"text": "abc"}]
    chief.check()
    chief.close()
    ends[1].close()


def test_a_peer_that_misses_a_deadline_is_lost(pair: tuple[Control, Control], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_HEARTBEAT_SECONDS", 0.02)
    chief, worker = pair
    with chief.response_deadline(60.0):
        chief.check()
    with chief.response_deadline(0.0):
        assert eventually(lambda: chief._failure is not None)
    for each in pair:
        with pytest.raises(PeerLostError, match="hangs"):
            each.receive()
    assert worker is not chief


def test_a_closed_peer_is_not_lost(pair: tuple[Control, Control], aborts: list[QuickfoxError]) -> None:
    chief, worker = pair
    worker.close()
    assert eventually(lambda: chief._links[0].is_done)
    chief.check()
    with pytest.raises(PeerLostError, match="has ended"):
        chief.receive()
    assert aborts == []


def test_a_blocked_process_is_aborted_after_a_loss(
    pair: tuple[Control, Control], aborts: list[QuickfoxError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ABORT_SECONDS", 0.05)
    chief, worker = pair
    worker._links[0].close()
    assert eventually(lambda: bool(aborts))
    assert isinstance(aborts[0], PeerLostError)
    assert chief is not worker


def test_an_invalid_message_ends_the_connection(aborts: list[QuickfoxError]) -> None:
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"\xff\n"):
        ends = connected()
        chief = Control([Link("worker 1", ends[0])], aborts.append)
        ends[1].sendall(nonsense)
        with pytest.raises(PeerLostError):
            chief.receive()
        chief.close()
        ends[1].close()


def test_a_failed_collective_raises_the_loss_that_caused_it(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    worker._links[0].close()
    with pytest.raises(PeerLostError):
        chief.raise_failure(RuntimeError("recvmsg: connection reset"))
    with pytest.raises(RuntimeError, match="bug"):
        Control([]).raise_failure(RuntimeError("bug"))


def test_a_failed_collective_without_a_loss_means_unreachable_workers(
    pair: tuple[Control, Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LOST_SECONDS", 0.0)
    monkeypatch.setattr(control, "_HEARTBEAT_SECONDS", 0.01)
    chief, _ = pair
    chief.advice = "resume with: llm train --resume fox"
    with pytest.raises(PeerLostError, match=r"cannot reach each other: no route; resume with: llm .* fox"):
        chief.raise_failure(RuntimeError("no route\nand more lines"))
