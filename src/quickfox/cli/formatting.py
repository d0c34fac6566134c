"""Text tables, and text colored by surprisal, for the terminal."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from quickfox.cli.streams import escape_unprintable

COLORS = (230, 229, 222, 215, 209, 203, 196)
"""Indices into the 256-color palette, pale yellow to red, for 1, 2, ..., 7 and more bits; below 1 bit: no color."""

_BLACK = 16
_RESET = "\x1b[0m"


def format_table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as lines; every column but the last is padded to its widest cell."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def color_by_surprisal(text: str, bits: Iterable[float]) -> str:
    """The text with background colors; control characters other than tabs and line ends are escaped.

    Args:
        text: any text.
        bits: surprisal of each character, >= 0.
    """
    levels = (
        0 if character == "\n" else min(int(surprisal), len(COLORS))
        for character, surprisal in zip(text, bits, strict=True)
    )
    colored = []
    for level, run in groupby(zip(levels, text, strict=True), key=itemgetter(0)):
        shown = "".join(character if character in "\t\n" else escape_unprintable(character) for _, character in run)
        colored.append(f"\x1b[38;5;{_BLACK};48;5;{COLORS[level - 1]}m{shown}{_RESET}" if level else shown)
    return "".join(colored)
