"""The curves of one or several runs against steps, tokens and seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quickfox.report.charts import Series, line_chart
from quickfox.report.loading import ReportedRun
from quickfox.report.markup import Markup, element, join, paragraph
from quickfox.system.units import format_duration
from quickfox.training.run.history import Step, Validation

SKIPPED = 0.03
"""Share of the steps whose training losses, high and falling fast, do not determine the range of the axis."""


@dataclass(frozen=True)
class _Axis:
    name: str
    label: str
    step_scale: Callable[[ReportedRun], float] | None  # units per step; None: the seconds
    format: Callable[[float], str] | None


def _tokens_per_step(run: ReportedRun) -> float:
    return run.record.training.tokens_per_step


_AXES = (
    _Axis("steps", "optimizer steps", lambda run: 1.0, None),
    _Axis("tokens", "tokens read", _tokens_per_step, lambda value: _format_count(value)),
    _Axis("seconds", "time", None, format_duration),
)


def draw_curves(runs: Sequence[ReportedRun]) -> Markup:
    """Loss and learning rate against steps, tokens and seconds; one of the three is shown at a time."""
    drawn = [run for run in runs if run.history.steps or run.history.validations]
    if not drawn:
        return paragraph("The run has no validation and no recorded step yet, so that there is no curve.")
    inputs, panels = [], []
    for index, axis in enumerate(_AXES):
        identifier = f"axis-{axis.name}"
        checked = True if index == 0 else None
        inputs.append(element("input", type="radio", name="axis", id=identifier, checked=checked))
        inputs.append(element("label", axis.name, for_=identifier))
        panels.append(element("div", *_charts(drawn, axis), class_=f"charts by-{axis.name}"))
    return element(
        "div", element("span", "against"), *inputs, *panels, class_="tabs", role="group", aria_label="Curves"
    )


def _charts(runs: Sequence[ReportedRun], axis: _Axis) -> list[Markup]:
    losses = [series for index, run in enumerate(runs) for series in _losses(run, axis, index, alone=len(runs) == 1)]
    rates = [
        Series(run.name, [(_position(axis, run, each), each.learning_rate) for each in run.history.steps], index % 6)
        for index, run in enumerate(runs)
    ]
    charts = []
    if any(series.points for series in losses):
        title = f"Loss against {axis.label}"
        labels = axis.label, "nats per token"
        charts.append(line_chart(title, labels, losses, y_range=_loss_range(losses), format_x=axis.format))
    if any(series.points for series in rates):
        title, labels = f"Learning rate against {axis.label}", (axis.label, "learning rate")
        charts.append(line_chart(title, labels, rates, format_x=axis.format))
    return charts


def _losses(run: ReportedRun, axis: _Axis, index: int, *, alone: bool) -> list[Series]:
    validations = run.history.validations
    points = {
        name: [
            (_position(axis, run, each), value) for each in validations if (value := getattr(each, name)) is not None
        ]
        for name in ("validation_loss", "network_loss")
    }
    training = [(_position(axis, run, each), each.train_loss) for each in run.history.steps]
    if not alone:
        return [
            Series(f"{run.name}: validation", points["validation_loss"], index % 6),
            Series(f"{run.name}: training", training, index % 6, "faint"),
        ]
    return [
        Series("training, one batch", training, 1, "faint"),
        Series("validation", points["validation_loss"], 0),
        Series("validation, network alone", points["network_loss"], 2, "dashed"),
    ]


def _position(axis: _Axis, run: ReportedRun, each: Step | Validation) -> float:
    return each.seconds if axis.step_scale is None else each.step * axis.step_scale(run)


def _loss_range(series: Sequence[Series]) -> tuple[float, float]:
    """All losses but the first training losses, which are far above the others."""
    end = max(x for each in series for x, _ in each.points)
    values = [y for each in series for x, y in each.points if x > SKIPPED * end or each.style != "faint"]
    values = values or [y for each in series for _, y in each.points]
    margin = 0.06 * (max(values) - min(values)) or 0.1
    return min(values) - margin, max(values) + margin


def _format_count(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def swatch(index: int, label: str) -> Markup:
    """A label with the color of a curve."""
    return join([element("i", class_=f"key line s{index % 6}"), label])
