"""Planning against a clock that the test holds."""

import math

import pytest

from quickfox.training.planning import time_budget as budget_module
from quickfox.training.planning.time_budget import CORRECTIONS, FINISH_SECONDS, VALIDATION_TRACING_SECONDS, Budget


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    now = [0.0]
    monkeypatch.setattr(budget_module.time, "monotonic", lambda: now[0])
    return now


def make_budget(seconds: float, interval: int = 10**9) -> Budget:
    plan = Budget(seconds, started=0.0, validation_interval=interval, validation_tokens=0)
    plan.record_validation(2.0)
    return plan


def test_no_plan_before_a_step_was_timed(clock: list[float]) -> None:
    plan = make_budget(100.0)
    clock[0] = 50.0
    assert plan.replan(step=1, total_steps=10, seconds_per_step=math.nan, tokens_per_step=1) is None


def test_the_rest_of_the_time_is_filled_with_steps(clock: list[float]) -> None:
    plan = make_budget(100.0)
    clock[0] = 11.0
    total = plan.replan(step=40, total_steps=10, seconds_per_step=0.1, tokens_per_step=1)
    assert total == 40 + int((89.0 - FINISH_SECONDS - 2.0) / 0.1)


def test_validations_on_the_way_take_their_time(clock: list[float]) -> None:
    plan = make_budget(100.0, interval=200)
    clock[0] = 11.0
    total = plan.replan(step=100, total_steps=10**6, seconds_per_step=0.1, tokens_per_step=1)
    assert total is not None
    validations = math.ceil(total / 200)
    assert 88.0 <= (total - 100) * 0.1 + validations * 2.0 + FINISH_SECONDS <= 89.0


def test_before_a_validation_was_measured_its_cost_is_estimated(clock: list[float]) -> None:
    plan = Budget(100.0, started=0.0, validation_interval=10**9, validation_tokens=30_000)
    clock[0] = 11.0
    total = plan.replan(step=0, total_steps=10**6, seconds_per_step=0.1, tokens_per_step=1000)
    assert total == int((89.0 - FINISH_SECONDS - VALIDATION_TRACING_SECONDS - 1.0) / 0.1)


def test_the_plan_changes_at_a_few_points_only(clock: list[float]) -> None:
    plan = make_budget(100.0)
    total, changes = 10**6, 0
    for second in range(100):
        clock[0] = float(second)
        speed = 0.1 if second % 2 else 0.2  # no two plans agree
        new_total = plan.replan(step=second, total_steps=total, seconds_per_step=speed, tokens_per_step=1)
        if new_total is not None:
            total, changes = new_total, changes + 1
    assert 1 < changes <= len(CORRECTIONS)


def test_a_plan_that_would_end_too_early_is_corrected_on_the_way(clock: list[float]) -> None:
    plan = make_budget(100.0)
    clock[0] = 11.0
    total = plan.replan(step=10, total_steps=10**6, seconds_per_step=1.0, tokens_per_step=1)
    assert total is not None
    clock[0] = 12.0  # ten times faster than thought
    assert plan.replan(step=total // 2, total_steps=total, seconds_per_step=0.1, tokens_per_step=1) > 5 * total


def test_a_spent_budget_still_leaves_one_step(clock: list[float]) -> None:
    plan = make_budget(10.0)
    clock[0] = 30.0
    assert plan.replan(step=7, total_steps=100, seconds_per_step=0.5, tokens_per_step=1) == 8
