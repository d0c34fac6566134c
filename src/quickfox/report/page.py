"""The report of one or several runs as one HTML file: no script, nothing loaded from elsewhere, light and dark."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from quickfox.errors import DataError
from quickfox.report.comparison import report_runs
from quickfox.report.loading import ReportedRun, RunText, load_run, load_text
from quickfox.report.markup import Markup, element, join
from quickfox.report.measures import TextMeasures, measure
from quickfox.report.single import report_run
from quickfox.version import __version__


def render_report(directories: Sequence[Path], threads: int = 1) -> str:
    """The HTML of a report.

    Args:
        directories: one or more runs.
        threads: processor threads.

    Raises:
        NoInputError, DataError: one is not a run, or its record is damaged.
        StorageError: reading failed.
    """
    runs = [load_run(directory, threads) for directory in directories]
    if len(runs) == 1:
        text, measures = _measure(runs[0])
        return render_page(runs[0].name, "What the model learnt", report_run(runs[0], text, measures, threads))
    sections = report_runs([(run, _measure(run)[1]) for run in runs])
    return render_page(", ".join(run.name for run in runs), f"{len(runs)} runs compared", sections)


def _measure(run: ReportedRun) -> tuple[RunText | None, TextMeasures | None]:
    """The text of a run, and its model on the held-out part; None, with a problem, where there is none."""
    text = load_text(run)
    if text is None or run.model is None:
        return text, None
    try:
        return text, measure(run.model, text)
    except DataError:
        run.problems.append("No text was held out, so that the model cannot be measured on text it has not seen.")
        return text, None


def render_page(title: str, subtitle: object, sections: Sequence[Markup]) -> str:
    """The HTML of a page with a heading and these sections."""
    style = resources.files("quickfox.report").joinpath("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        ),
        element("title", f"{title} – Quickfox"),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element("header", element("p", subtitle), element("h1", title, dir="auto")),
        element("main", *sections),
        element("footer", f"Quickfox {__version__}"),
    )
    return join([Markup("<!doctype html>\n"), element("html", head, body, lang="en"), "\n"])
