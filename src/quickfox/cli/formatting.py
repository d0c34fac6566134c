"""Plain tables: aligned columns of text, for any terminal, file or pipe."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from quickfox.cli.streams import escape_unprintable

GAP = "  "


def format_table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells, a line each, every column as wide as its widest cell; the last one is not padded."""
    rows = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


COLOURS = (230, 229, 222, 215, 209, 203, 196)
"""From pale yellow to red: 1 bit and more, 2 and more, ..., 7 and more. Below 1 bit there is no colour."""

_BLACK = 16
_RESET = "\x1b[0m"


def paint_surprisal(text: str, bits: Iterable[float]) -> str:
    """The text in colour, fit for a terminal: of its control characters tabs and line ends stay, others are escaped.

    Args:
        text: any text.
        bits: the surprise of each of its characters, >= 0.
    """
    levels = (0 if character == "\n" else _level(surprise) for character, surprise in zip(text, bits, strict=True))
    runs = groupby(zip(text, levels, strict=True), key=itemgetter(1))
    return "".join(_paint((character for character, _ in run), level) for level, run in runs)


def _level(bits: float) -> int:
    return min(int(bits), len(COLOURS))


def _paint(characters: Iterable[str], level: int) -> str:
    shown = "".join(character if character in "\t\n" else escape_unprintable(character) for character in characters)
    return shown if level == 0 else f"\x1b[38;5;{_BLACK};48;5;{COLOURS[level - 1]}m{shown}{_RESET}"
