"""Runs of networks with an n-gram gate: which have one, that interruptions do not matter, and what is refused."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_driver import SMALL, TEXT, at_step, is_start, outcome, resume, start
from test_record import RECORD

from quickfox.checkpoints.checkpoint import load_model
from quickfox.checkpoints.run_directory import list_checkpoint_directories
from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingRequest
from quickfox.errors import UsageError
from quickfox.export.registry import extract_network
from quickfox.models.parameters import parameter_shapes
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.engine import trainer
from quickfox.training.engine.events import RunContext, RunFinished, RunInterrupted, RunPlanned, WaitingForNgrams
from quickfox.training.planning.ngrams import MAX_GATE_EPOCHS
from quickfox.training.run import start as start_module
from quickfox.training.run.record import read_record
from quickfox.training.run.transfer import ResolvedRequest
from quickfox.training.run.workers import rescale_to_workers

MAX_EPOCHS = MAX_GATE_EPOCHS  # before `fake_training` replaces it in the planning


@pytest.fixture(scope="module")
def gates(fake_training: None) -> Iterator[None]:
    """Fake training, of networks with a gate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start_module, "MAX_GATE_EPOCHS", MAX_EPOCHS)
        yield


@pytest.fixture(scope="module")
def gated(gates: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an uninterrupted run of a network with a gate."""
    folder = tmp_path_factory.mktemp("gated")
    assert isinstance(start(folder)[-1], RunFinished)
    return folder


def last_model(folder: Path) -> Any:
    return load_model(list_checkpoint_directories(folder / "run")[-1])


def model_of_record(folder: Path) -> ModelConfig:
    return read_record(folder / "run").model


def gate_parameters(folder: Path) -> set[str]:
    return {name for name in last_model(folder).parameters if name.startswith("ngram_gate.")}


def test_the_gate_has_the_order_of_the_tables(gated: Path) -> None:
    training = json.loads((gated / "run" / "run.json").read_text())["training"]
    config = last_model(gated).config
    assert model_of_record(gated).ngram_gate == config.ngram_gate == len(config.ngrams) == training["ngram_order"] > 1
    assert gate_parameters(gated) == {"ngram_gate.kernel", "ngram_gate.length_bias"}


def test_a_run_stopped_while_its_first_step_waits_for_the_tables_starts_again(
    gated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_back: threading.Event
) -> None:
    monkeypatch.setattr(trainer, "POLLING_SECONDS", 0.01)
    events = start(tmp_path, stop=lambda event: isinstance(event, WaitingForNgrams))
    assert [type(event) for event in events[-2:]] == [WaitingForNgrams, RunInterrupted]
    assert events[-1].step == 0
    held_back.set()
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(gated)


def test_a_run_without_tables_has_no_gate(gates: None, tmp_path: Path) -> None:
    start(tmp_path, options={"steps": 1, "ngram": "off"})
    assert model_of_record(tmp_path).ngram_gate == 0
    assert gate_parameters(tmp_path) == set()


def test_a_long_run_has_no_gate_and_a_short_one_has(gates: None, tmp_path: Path) -> None:
    for folder, epochs in (("short", MAX_EPOCHS - 1), ("long", MAX_EPOCHS + 1)):
        start(tmp_path / folder, options={"epochs": epochs}, stop=at_step(1))
    assert gate_parameters(tmp_path / "short")
    assert not gate_parameters(tmp_path / "long")


@pytest.mark.parametrize("workers", [1, 2])
def test_only_a_network_of_one_process_may_have_a_gate(workers: int) -> None:
    resolved = ResolvedRequest(TrainingRequest(), 1, 0.1, config_run=None, pretrained=None)
    tokenizer = CharacterTokenizer(Vocabulary(tuple("abc")))
    assert (start_module._max_gate_epochs(resolved, workers, 3, tokenizer, 1000) > 0) == (workers == 1)


# Interruptions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3, 60])
def test_a_stopped_run_ends_like_an_uninterrupted_one(gated: Path, tmp_path: Path, step: int) -> None:
    assert isinstance(start(tmp_path, stop=at_step(step))[-1], RunInterrupted)
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(gated)


@pytest.mark.parametrize("kill", [is_start, at_step(12)], ids=["at its start", "after 12 steps"])
def test_a_killed_run_ends_like_an_uninterrupted_one(gated: Path, tmp_path: Path, kill: Any) -> None:
    start(tmp_path, kill=kill, checkpoint_every="5")
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(gated)


def test_a_longer_run_keeps_its_gate(gated: Path, tmp_path: Path) -> None:
    start(tmp_path, stop=at_step(60))
    resume(tmp_path, epochs=MAX_EPOCHS + 1)
    assert gate_parameters(tmp_path)


def test_several_workers_cannot_resume_a_run_with_a_gate() -> None:
    record = dataclasses.replace(RECORD, model=dataclasses.replace(RECORD.model, ngram_gate=3))
    context = RunContext(notify=[].append, started=0.0, cluster=ClusterSpec(("a:1", "b:1"), 0))
    message = "a run with an n-gram gate is for one process, not for 2 workers: resume it without TF_CONFIG"
    with pytest.raises(UsageError, match=f"^{message}$"):
        rescale_to_workers(record, context)
    assert rescale_to_workers(record, dataclasses.replace(context, cluster=ClusterSpec(("a:1",), 0))) == record


# Plans, settings and weights of other runs ----------------------------------------------------------------


def test_a_dry_run_plans_the_model_of_the_run(gated: Path, tmp_path: Path) -> None:
    (planned,) = (event for event in start(tmp_path, dry_run=True) if isinstance(event, RunPlanned))
    assert planned.settings.model == model_of_record(gated)
    assert not (tmp_path / "run").exists()


def test_a_repeated_run_has_the_same_model(gated: Path, tmp_path: Path) -> None:
    start(tmp_path, config_from=gated / "run", settings={})
    assert outcome(tmp_path) == outcome(gated)


def test_a_repeated_run_without_a_gate_has_none(gates: None, tmp_path: Path) -> None:
    """Those of earlier versions and of several processes."""
    first, again = tmp_path / "first", tmp_path / "again"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start_module, "MAX_GATE_EPOCHS", 0.0)
        start(first)
    start(again, config_from=first / "run", settings={})
    assert gate_parameters(again) == set()
    assert outcome(again) == outcome(first)


def test_a_pretrained_network_provides_its_gate(gated: Path, tmp_path: Path) -> None:
    settings = {name: value for name, value in SMALL.items() if name not in ("hidden_dim", "embedding_dim")}
    start(tmp_path, settings=settings, options={"steps": 1, "learning_rate": 1e-9}, init_from=gated / "run")
    model = last_model(tmp_path)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    pretrained = load_model(Path(record["init_from"]["directory"]))
    assert model.config.ngram_gate == pretrained.config.ngram_gate == record["training"]["ngram_order"] > 0
    for name in parameter_shapes(model.config):
        np.testing.assert_allclose(model.parameters[name], pretrained.parameters[name], atol=1e-6)


def test_a_pretrained_network_provides_its_weights_without_its_gate_for_tables_of_another_order(
    gated: Path, tmp_path: Path
) -> None:
    settings = {name: value for name, value in SMALL.items() if name not in ("hidden_dim", "embedding_dim")}
    options = {"steps": 1, "learning_rate": 1e-9, "ngram": 2}
    start(tmp_path, settings=settings, options=options, init_from=gated / "run")
    assert model_of_record(tmp_path).ngram_gate == 0
    model = last_model(tmp_path)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    pretrained = load_model(Path(record["init_from"]["directory"]))
    assert pretrained.config.ngram_gate > 0
    for name in parameter_shapes(model.config):
        np.testing.assert_allclose(model.parameters[name], pretrained.parameters[name], atol=1e-6)


def test_an_export_has_the_network_alone(gated: Path) -> None:
    model = last_model(gated)
    network = extract_network(model)
    assert (network.config.ngram_gate, network.config.ngrams) == (0, ())
    assert network.parameters.keys() == parameter_shapes(network.config).keys()
    assert not [name for name in network.parameters if name.startswith("ngram")]
    assert network.validation_loss == model.network_loss


# Real training --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupted_run_is_bit_for_bit_that_without_interruption(short_epochs: None, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"steps": 50, "dropout": 0.1}
    finished = start(whole, text=TEXT, options=options)[-1]
    assert isinstance(start(parts, text=TEXT, options=options, stop=at_step(17))[-1], RunInterrupted)
    resume(parts)
    assert gate_parameters(whole)
    assert outcome(parts) == outcome(whole)
    assert finished.validation_loss < finished.network_loss
