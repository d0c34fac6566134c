"""The chief as a process, with a worker played by the test; and how a run is adapted to its workers."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from socket import create_server

import pytest
from test_record import RECORD

from quickfox.config.training import TrainingRequest
from quickfox.training.distributed.cluster_spec import SINGLE_PROCESS, ClusterSpec
from quickfox.training.distributed.messaging import Control
from quickfox.training.distributed.rendezvous import connect_workers
from quickfox.training.engine.events import RunContext
from quickfox.training.run.record import read_record, write_record
from quickfox.training.run.workers import check_peers_while_reading, handshake, rescale_to_workers, total_threads
from quickfox.training.tensorflow_runtime import vector_extensions

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
REQUEST = TrainingRequest(hidden_dim=8, embedding_dim=4, window=8, batch_size=4, steps=20, random_seed=1)
OPTIONS = [
    f"--{name.replace('_', '-')}={value}"
    for name, value in dataclasses.asdict(REQUEST).items()
    if value is not None and name != "precision"
]

Chief = Callable[[Callable[[Control], None]], tuple[int, str]]


@pytest.fixture
def chief(tmp_path: Path) -> Iterator[Chief]:
    """Starts a chief; the value runs a function as its worker and returns the chief's exit status and last line."""
    (tmp_path / "fox.txt").write_text(TEXT)
    with ExitStack() as stack:
        sockets = [stack.enter_context(create_server(("127.0.0.1", 0))) for _ in range(2)]
        addresses = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
    command = [sys.executable, "-m", "quickfox", "train", "fox.txt", *OPTIONS, "--output", "run"]
    environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    def run(play: Callable[[Control], None]) -> tuple[int, str]:
        with connect_workers(ClusterSpec(addresses, 1), handshake(REQUEST, resumes=False), lambda _: None) as control:
            play(control)
            _, message = process.communicate(timeout=100)
        assert "Traceback" not in message
        return process.returncode, message.splitlines()[-1]

    yield run
    process.kill()
    process.communicate()


def until_ready(control: Control, hardware: str | None = None) -> None:
    """The messages of a worker until all are about to start TensorFlow's servers."""
    [text] = control.receive()
    assert text["tokenizer"]
    control.send(text=hashlib.sha256(TEXT.encode()).hexdigest())
    assert control.receive()[0]["threads"] >= 1
    control.send(hardware=hardware or f"a processor with {' '.join(vector_extensions())}")


@pytest.mark.distributed
@pytest.mark.slow
def test_the_chief_ends_if_a_worker_is_lost_before_its_server_starts(chief: Chief, tmp_path: Path) -> None:
    """TensorFlow itself would wait for an hour."""

    def play(control: Control) -> None:
        until_ready(control)
        control.receive()
        control._links[0].close()  # as at the end of its process

    status, line = chief(play)
    assert status == 75
    assert line.startswith("llm: worker 1 (")
    assert line.endswith("is lost: the connection broke; restart all workers")
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("hardware", ["2 GPUs", "a processor with sse4_2"])
def test_a_worker_with_other_hardware_is_refused(chief: Chief, hardware: str, tmp_path: Path) -> None:
    status, line = chief(lambda control: until_ready(control, hardware))
    assert status == 2
    assert f"has {hardware}, and the chief has a processor with" in line
    assert not (tmp_path / "run").exists()


def run_context(notices: list[str], spec: ClusterSpec = SINGLE_PROCESS) -> RunContext:
    return RunContext(notify=notices.append, started=0.0, cluster=spec)


def test_a_run_resumed_by_another_number_of_workers_gets_all_their_threads(tmp_path: Path) -> None:
    notices: list[str] = []
    spec = ClusterSpec(("a:1", "b:1", "c:1"), 0)
    record = rescale_to_workers(RECORD, run_context(notices, spec))
    assert (record.workers, record.training.threads) == (3, total_threads(spec))
    assert len(notices) == (record.training.threads != RECORD.training.threads)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record


def test_a_run_resumed_by_the_same_number_of_workers_is_unchanged() -> None:
    threads = dataclasses.replace(RECORD.training, threads=96)
    record = dataclasses.replace(RECORD, training=threads)
    assert rescale_to_workers(record, run_context([])) is record


def test_reading_a_text_checks_whether_a_peer_has_failed() -> None:
    read: list[int] = []

    class Failed(Control):
        def check(self) -> None:
            if len(read) == 2:
                raise ConnectionError("lost")

    with_progress = dataclasses.replace(run_context([]), start_progress=lambda stage, size: read.append)
    on_read = check_peers_while_reading(with_progress, Failed([])).start_progress("encoding", 10)
    on_read(3)
    on_read(4)
    with pytest.raises(ConnectionError):
        on_read(3)
    assert read == [3, 4]
