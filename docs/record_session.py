"""Records docs/session.svg: a real terminal session of `llm train` and `llm generate`.

usage: python docs/record_session.py [--budget 60s] [--output docs/session.svg]
The commands run in a pseudo-terminal, in a temporary directory with a link to the sample corpora. The lines that the
terminal shows at the end of each command are printed to a recording console of Rich, which exports the picture.
"""

import argparse
import os
import pty
import re
import shlex
import struct
import sys
import tempfile
import termios
from fcntl import ioctl
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
COLUMNS, ROWS = 112, 50
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Fonts that a viewer would load from the network."""

CONTROL = re.compile(r"(\r|\n|\x1b\[[0-9;?]*[A-Za-z])")


def run(command: str, folder: Path) -> str:
    """Runs a command in a pseudo-terminal of its own; returns everything that it writes.

    Raises:
        SystemExit: the command failed.
    """
    program, *arguments = shlex.split(command)
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execv(Path(sys.executable).with_name(program), [program, *arguments])
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    output = b""
    while data := read_available(terminal):
        output += data
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status != 0:
        sys.exit(f"{command} ended with status {status}: {output.decode(errors='replace')}")
    return output.decode("utf-8")


def read_available(terminal: int) -> bytes:
    """The next bytes from a pseudo-terminal; empty once its process has ended."""
    try:
        return os.read(terminal, 2**16)
    except OSError:
        return b""


def final_lines(output: str) -> list[str]:
    """The lines that a terminal shows after this output: erased lines are gone, colors remain as escape sequences."""
    lines, row = [""], 0
    for part in CONTROL.split(output):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b["):
            row = max(0, row - int(part[2:-1] or 1))
        elif part.endswith("K") and part.startswith("\x1b["):
            lines[row] = ""
        elif part != "\r" and not re.fullmatch(r"\x1b\[.*[^m]", part):
            lines[row] += part
    while lines and not lines[-1]:
        lines.pop()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--budget", default="60s", help="wall time of the training")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "session.svg")
    options = parser.parse_args()
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sample_corpora").symlink_to(ROOT / "sample_corpora")
        for command in (
            f"llm train sample_corpora/pride_and_prejudice.txt --budget {options.budget}",
            "llm generate --seed 'It is a truth' --length 400 --temperature 0.7 --random-seed 1",
        ):
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            for line in final_lines(run(command, folder)):
                console.print(Text.from_ansi(line), soft_wrap=False)
            console.print()
    picture = FONTS.sub("", console.export_svg(title="Quickfox", unique_id="session"))
    options.output.write_text(picture.replace("Fira Code, ", ""), encoding="utf-8")


if __name__ == "__main__":
    main()
