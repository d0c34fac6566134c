"""Loss curves: worked examples."""

import math

from quickfox.cli.curves import draw_losses


def test_a_falling_curve_goes_from_the_upper_left_to_the_lower_right() -> None:
    lines = draw_losses([(1, 3.0), (10, 2.0), (100, 1.0)], [], width=28, height=6)
    assert lines == [
        " 3.0000 ⠁",
        "",
        "         " + " " * 9 + "⠄",
        "",
        " 1.0000 " + " " * 19 + "⢀",
        "        1" + " " * 10 + "100 steps",
    ]


def test_validations_are_letters() -> None:
    lines = draw_losses([(1, 2.0)], [(1, 2.0), (8, 1.0)], width=24, height=4)
    assert [line[8:].strip() for line in lines[:3]] == ["o", "", "o"]
    assert lines[2][23] == "o"


def test_one_point_and_equal_losses_and_infinite_ones() -> None:
    assert "⠁" in draw_losses([(5, 2.0)], [], 24, 4)[0]
    assert "⠁" in draw_losses([(1, 2.0), (2, 2.0), (3, math.inf), (4, math.nan)], [], 24, 4)[0]
    assert draw_losses([], [], 24, 4) == []
