"""How a resumed run is adapted to its number of workers."""

import dataclasses
from pathlib import Path

from test_record import RECORD

from quickfox.training.distributed.cluster_spec import SINGLE_PROCESS, ClusterSpec
from quickfox.training.engine.events import RunContext
from quickfox.training.run.record import read_record, write_record
from quickfox.training.run.workers import rescale_to_workers, total_threads


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
