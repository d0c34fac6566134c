"""Charts: positions, round ticks, and curves of many points."""

import re

import pytest

from quickfox.report.charts import HEIGHT, LEFT, MAX_POINTS, RIGHT, WIDTH, Series, format_number, line_chart, thin


def path_of(svg: str, classes: str) -> list[list[float]]:
    """The points of the path of these classes."""
    match = re.search(rf'<path d="M([^"]*)" class="{classes}"', svg)
    assert match
    return [[float(number) for number in point.split()] for point in match[1].split("L")]


def test_a_curve_goes_from_one_side_to_the_other() -> None:
    svg = line_chart("title", ("x", "y"), [Series("a", [(0, 1), (5, 3), (10, 2)])], y_range=(1, 3))
    points = path_of(svg, "line s0")
    assert [x for x, _ in points] == [LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT]
    assert points[1][1] < points[2][1] < points[0][1] < HEIGHT
    assert "<figcaption>" not in svg


def test_several_curves_have_a_legend_and_empty_ones_are_left_out() -> None:
    series = [Series("first", [(0, 1), (1, 2)]), Series("<second>", [(0, 2)], 1, "dashed"), Series("none", [])]
    svg = line_chart("title", ("x", "y"), series)
    assert "first" in svg
    assert "&lt;second&gt;" in svg
    assert "none</span>" not in svg


@pytest.mark.parametrize("points", [[(3.0, 2.0)], [(0.0, 0.0), (1.0, 0.0)], [(1e9, 1e-9), (2e9, 2e-9)]])
def test_any_range_has_finite_positions(points: list[tuple[float, float]]) -> None:
    svg = line_chart("title", ("x", "y"), [Series("a", points)])
    assert not re.search("nan|inf", svg)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in path_of(svg, "line s0"))


def test_ticks_are_round_numbers() -> None:
    svg = line_chart("title", ("x", "y"), [Series("a", [(0, 1.13), (10_000, 2.87)])])
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"0", "2,000", "10,000", "1.5", "2", "2.5"} <= set(texts)


def test_numbers_are_short() -> None:
    assert [format_number(value) for value in (0, 0.25, 1000, 1e-5, 123456789)] == [
        "0",
        "0.25",
        "1,000",
        "1e-05",
        "1.23e+08",
    ]


def test_thinning_keeps_the_ends_and_the_extremes() -> None:
    points = [(float(x), 1.0) for x in range(10_000)]
    points[7777] = (7777.0, 9.0)
    points[1234] = (1234.0, -9.0)
    thinned = thin(points)
    assert len(thinned) <= MAX_POINTS + 2
    assert {points[0], points[1234], points[7777], points[-1]} <= set(thinned)
    assert thinned == sorted(thinned)
    assert thin(points[:MAX_POINTS]) == points[:MAX_POINTS]
