"""Which requests a run of an n-gram model alone refuses, and what a dry run reports."""

import threading
from pathlib import Path
from typing import Any

import pytest
from run_driver import (
    NGRAM_ALONE,
    TEXT,
    start,
    start_ngram_model,
)

from quickfox.config.training import TrainingRequest
from quickfox.errors import UsageError
from quickfox.text.corpus import open_corpus
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.engine.events import RunContext, RunPlanned, RunRequest
from quickfox.training.run import resume
from quickfox.training.run.start import start_run

TRAINING_TOKENS = round(len(TEXT) * 0.9)


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


def test_several_workers_are_refused(uninterrupted_ngram_model: Path, tmp_path: Path) -> None:
    """A new run before the workers connect, a resumed one by the chief, which tells the others."""
    (tmp_path / "corpus.txt").write_text(TEXT)
    corpus = open_corpus([str(tmp_path / "corpus.txt")], [].append)
    request = RunRequest(training=TrainingRequest(**NGRAM_ALONE), output=tmp_path / "run")
    run_context = RunContext(notify=[].append, started=0.0, cluster=ClusterSpec(("a:1", "b:1"), 1))
    for events in (
        start_run(corpus, "corpus", request, run_context),
        resume._resume_chief(uninterrupted_ngram_model / "run", TrainingRequest(), None, run_context, None),
    ):
        with pytest.raises(UsageError, match="architecture ngram is for one process, not for 2 workers"):
            next(events)
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
