"""Training a network with an n-gram gate: it learns, resumes exactly, and has the loss of the model in NumPy."""

import copy
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.data.dataset import Tokens
from quickfox.errors import StorageError
from quickfox.evaluation.perplexity import measure_loss
from quickfox.models.losses import cross_entropy
from quickfox.models.registry import build_language_model
from quickfox.training.engine import ngrams as ngrams_module
from quickfox.training.engine.events import NgramsEstimated, Validated
from quickfox.training.engine.ngrams import NgramEstimation, NgramTables
from quickfox.training.engine.priors import PriorBatches
from quickfox.training.engine.progress import Progress
from quickfox.training.engine.trainer import Trainer
from quickfox.training.networks import network
from toy_models import markov_text, training_config

V, ORDER = 5, 3
MODEL = ModelConfig(vocabulary_size=V, embedding_dim=4, hidden_dim=16, ngram_gate=ORDER)
TEXT = markov_text(3000, V)
TRAINING, VALIDATION = Tokens(TEXT[:2700]), Tokens(TEXT[2700:])
STEPS, SNAPSHOT_STEP = 120, 60


def make_trainer(tables: NgramTables | None = None, model: ModelConfig = MODEL, **changes: Any) -> Trainer:
    """A trainer that estimates the tables, or has those of a checkpoint."""
    settings = {"steps": STEPS, "validation_interval": SNAPSHOT_STEP, "dropout": 0.05, **changes}
    ngrams = (
        NgramEstimation.start(ORDER, V, TRAINING, VALIDATION, has_gate=True)
        if tables is None
        else NgramEstimation.restore(tables, TRAINING, has_gate=True)
    )
    return Trainer(model, training_config(**settings), TRAINING, VALIDATION, time.monotonic(), ngrams=ngrams)


def tables_of(trainer: Trainer) -> NgramTables:
    assert trainer.ngrams is not None
    return trainer.ngrams.tables


def validations(events: list[Any]) -> list[Validated]:
    return [event for event in events if isinstance(event, Validated)]


@dataclass
class Trained:
    """A trainer that has finished, its events, and its checkpoint of SNAPSHOT_STEP."""

    trainer: Trainer
    events: list[Any]
    snapshot: tuple[dict[str, np.ndarray], dict[str, np.ndarray], Progress]


@pytest.fixture(scope="module")
def trained() -> Trained:
    trainer, events, snapshot = make_trainer(), [], None
    for event in trainer.run():
        events.append(event)
        if isinstance(event, Validated) and snapshot is None:
            snapshot = trainer.model_tensors(), trainer.training_tensors(), copy.deepcopy(trainer.progress)
    assert snapshot is not None
    return Trained(trainer, events, snapshot)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """As `run_eagerly`, without functions of the trained model."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def no_prior_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PRIOR_DROPOUT", 0.0)


def test_the_gate_and_the_network_are_trained(trained: Trained) -> None:
    """The loss falls to the entropy of the text, 0.80 nats, and so does that of the network alone."""
    first, last = validations(trained.events)
    assert last.train_loss < first.train_loss
    assert last.network_loss < first.network_loss < np.log(V)
    assert last.validation_loss == pytest.approx(0.80, abs=0.1)
    parameters = trained.trainer.model_tensors()
    assert np.abs(parameters["ngram_gate.kernel"]).max() > 1e-3
    assert np.abs(parameters["ngram_gate.length_bias"]).max() > 1e-3


def test_the_tables_are_reported_before_the_first_validation(trained: Trained) -> None:
    kinds = [type(event) for event in trained.events if isinstance(event, NgramsEstimated | Validated)]
    assert kinds == [NgramsEstimated, Validated, Validated]


def test_steps_and_validation_are_traced_once(trained: Trained) -> None:
    assert trained.trainer.train_step.graph(trained.trainer.config.window).experimental_get_tracing_count() == 1
    assert trained.trainer.validation.window_losses.experimental_get_tracing_count() == 1


def test_resume_continues_bit_for_bit(trained: Trained) -> None:
    """With dropout of the n-gram term and of the layers, and with distributions that are computed anew."""
    resumed = make_trainer(tables_of(trained.trainer))
    resumed.restore(*trained.snapshot)
    (last,) = validations(list(resumed.run()))
    expected_last = validations(trained.events)[-1]
    assert (last.train_loss, last.validation_loss, last.network_loss) == (
        expected_last.train_loss,
        expected_last.validation_loss,
        expected_last.network_loss,
    )
    for method in ("model_tensors", "training_tensors"):
        ours, expected = getattr(resumed, method)(), getattr(trained.trainer, method)()
        assert ours.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(ours[name], tensor)


def test_the_losses_are_those_of_evaluation(trained: Trained) -> None:
    """The gate reads the tables of the whole training text there, and in the network alone it reads none."""
    trainer = trained.trainer
    tables, parameters = tables_of(trainer), trainer.model_tensors()
    config = dataclasses.replace(MODEL, ngrams=tables.ngrams, exponents=trainer.progress.exponents)
    mixture = build_language_model(config, parameters | tables.tensors)
    alone = build_language_model(MODEL, parameters)
    last = validations(trained.events)[-1]
    assert last.validation_loss == pytest.approx(measure_loss(mixture, VALIDATION)[0], abs=1e-4)
    assert last.network_loss == pytest.approx(measure_loss(alone, VALIDATION)[0], abs=1e-4)


@pytest.mark.usefixtures("eagerly", "no_prior_dropout")
def test_number_of_microbatches_affects_rounding_only() -> None:
    """But for the dropout of the n-gram term, which is that of each microbatch."""
    settings = {"steps": 3, "validation_interval": 3, "dropout": 0.0}
    one, two = (validations(list(make_trainer(threads=threads, **settings).run()))[0] for threads in (1, 2))
    assert one.train_loss == pytest.approx(two.train_loss, abs=1e-5)
    assert one.validation_loss == pytest.approx(two.validation_loss, abs=1e-5)
    assert one.network_loss == pytest.approx(two.network_loss, abs=1e-5)


@pytest.mark.usefixtures("eagerly", "no_prior_dropout")
def test_the_distributions_of_a_step_are_those_without_the_block_of_its_targets() -> None:
    """The training loss of the first step, in which the gate is open."""
    trainer = make_trainer(steps=1, validation_interval=1, learning_rate=0.0, dropout=0.0, threads=1)
    assert trainer.ngrams is not None
    x, y = trainer.batches.batch(0)
    logits, _ = trainer.network.forward(x, trainer.network.initial_state(len(x)))  # (T, B, V)
    alone = logits.numpy().transpose(1, 0, 2)
    without_block = PriorBatches(TRAINING, trainer.batches, trainer.ngrams.leave_out).batch(0).log_probs
    ngram = trainer.ngrams.tables.model
    ids = TRAINING.ids[trainer.batches.positions(0, num_context=ORDER)]
    with_all, _ = ngram.forward(ids[:, :-1], ngram.initial_state(len(x)))
    losses = [cross_entropy(alone + log_probs, y).mean() for log_probs in (without_block, with_all[:, ORDER:])]
    last = validations(list(trainer.run()))[-1]
    assert last.train_loss == pytest.approx(losses[0], abs=1e-5)
    assert last.train_loss > losses[1] + 1e-3


def test_an_error_in_the_tables_of_the_blocks_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise StorageError("cannot read the tokens")

    monkeypatch.setattr(ngrams_module, "estimate_leave_out", fail)
    with pytest.raises(StorageError, match="cannot read the tokens"):
        list(make_trainer().run())
