"""When a checkpoint is due: after so many steps, or so much time."""

import pytest

from quickfox.errors import UsageError
from quickfox.training.checkpointing import DEFAULT_SECONDS, CheckpointInterval


@pytest.mark.parametrize(
    ("text", "steps", "seconds"),
    [
        (None, None, DEFAULT_SECONDS),
        ("1", 1, None),
        ("500", 500, None),
        ("007", 7, None),
        ("90s", None, 90.0),
        ("1.5m", None, 90.0),
        ("2h", None, 7200.0),
        ("0.5s", None, 0.5),
    ],
)
def test_it_is_a_number_of_steps_or_a_time(text: str | None, steps: int | None, seconds: float | None) -> None:
    assert CheckpointInterval.parse(text) == CheckpointInterval(steps, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0s",
        "0.0000001s",
        "-5",
        "5 steps",
        "٥",
        "1e3",
        "nan",
        "inf",
        "9" * 5000,
        "9" * 400 + "s",
        "9" * 20 + "h",
    ],
)
def test_what_is_neither_or_beyond_bounds_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        CheckpointInterval.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "1", "1099511627776", "90s", "0.001s", "0.25s", "1000000000000s", "277h"])
def test_as_text_it_is_read_back_the_same(text: str | None) -> None:
    interval = CheckpointInterval.parse(text)
    assert CheckpointInterval.parse(str(interval)) == interval


def test_it_is_due_at_multiples_of_its_steps_whatever_the_time() -> None:
    interval = CheckpointInterval.parse("10")
    assert [step for step in range(1, 31) if interval.is_due(step, 1e9)] == [10, 20, 30]


def test_it_is_due_once_its_time_has_passed_whatever_the_step() -> None:
    interval = CheckpointInterval.parse("2m")
    assert [interval.is_due(7, seconds) for seconds in (-5.0, 0.0, 119.9, 120.0, 1e9)] == [False] * 3 + [True] * 2
