"""What processes tell each other, over real sockets, and what they make of a peer that fails, hangs or goes."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from quickfox.errors import DataError, PeerLostError, QuickfoxError, StorageError
from quickfox.training.distributed import messaging as control
from quickfox.training.distributed.messaging import Control, Link


def connected() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        return server.accept()[0], caller


@pytest.fixture
def left() -> list[QuickfoxError]:
    return []


@pytest.fixture
def pair(left: list[QuickfoxError]) -> Iterator[tuple[Control, Control]]:
    """A chief and its only worker."""
    ends = connected()
    chief = Control([Link("worker 1", ends[0])], left.append)
    worker = Control([Link("the chief", ends[1])], left.append)
    yield chief, worker
    chief.close()
    worker.close()


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true: what another thread does is waited for, without end if it is not done."""
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


def test_a_process_that_is_alone_talks_to_nobody() -> None:
    alone = Control([])
    alone.send(do="steps")
    assert alone.receive() == []
    alone.check()
    assert not alone.stop_requested()


def test_one_who_asks_to_stop_asks_all(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    worker.request_stop()
    assert eventually(chief.stop_requested)


def test_waiting_leaves_time_for_other_things(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    assert worker.receive(on_idle=lambda: chief.send(at_last=True))[0] == {"at_last": True}


def test_a_failure_is_everybodys(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    worker.fail(DataError("no such text"))
    with pytest.raises(DataError, match="worker 1: no such text"):
        chief.receive()


def test_a_failure_keeps_its_kind(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    worker.fail(StorageError("the disk is full"))
    with pytest.raises(StorageError, match="worker 1: the disk is full"):
        chief.receive()


def test_an_error_that_is_a_bug_is_told_too(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    chief.fail(ZeroDivisionError())
    with pytest.raises(QuickfoxError, match="the chief: failed: ZeroDivisionError"):
        worker.receive()


def test_a_peer_that_was_asked_to_stop_has_not_failed(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    chief.fail(KeyboardInterrupt())
    with pytest.raises(PeerLostError, match="the chief: was stopped; restart all workers"):
        worker.receive()


def test_a_peer_that_is_gone_is_lost_and_says_how_to_go_on(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    chief.advice = "resume with: llm train --resume fox"
    worker._links[0].close()  # as the end of its process would
    with pytest.raises(
        PeerLostError, match="worker 1 is lost: the connection broke; resume with: llm train --resume fox"
    ):
        chief.receive()


def test_a_peer_that_hangs_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LOST_SECONDS", 0.1)
    monkeypatch.setattr(control, "_HEARTBEAT_SECONDS", 0.05)
    ends = connected()
    chief = Control([Link("worker 1", ends[0])])
    with pytest.raises(PeerLostError, match="no heartbeat"):
        chief.receive()
    chief.close()
    ends[1].close()


def test_time_before_all_had_come_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = connected()
    early = Link("worker 1", ends[0])
    early.last_received -= 10 * control.LOST_SECONDS
    chief = Control([early])
    ends[1].sendall(b'{"text": "abc"}\n')
    assert chief.receive() == [{"text": "abc"}]
    chief.check()
    chief.close()
    ends[1].close()


def test_a_peer_that_lives_and_does_not_do_what_all_do_is_lost(
    pair: tuple[Control, Control], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_an_orderly_end_is_no_loss(pair: tuple[Control, Control], left: list[QuickfoxError]) -> None:
    chief, worker = pair
    worker.close()
    assert eventually(lambda: chief._links[0].is_done)
    chief.check()
    with pytest.raises(PeerLostError, match="has ended"):
        chief.receive()
    assert left == []


def test_who_is_stuck_in_a_call_is_made_to_leave(
    pair: tuple[Control, Control], left: list[QuickfoxError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ABORT_SECONDS", 0.05)
    chief, worker = pair
    worker._links[0].close()
    assert eventually(lambda: bool(left))
    assert isinstance(left[0], PeerLostError)
    assert chief is not worker


def test_what_is_no_message_ends_the_connection(left: list[QuickfoxError]) -> None:
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"\xff\n"):
        ends = connected()
        chief = Control([Link("worker 1", ends[0])], left.append)
        ends[1].sendall(nonsense)
        with pytest.raises(PeerLostError):
            chief.receive()
        chief.close()
        ends[1].close()


def test_the_failure_of_a_call_is_explained_by_the_peer_that_is_lost(pair: tuple[Control, Control]) -> None:
    chief, worker = pair
    worker._links[0].close()
    with pytest.raises(PeerLostError):
        chief.raise_failure(RuntimeError("recvmsg: connection reset"))
    with pytest.raises(RuntimeError, match="bug"):
        Control([]).raise_failure(RuntimeError("bug"))


def test_where_all_live_and_a_call_fails_they_do_not_reach_each_other(
    pair: tuple[Control, Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LOST_SECONDS", 0.0)
    monkeypatch.setattr(control, "_HEARTBEAT_SECONDS", 0.01)
    chief, _ = pair
    chief.advice = "resume with: llm train --resume fox"
    with pytest.raises(PeerLostError, match=r"cannot reach each other: no route; resume with: llm .* fox"):
        chief.raise_failure(RuntimeError("no route\nand more lines"))
