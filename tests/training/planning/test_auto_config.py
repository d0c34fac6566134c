"""Requested settings are kept; the others are chosen by the text, the time and the machine."""

import dataclasses
import math
from typing import Any, get_args

import pytest

from quickfox.config.media import AudioConfig
from quickfox.config.model import ATTENTION_ARCHITECTURES, Architecture
from quickfox.config.training import Size, TrainingRequest
from quickfox.errors import UsageError
from quickfox.models.parameters import parameter_count
from quickfox.training.planning.auto_config import (
    DOCUMENTS_PER_BATCH,
    MAX_DROPOUT_OF_SIGNALS,
    Plan,
    choose_dropout,
    choose_settings,
    default_budget,
    fill_from_run,
)
from quickfox.training.planning.ngrams import MAX_GATE_EPOCHS
from quickfox.training.planning.presets import MAX_HIDDEN_DIM_OF_SIGNALS
from toy_models import NETWORK_ARCHITECTURES

MILLION = 1_000_000


def choose(request: TrainingRequest, training_tokens: int = MILLION, **changes: Any) -> Plan:
    facts: dict[str, Any] = {
        "vocabulary_size": 65,
        "validation_tokens": MILLION // 9,
        "threads": 2,
        "precision": "float32",
        "flops": 3e11,
        "elapsed_seconds": 3.0,
    }
    return choose_settings(request, training_tokens=training_tokens, **(facts | changes))


def test_requested_settings_are_kept() -> None:
    request = TrainingRequest(
        embedding_dim=7, hidden_dim=33, num_layers=2, dropout=0.25, batch_size=5, window=11, learning_rate=0.125,
        steps=77, patience=3, random_seed=9, threads=2,
    )  # fmt: skip
    plan = choose(request)
    model, training = plan.model, plan.training
    assert (model.embedding_dim, model.hidden_dim, model.num_layers) == (7, 33, 2)
    assert (training.batch_size, training.window, training.learning_rate) == (5, 11, 0.125)
    assert (training.dropout, training.steps, training.patience, training.random_seed) == (0.25, 77, 3, 9)
    assert plan.budget_seconds is None


def test_epochs_become_steps() -> None:
    plan = choose(TrainingRequest(epochs=2, batch_size=10, window=100))
    assert plan.training.steps == 2000


def test_the_default_budget_is_used_without_a_requested_length() -> None:
    assert choose(TrainingRequest()).budget_seconds == default_budget(MILLION)


@pytest.mark.parametrize(("smaller", "larger"), [(30.0, 60.0), (60.0, 150.0), (150.0, 900.0)])
def test_a_longer_budget_gives_no_smaller_model(smaller: float, larger: float) -> None:
    few, many = (choose(TrainingRequest(budget=budget)) for budget in (smaller, larger))
    assert few.model.hidden_dim <= many.model.hidden_dim
    assert few.training.dropout <= many.training.dropout


def test_a_faster_machine_gets_a_larger_model() -> None:
    request = TrainingRequest(budget=60.0)
    assert choose(request, flops=1e11).model.hidden_dim < choose(request, flops=1e12).model.hidden_dim


def test_the_default_budget_increases_with_the_text_within_limits() -> None:
    budgets = [default_budget(tokens) for tokens in (100, 10**5, 10**6, 10**8, 10**12)]
    assert budgets == sorted(budgets)
    assert budgets[0] >= 20.0
    assert budgets[2] < 180.0
    assert budgets[-1] == 3600.0


def test_validation_takes_a_small_fraction_of_the_time() -> None:
    interval = choose(TrainingRequest(), validation_tokens=MILLION).training.validation_interval
    assert MILLION / 3 / (interval * 64 * 64) == pytest.approx(0.02, rel=0.05)


def test_settings_of_an_earlier_run_are_kept_unless_requested() -> None:
    earlier = choose(TrainingRequest(budget=60.0, dropout=0.3, patience=4)).training
    earlier = dataclasses.replace(earlier, weight_decay=0.7, replans=((5, 900),))
    request = fill_from_run(TrainingRequest(window=32), choose(TrainingRequest()).model, earlier)
    again = choose(request, earlier_config=earlier).training
    assert again == dataclasses.replace(earlier, window=32)


def test_requested_steps_replace_those_of_an_earlier_run() -> None:
    earlier = dataclasses.replace(choose(TrainingRequest(budget=60.0)).training, replans=((5, 900),))
    again = choose(TrainingRequest(steps=12), earlier_config=earlier).training
    assert (again.steps, again.replans) == (12, ())


def test_dropout_is_zero_below_one_epoch() -> None:
    assert choose_dropout(0.3, parameters_per_token=0.1) == 0.0
    assert 0.0 < choose_dropout(30, parameters_per_token=0.1) <= 0.5


def test_dropout_increases_with_parameters_per_token() -> None:
    assert choose_dropout(5, parameters_per_token=1.0) < choose_dropout(5, parameters_per_token=20.0)


