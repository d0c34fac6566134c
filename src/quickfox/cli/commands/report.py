"""`llm report`: one HTML file about one or several runs."""

from pathlib import Path
from typing import Annotated

import typer

from quickfox.cli.options import ThreadsOption, option
from quickfox.cli.streams import notify
from quickfox.system.threads import choose_threads, pin_numpy_threads

EXAMPLES = """\b
Examples:
  llm report runs/corpus
  llm report runs/corpus runs/corpus-2 -o comparison.html"""


def run(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs; several are compared.")],
    output: Annotated[Path, option("--output -o", "The file to write. Default: report.html.", metavar="FILE")] = Path(
        "report.html"
    ),
    threads: ThreadsOption = None,
) -> None:
    """Write a report about runs as one HTML file. See docs/report.md.

    It shows curves, samples, hard passages, calibration, copies and comparisons.
    """
    pin_numpy_threads(1)  # segments are processed by threads of our own
    from quickfox.files.atomic import write_file
    from quickfox.report.page import render_report

    page = render_report(runs, choose_threads(threads, notify))
    write_file(output, page.encode(errors="backslashreplace"))
    notify(f"wrote {output}")
