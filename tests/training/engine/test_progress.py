"""The scalar state of a run, in examples worked by hand; and the timing of calls."""

import math

import pytest

from quickfox.config.schema import from_dict, to_dict
from quickfox.training.engine.progress import LOSS_HORIZON, RECENT_CALLS, CallTimer, Progress


def test_losses_advance_the_step_and_the_running_loss() -> None:
    progress = Progress(total_steps=10)
    progress.record_losses([3.0])
    assert progress.running_loss == 3.0
    progress.record_losses([3.0 + LOSS_HORIZON, 4.0])
    assert (progress.step, progress.loss_count, progress.loss_sum) == (3, 3, 10.0 + LOSS_HORIZON)
    assert progress.running_loss == 4.0


def test_losses_can_be_recorded_singly_or_in_a_list() -> None:
    losses = [2.5, 2.25, 2.125, 1.0]
    in_a_list, singly = Progress(total_steps=10), Progress(total_steps=10)
    in_a_list.record_losses(losses)
    for loss in losses:
        singly.record_losses([loss])
    assert in_a_list == singly


def test_train_loss_is_the_mean_since_the_last_validation() -> None:
    progress = Progress(total_steps=10)
    progress.record_losses([4.0, 2.0])
    progress.record_validation(2.0)
    assert progress.train_loss == 3.0
    progress.record_losses([1.0])
    progress.record_validation(2.0)
    assert progress.train_loss == 1.0


def test_best_validation_loss_and_validations_since() -> None:
    progress, results = Progress(total_steps=100), []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0):
        progress.record_losses([1.0])
        is_best = progress.record_validation(loss)
        results.append((is_best, progress.best_validation_loss, progress.validations_without_improvement))
    assert results == [(True, 3.0, 0), (True, 2.0, 0), (False, 2.0, 1), (False, 2.0, 2), (True, 1.0, 0)]
    assert progress.validation_loss == 1.0


def test_without_a_validation_text_the_last_is_the_best() -> None:
    progress = Progress(total_steps=10)
    for _ in range(2):
        progress.record_losses([1.0])
        assert progress.record_validation(None)
    assert (progress.validation_loss, progress.best_validation_loss) == (None, None)
    assert not progress.is_finished(patience=1)


@pytest.mark.parametrize(
    ("step", "without_improvement", "patience", "finished"),
    [(9, 5, None, False), (10, 0, None, True), (11, 0, 3, True), (9, 2, 3, False), (9, 3, 3, True)],
)
def test_a_run_finishes_by_steps_or_by_patience(
    step: int, without_improvement: int, patience: int | None, finished: bool
) -> None:
    progress = Progress(step=step, total_steps=10, validations_without_improvement=without_improvement)
    assert progress.is_finished(patience) is finished


def test_speed_is_the_mean_of_the_timed_steps() -> None:
    progress = Progress(total_steps=10)
    assert progress.timed_steps_per_second == 0
    progress.record_speed(3, 0.5)
    progress.record_speed(1, 1.5)
    assert progress.timed_steps_per_second == 2.0


def test_progress_round_trips_through_json() -> None:
    progress = Progress(total_steps=10, seconds=1.25)
    progress.record_losses([1 / 3])
    assert from_dict(Progress, to_dict(progress), "state.json") == progress


def test_call_timer_averages_the_recent_calls() -> None:
    timer = CallTimer()
    assert math.isnan(timer.seconds_per_step)
    timer.compiled.add(8)
    assert math.isnan(timer.seconds_per_step)
    timer.record(1, 100.0)
    for _ in range(RECENT_CALLS - 1):
        timer.record(2, 1.0)
    timer.record(4, 3.0)
    assert timer.seconds_per_step == pytest.approx((RECENT_CALLS - 1 + 3.0) / (2 * (RECENT_CALLS - 1) + 4))
