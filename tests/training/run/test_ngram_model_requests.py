"""Which requests a run of an n-gram model alone refuses, and what a dry run reports."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from run_driver import (
    NGRAM_ALONE,
    TEXT,
    start,
    start_ngram_model,
)

from quickfox.config.training import TrainingRequest
from quickfox.errors import QuickfoxError, UsageError
from quickfox.text.corpus import open_corpus
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.engine.events import (
    Event,
    RunContext,
    RunPlanned,
    RunRequest,
)
from quickfox.training.run.resume import resume_run
from quickfox.training.run.start import start_run

TRAINING_TOKENS = round(len(TEXT) * 0.9)

OpenRun = Callable[[RunContext], Iterator[Event]]


@pytest.mark.parametrize(
    "options", [{"hidden_dim": 8}, {"epochs": 2.0}, {"steps": 5}, {"patience": 2}, {"precision": "float32"}]
)
def test_settings_of_networks_are_refused_and_leave_no_files(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))} is for networks"):
        start_ngram_model(tmp_path, options=options)
    assert not (tmp_path / "run").exists()


def test_a_setting_of_a_network_is_refused_with_the_record_of_an_ngram_run(
    uninterrupted_ngram_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="hidden_dim is for networks"):
        start(tmp_path, settings={}, options={"hidden_dim": 8}, config_from=uninterrupted_ngram_model / "run")


def errors_of_two_workers(open_run: OpenRun) -> list[BaseException | None]:
    """Opens a run as the chief and as its worker, and returns the error of each."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(create_server(("127.0.0.1", 0))) for _ in range(2)]
        addresses = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)

    def join(rank: int) -> list[Event]:
        return list(open_run(RunContext(notify=[].append, started=0.0, cluster=ClusterSpec(addresses, rank))))

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(join, rank) for rank in range(2)]
    return [future.exception() for future in futures]


def test_several_workers_are_refused_in_all_of_them(uninterrupted_ngram_model: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT)
    request = RunRequest(training=TrainingRequest(**NGRAM_ALONE), output=tmp_path / "run")

    def open_new_run(run_context: RunContext) -> Iterator[Event]:
        return start_run(open_corpus([str(tmp_path / "corpus.txt")], [].append), "corpus", request, run_context)

    def open_resumed_run(run_context: RunContext) -> Iterator[Event]:
        return resume_run(uninterrupted_ngram_model / "run", TrainingRequest(), run_context=run_context)

    for open_run in (open_new_run, open_resumed_run):
        for error in errors_of_two_workers(open_run):
            assert isinstance(error, QuickfoxError)
            assert "architecture ngram is for one process, not for 2 workers" in str(error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{}, {"budget": 5.0}])
def test_a_dry_run_reports_the_plan_and_leaves_no_files(
    tmp_path: Path, options: dict[str, Any], held_back: threading.Event
) -> None:
    (event,) = start_ngram_model(tmp_path, options=options, dry_run=True)
    assert isinstance(event, RunPlanned)
    assert event.settings.model.architecture == "ngram"
    assert event.settings.training.ngram_order >= 2
    cost = event.cost
    assert (cost.parameters, cost.epochs, cost.tokens_per_epoch) == (0, 1.0, TRAINING_TOKENS)
    assert cost.memory_bytes > 0
    assert cost.disk_bytes > 0
    assert cost.seconds > 0
    assert not (tmp_path / "run").exists()
    assert not held_back.is_set()
