"""How far a run has come, in plain numbers worked out by hand."""

import pytest

from quickfox.config.schema import from_dict, to_dict
from quickfox.training.engine.progress import LOSS_HORIZON, Progress


def test_losses_count_as_steps_and_the_running_loss_follows_them() -> None:
    progress = Progress(total_steps=10)
    progress.record_losses([3.0])
    assert progress.running_loss == 3.0
    progress.record_losses([3.0 + LOSS_HORIZON, 4.0])
    assert (progress.step, progress.loss_count, progress.loss_sum) == (3, 3, 10.0 + LOSS_HORIZON)
    assert progress.running_loss == 4.0


def test_losses_count_the_same_one_by_one_or_together() -> None:
    losses = [2.5, 2.25, 2.125, 1.0]
    together, one_by_one = Progress(total_steps=10), Progress(total_steps=10)
    together.record_losses(losses)
    for loss in losses:
        one_by_one.record_losses([loss])
    assert together == one_by_one


def test_a_validation_tells_the_mean_training_loss_since_the_last() -> None:
    progress = Progress(total_steps=10)
    progress.record_losses([4.0, 2.0])
    progress.record_validation(2.0)
    assert progress.train_loss == 3.0
    progress.record_losses([1.0])
    progress.record_validation(2.0)
    assert progress.train_loss == 1.0


def test_the_best_validation_and_those_since_are_remembered() -> None:
    progress, seen = Progress(total_steps=100), []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0):
        progress.record_losses([1.0])
        is_best = progress.record_validation(loss)
        seen.append((is_best, progress.best_validation_loss, progress.validations_without_improvement))
    assert seen == [(True, 3.0, 0), (True, 2.0, 0), (False, 2.0, 1), (False, 2.0, 2), (True, 1.0, 0)]
    assert progress.validation_loss == 1.0


def test_without_a_held_out_text_the_last_is_the_best() -> None:
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
def test_it_is_finished_by_steps_or_by_patience(
    step: int, without_improvement: int, patience: int | None, finished: bool
) -> None:
    progress = Progress(step=step, total_steps=10, validations_without_improvement=without_improvement)
    assert progress.is_finished(patience) is finished


def test_speed_is_that_of_the_timed_steps() -> None:
    progress = Progress(total_steps=10)
    assert progress.timed_steps_per_second == 0
    progress.record_speed(3, 0.5)
    progress.record_speed(1, 1.5)
    assert progress.timed_steps_per_second == 2.0


def test_it_goes_through_a_file_unchanged() -> None:
    progress = Progress(total_steps=10, seconds=1.25)
    progress.record_losses([1 / 3])
    assert from_dict(Progress, to_dict(progress), "state.json") == progress
