"""Plans under a time budget, with a fake clock; and the steps at which a plan stops."""

import dataclasses
import math

import pytest

from quickfox.config.model import ModelConfig
from quickfox.training.planning import time_budget as budget_module
from quickfox.training.planning.time_budget import (
    CORRECTIONS,
    FINISH_SECONDS,
    VALIDATION_TRACING_SECONDS,
    VALIDATION_WARM_UP_TOKENS,
    Budget,
    StepPlan,
    mixture_seconds,
)
from toy_models import training_config

TRAINING = training_config(
    steps=100,
    replans=((5, 900), (50, 60)),
    batch_size=1,
    window=1,
    learning_rate=0.5,
    warmup_steps=9,
    weight_decay=0.1,
    validation_interval=100,
    random_seed=0,
    threads=1,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    now = [0.0]
    monkeypatch.setattr(budget_module.time, "monotonic", lambda: now[0])
    return now


def make_budget(seconds: float, interval: int = 10**9) -> Budget:
    plan = Budget(seconds, started=0.0, validation_interval=interval, validation_tokens=0)
    plan.validation_seconds = 2.0
    return plan


def test_the_plan_is_unchanged_before_a_step_was_timed(clock: list[float]) -> None:
    plan = make_budget(100.0)
    clock[0] = 50.0
    assert plan.replan(step=1, total_steps=10, seconds_per_step=math.nan, tokens_per_step=1) is None


def test_the_remaining_time_is_filled_with_steps(clock: list[float]) -> None:
    plan = make_budget(100.0)
    clock[0] = 11.0
    total = plan.replan(step=40, total_steps=10, seconds_per_step=0.1, tokens_per_step=1)
    assert total == 40 + int((89.0 - FINISH_SECONDS - 2.0) / 0.1)


def test_the_plan_includes_the_time_of_validations(clock: list[float]) -> None:
    plan = make_budget(100.0, interval=200)
    clock[0] = 11.0
    total = plan.replan(step=100, total_steps=10**6, seconds_per_step=0.1, tokens_per_step=1)
    assert total is not None
    validations = math.ceil(total / 200)
    assert 88.0 <= (total - 100) * 0.1 + validations * 2.0 + FINISH_SECONDS <= 89.0


def test_the_first_validation_has_an_estimated_duration(clock: list[float]) -> None:
    plan = Budget(100.0, started=0.0, validation_interval=10**9, validation_tokens=30_000)
    clock[0] = 11.0
    total = plan.replan(step=0, total_steps=10**6, seconds_per_step=0.1, tokens_per_step=1000)
    validation = (30_000 + VALIDATION_WARM_UP_TOKENS) / 3 * 0.1 / 1000
    assert total == int((89.0 - FINISH_SECONDS - VALIDATION_TRACING_SECONDS - validation) / 0.1)


def test_mixing_with_n_grams_takes_time_in_each_validation(clock: list[float]) -> None:
    """Of 10,000 tokens of a vocabulary of 50, and 10,000 of warm-up, 4 microseconds each."""
    assert (mixture_seconds(50, ngram_order=5), mixture_seconds(50, ngram_order=0)) == (pytest.approx(4e-6), 0.0)
    totals = []
    model = ModelConfig(vocabulary_size=50, embedding_dim=4, hidden_dim=8)
    for order in (0, 5):
        training = dataclasses.replace(TRAINING, validation_interval=10**9, ngram_order=order)
        clock[0] = 0.0
        plan = budget_module.make_budget(100.0, 0.0, model, training, 10_000)
        assert plan is not None
        clock[0] = 11.0
        totals.append(plan.replan(step=0, total_steps=10**6, seconds_per_step=0.001, tokens_per_step=10**6))
    assert totals[0] - totals[1] == pytest.approx(80, abs=1)
    assert budget_module.make_budget(None, 0.0, model, TRAINING, 10_000) is None


def test_the_plan_changes_only_at_the_corrections(clock: list[float]) -> None:
    plan = make_budget(100.0)
    total, changes = 10**6, 0
    for second in range(100):
        clock[0] = float(second)
        speed = 0.1 if second % 2 else 0.2  # every correction changes the plan
        new_total = plan.replan(step=second, total_steps=total, seconds_per_step=speed, tokens_per_step=1)
        if new_total is not None:
            total, changes = new_total, changes + 1
    assert 1 < changes <= len(CORRECTIONS)


def test_a_plan_that_would_end_too_early_is_corrected(clock: list[float]) -> None:
    plan = make_budget(100.0)
    clock[0] = 11.0
    total = plan.replan(step=10, total_steps=10**6, seconds_per_step=1.0, tokens_per_step=1)
    assert total is not None
    clock[0] = 12.0  # ten times faster than measured before
    assert plan.replan(step=total // 2, total_steps=total, seconds_per_step=0.1, tokens_per_step=1) > 5 * total


def test_after_the_budget_one_more_step_is_made(clock: list[float]) -> None:
    plan = make_budget(10.0)
    clock[0] = 30.0
    assert plan.replan(step=7, total_steps=100, seconds_per_step=0.5, tokens_per_step=1) == 8


def make_plan(checkpoint_steps: int | None = None, budget: Budget | None = None) -> StepPlan:
    return StepPlan(dataclasses.replace(TRAINING, validation_interval=20), checkpoint_steps, budget)


def test_a_plan_stops_at_validations_checkpoints_changes_and_the_end() -> None:
    plan = make_plan(checkpoint_steps=15)
    assert plan.replans == {5: 900, 50: 60}
    steps, stops = 0, []
    while steps < 60:
        steps += plan.steps_to_next_stop(steps, total_steps=60)
        stops.append(steps)
    assert stops == [5, 15, 20, 30, 40, 45, 50, 60]


def test_recorded_changes_are_made_before_the_budget_changes_the_plan(clock: list[float]) -> None:
    plan = make_plan(budget=make_budget(100.0))
    clock[0] = 50.0
    changes = [plan.replan(step, total_steps=100, seconds_per_step=1.0) for step in (4, 5, 49, 50)]
    assert changes == [None, 900, None, 60]
    total = plan.replan(51, total_steps=60, seconds_per_step=1.0)
    assert total == 51 + int(50.0 - FINISH_SECONDS - 2.0)
    assert plan.replans == {5: 900, 50: 60, 51: total}


def test_without_a_budget_only_recorded_changes_are_made() -> None:
    assert make_plan().replan(51, total_steps=60, seconds_per_step=1.0) is None