def test_random_seed_is_random_by_default() -> None:
    seeds = {choose(TrainingRequest()).training.random_seed for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
@pytest.mark.parametrize("length", [{"budget": 60.0}, {"steps": 500}, {"epochs": 2.0}])
def test_every_architecture_has_a_plan_for_every_length(architecture: Architecture, length: dict[str, Any]) -> None:
    plan = choose(TrainingRequest(architecture=architecture, **length))
    assert plan.model.architecture == architecture
    assert 10_000 < parameter_count(plan.model) < 20_000_000
    assert plan.training.steps >= 1
    assert (plan.model.context is not None) == (architecture in ATTENTION_ARCHITECTURES)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_size_presets_are_in_order_of_parameters(architecture: Architecture) -> None:
    plans = [choose(TrainingRequest(architecture=architecture, size=size, steps=9)) for size in get_args(Size)]
    counts = [parameter_count(plan.model) for plan in plans]
    assert counts == sorted(set(counts))


def test_a_size_preset_determines_the_model_for_every_budget() -> None:
    models = {choose(TrainingRequest(size="small", budget=budget)).model for budget in (10.0, 1000.0)}
    assert len(models) == 1


def test_more_layers_have_fewer_units_for_the_same_budget() -> None:
    one, four = (choose(TrainingRequest(budget=300.0, num_layers=layers)).model for layers in (1, 4))
    assert four.hidden_dim < one.hidden_dim


@pytest.mark.parametrize("hidden_dim", [2, 64, 100, 256, 500])
def test_units_per_head_are_even(hidden_dim: int) -> None:
    model = choose(TrainingRequest(architecture="transformer", hidden_dim=hidden_dim)).model
    assert hidden_dim % (2 * model.num_heads) == 0


def test_num_heads_needs_attention() -> None:
    assert choose(TrainingRequest(architecture="transformer", hidden_dim=64, num_heads=4)).model.num_heads == 4
    with pytest.raises(UsageError, match="num_heads is for"):
        choose(TrainingRequest(num_heads=4))


def test_context_is_proportional_to_the_window() -> None:
    for architecture in ATTENTION_ARCHITECTURES:
        short, long = (choose(TrainingRequest(architecture=architecture, window=window)) for window in (16, 32))
        assert long.model.context == 2 * short.model.context


def test_a_transformer_ties_the_embeddings_of_a_large_vocabulary() -> None:
    request = TrainingRequest(architecture="transformer", steps=9)
    assert not choose(request).model.tied_embeddings
    assert choose(request, vocabulary_size=8000).model.tied_embeddings


def test_sizes_of_an_earlier_run_are_not_used_for_another_size_or_architecture() -> None:
    earlier = choose(TrainingRequest(architecture="transformer", hidden_dim=96, num_heads=3))
    again = fill_from_run(TrainingRequest(), earlier.model, earlier.training)
    assert (again.architecture, again.hidden_dim, again.num_heads) == ("transformer", 96, 3)
    sized = fill_from_run(TrainingRequest(size="tiny"), earlier.model, earlier.training)
    assert (sized.architecture, sized.hidden_dim, sized.num_heads) == ("transformer", None, None)
    wider = choose(fill_from_run(TrainingRequest(hidden_dim=128), earlier.model, earlier.training)).model
    assert (wider.hidden_dim, wider.embedding_dim, wider.num_heads) == (128, 128, 4)
    other = fill_from_run(TrainingRequest(architecture="gru"), earlier.model, earlier.training)
    assert (other.hidden_dim, other.num_heads, other.batch_size) == (None, None, earlier.training.batch_size)


def test_a_gate_for_few_epochs() -> None:
    for epochs, gate in ((MAX_GATE_EPOCHS - 1, 5), (MAX_GATE_EPOCHS + 1, 0)):
        plan = choose(TrainingRequest(epochs=epochs), ngram_order=5, max_gate_epochs=MAX_GATE_EPOCHS)
        assert plan.model.ngram_gate == gate
    request = TrainingRequest(epochs=1)
    assert choose(request, ngram_order=5).model.ngram_gate == 0
    assert choose(request, ngram_order=5, max_gate_epochs=math.inf, is_pretrained=True).model.ngram_gate == 5


def test_validations_that_mix_n_grams_take_longer_and_are_fewer() -> None:
    without, mixed = (
        choose(TrainingRequest(), validation_tokens=MILLION, ngram_order=order).training.validation_interval
        for order in (0, 5)
    )
    assert mixed == pytest.approx(2 * without, rel=0.01)


SOUND = AudioConfig(mean=(0.0,) * 40, deviation=(1.0,) * 40)


def test_signals_have_small_batches_and_models_that_read_each_several_times() -> None:
    def plan(tokens: int) -> Plan:
        request = TrainingRequest(architecture="attention-rnn", window=164, budget=300.0)
        return choose(request, tokens, media=SOUND, tokens_per_row=60, vocabulary_size=30)

    few, many = plan(140_000), plan(10 * MILLION)
    assert few.model.hidden_dim == MAX_HIDDEN_DIM_OF_SIGNALS > many.model.hidden_dim
    assert (few.model.embedding_dim, few.model.context) == (128, 164)
    assert (few.training.batch_size, few.training.tokens_per_step) == (DOCUMENTS_PER_BATCH, 60 * DOCUMENTS_PER_BATCH)
    assert few.training.dropout == MAX_DROPOUT_OF_SIGNALS
    request = TrainingRequest(epochs=2, window=164, architecture="attention-rnn")
    assert choose(request, 60 * 320, media=SOUND, tokens_per_row=60).training.steps == 40
