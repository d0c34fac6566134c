"""Records docs/report.png, the report of a run in a browser, and docs/heat.svg, a text colored by `llm score --heat`.

usage: python docs/record_report.py RUN TEXT [UNIT]
RUN is a run, TEXT a text file of about 20 lines. With the name of a UNIT, it records only docs/unit.svg, the text
colored by `llm inspect --unit`. The browser is that of the tests: Chromium, with Selenium.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from record_session import FONTS, ROOT, run
from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(ROOT / "tests"))
from browser import chromium

WIDTH, HEIGHT = 1200, 1130  # pixels of the top of the report
SCALE = 0.75
COLUMNS = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("unit", nargs="?")
    options = parser.parse_args()
    if options.unit is not None:
        command = f"llm inspect '{options.text}' --model '{options.run}' --unit {options.unit}"
        save_colored(command, "llm inspect --unit", "unit.svg")
        return
    with tempfile.TemporaryDirectory() as name:
        page = Path(name) / "report.html"
        run(f"llm report '{options.run}' -o {page}", ROOT)
        with chromium() as browser:
            browser.open(page.as_uri(), WIDTH)
            picture = browser.picture(WIDTH, HEIGHT, SCALE)
    (ROOT / "docs" / "report.png").write_bytes(picture)
    save_colored(f"llm score --heat '{options.text}' --model '{options.run}'", "llm score --heat", "heat.svg")


def save_colored(command: str, title: str, name: str) -> None:
    """Saves the colored output of a command as a picture."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    console.print(Text.from_ansi(run(command, ROOT).replace("\r\n", "\n")))
    svg = FONTS.sub("", console.export_svg(title=title, unique_id=name.partition(".")[0]))
    (ROOT / "docs" / name).write_text(svg.replace("Fira Code, ", ""), encoding="utf-8")


if __name__ == "__main__":
    main()
