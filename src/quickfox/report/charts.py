"""Charts as SVG with the colors of the page: lines, a scatter plot, bars. Independent of what they show.

A renderer of our own instead of matplotlib's: the file is a tenth as large, its colors follow the reader's light or
dark scheme, its text is text, and the report needs no further package.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from quickfox.report.markup import Markup, element, join

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 42

MAX_POINTS = 400
"""Points of a curve; of more, the lowest and the highest of each interval are drawn."""

_MARGIN = 0.05

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        label: its name in the legend.
        points: (x, y), x ascending.
        color: index of a color of the page, 0 ... 5.
        style: "line", "faint" or "dashed"; a single point is drawn as a dot.
    """

    label: str
    points: Sequence[Point]
    color: int = 0
    style: str = "line"


def line_chart(
    title: str,
    axes: tuple[str, str],
    series: Sequence[Series],
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    format_x: Callable[[float], str] | None = None,
    with_diagonal: bool = False,
) -> Markup:
    """Curves over common axes, with a legend.

    Args:
        title: what the chart shows, for readers who do not see it.
        axes: labels of x and y.
        series: the curves; those without points are left out.
        x_range, y_range: the lowest and the highest value shown; None: those of the points.
        format_x: the text of a value of x.
        with_diagonal: whether to draw the line y = x.
    """
    drawn = [each for each in series if each.points]
    xs = [x for each in drawn for x, _ in each.points]
    ys = [y for each in drawn for _, y in each.points]
    x_axis = _Axis(*(x_range or (min(xs), max(xs))), LEFT, WIDTH - RIGHT)
    low, high = y_range or (min(ys), max(ys))
    y_axis = _Axis(low, high, HEIGHT - BOTTOM, TOP, is_padded=y_range is None)
    parts = [_grid(x_axis, y_axis, axes, format_x or format_number)]
    if with_diagonal:
        parts.append(_path([(low, low), (high, high)], x_axis, y_axis, "diagonal"))
    clip = element("rect", x=LEFT, y=TOP - 4, width=WIDTH - LEFT - RIGHT + 6, height=HEIGHT - TOP - BOTTOM + 8)
    curves = []
    for each in drawn:
        points = thin(each.points)
        classes = f"{each.style} s{each.color}"
        curves.append(_path(points, x_axis, y_axis, classes))
        if each.style != "faint" and len(points) <= 40:
            dots = (
                element("circle", cx=_px(x_axis(x)), cy=_px(y_axis(y)), r=2.6, class_=f"dot s{each.color}")
                for x, y in points
            )
            curves.append(join(dots))
    identifier = f"clip-{zlib.crc32(f'{title}{axes}'.encode())}"
    parts.append(element("clipPath", clip, id=identifier))
    parts.append(element("g", *curves, clip_path=f"url(#{identifier})"))
    return element("figure", _svg(title, parts), _legend(drawn))


def scatter(title: str, axes: tuple[str, str], points: Sequence[tuple[float, float, str, int]]) -> Markup:
    """Labels at the points (x, y, label, index of a color)."""
    x_axis = _Axis(min(x for x, *_ in points), max(x for x, *_ in points), LEFT, WIDTH - RIGHT, is_padded=True)
    y_axis = _Axis(min(p[1] for p in points), max(p[1] for p in points), HEIGHT - BOTTOM, TOP, is_padded=True)
    labels = [
        element("text", label, x=_px(x_axis(x)), y=_px(y_axis(y)), class_=f"label s{color}", text_anchor="middle")
        for x, y, label, color in points
    ]
    return element("figure", _svg(title, [_grid(x_axis, y_axis, axes, format_number), *labels]))


def bar(share: float) -> Markup:
    """A horizontal bar of a table, whose length is a share, 0 ... 1."""
    return element("span", element("span", style=f"width:{100 * share:.1f}%"), class_="bar", aria_hidden="true")


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most about `limit` points that look the same: the lowest and the highest of each of limit / 2 parts."""
    if len(points) <= limit:
        return list(points)
    kept: dict[int, None] = {0: None}
    parts = limit // 2
    for part in range(parts):
        indices = range(part * len(points) // parts, (part + 1) * len(points) // parts)
        lowest, highest = (choose(indices, key=lambda index: points[index][1]) for choose in (min, max))
        kept.update(dict.fromkeys(sorted((lowest, highest))))
    kept[len(points) - 1] = None
    return [points[index] for index in kept]


def format_number(value: float) -> str:
    """A number of an axis or a table: 1,000, 0.25, 1e-05."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{value:,.4f}".rstrip("0").rstrip(".")


class _Axis:
    """Maps values to pixels, and chooses round values for ticks."""

    def __init__(self, low: float, high: float, start: float, end: float, *, is_padded: bool = False) -> None:
        if low == high:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        margin = _MARGIN * (high - low) if is_padded else 0.0
        self.low, self.high, self._start, self._end = low - margin, high + margin, start, end

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Up to 6 multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def _grid(x_axis: _Axis, y_axis: _Axis, axes: tuple[str, str], format_x: Callable[[float], str]) -> Markup:
    parts = []
    for tick in y_axis.ticks():
        y = _px(y_axis(tick))
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", format_number(tick), x=LEFT - 6, y=y, dy="0.32em", text_anchor="end"))
    for tick in x_axis.ticks():
        x = _px(x_axis(tick))
        parts.append(element("text", format_x(tick), x=x, y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    base = HEIGHT - BOTTOM
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(element("text", axes[0], x=middle, y=HEIGHT - 6, text_anchor="middle", class_="name"))
    turned = f"translate(13 {(TOP + base) / 2}) rotate(-90)"
    parts.append(element("text", axes[1], transform=turned, text_anchor="middle", class_="name"))
    return join(parts)


def _path(points: Iterable[Point], x_axis: _Axis, y_axis: _Axis, classes: str) -> Markup:
    path = "L".join(f"{_px(x_axis(x))} {_px(y_axis(y))}" for x, y in points)
    return element("path", d=f"M{path}", class_=classes)


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _svg(title: str, parts: Iterable[Markup]) -> Markup:
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)


def _legend(series: Sequence[Series]) -> Markup | None:
    if len(series) < 2:
        return None
    keys = (element("span", element("i", class_=f"key {each.style} s{each.color}"), each.label) for each in series)
    return element("figcaption", *keys)
