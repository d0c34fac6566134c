"""The sections of the report of several runs."""

from collections.abc import Sequence

from quickfox.report.curves import draw_curves, swatch
from quickfox.report.loading import ReportedRun
from quickfox.report.markup import Markup, element, paragraph, section, table
from quickfox.report.measures import NORMAL_97, TextMeasures, compare
from quickfox.report.single import flat_settings, format_loss

Measured = tuple[ReportedRun, TextMeasures | None]


def report_runs(measured: Sequence[Measured]) -> list[Markup]:
    """The sections: ranking, curves, settings that differ, problems."""
    runs = [run for run, _ in measured]
    problems = [
        element("div", element("h3", run.name), paragraph(problem), class_="finding missing")
        for run in runs
        for problem in run.problems
    ]
    parts = [_ranking(measured), section("Curves", draw_curves(runs)), _differences(runs)]
    if problems:
        parts.append(section("Missing parts", element("div", *problems, class_="findings")))
    return parts


def _ranking(measured: Sequence[Measured]) -> Markup:
    order = sorted(
        range(len(measured)), key=lambda index: measures.bits_per_byte if (measures := measured[index][1]) else 1e9
    )
    best_run, best = measured[order[0]]
    rows = []
    for index in order:
        run, measures = measured[index]
        losses = [each.validation_loss for each in run.history.validations if each.validation_loss is not None]
        bits = "–" if measures is None else f"{measures.bits_per_byte:.4f}"
        rows.append(
            [swatch(index, run.name), bits, _difference(best, measures), format_loss(min(losses, default=None))]
        )
    header = ["run", "bits per byte", "more than the best (95 %)", "validation loss"]
    title = "Best by bits per byte"
    if best is None:
        return section(title, paragraph("No run can be measured on its held-out text."), table("Runs", header, rows))
    text = (
        f"{best_run.name} needs the fewest bits per byte of held-out text. The differences are paired: both models "
        f"predict the same characters, and the interval is that of the mean of the differences of their parts."
    )
    return section(title, paragraph(text), table("Runs, best first", header, rows))


def _difference(best: TextMeasures | None, other: TextMeasures | None) -> str:
    if best is None or other is None or best is other:
        return "–"
    difference = compare(best, other)
    if difference is None:
        return "another held-out text"
    mean, error = difference
    if error is None:
        return f"{mean:+.4f}, text too short for an interval"
    low, high = mean - NORMAL_97 * error, mean + NORMAL_97 * error
    verdict = "" if low > 0 else ", no clear difference"
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f}){verdict}"


def _differences(runs: Sequence[ReportedRun]) -> Markup:
    settings = [
        {"text": ", ".join(run.record.corpus.files), "tokenizer": run.record.tokenizer, **flat_settings(run)}
        for run in runs
    ]
    names = [name for name in settings[0] if len({values.get(name) for values in settings}) > 1]
    if not names:
        return section("Settings that differ", paragraph("All settings are the same."))
    rows = [[name.replace("_", " "), *(values.get(name, "–") for values in settings)] for name in names]
    caption = "Settings that differ"
    return section(caption, table(caption, ["setting", *(run.name for run in runs)], rows))
