"""Text tables, and text colored by surprisal or by activation, for the terminal."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from quickfox.cli.streams import escape_unprintable

COLORS = (230, 229, 222, 215, 209, 203, 196)
"""Indices into the 256-color palette, pale yellow to red, for 1, 2, ..., 7 and more bits; below 1 bit: no color."""

NEGATIVE_COLORS, POSITIVE_COLORS = (189, 153, 117, 75), (223, 216, 209, 203)
"""Indices into the 256-color palette, blue and orange, for activations that are nearly 0 up to the largest."""

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
    levels = [0 if character == "\n" else int(surprisal) for character, surprisal in zip(text, bits, strict=True)]
    return _color(text, [COLORS[min(level, len(COLORS)) - 1] if level else None for level in levels])


def color_by_activation(text: str, levels: Iterable[int]) -> str:
    """The text with background colors; control characters other than tabs and line ends are escaped.

    Args:
        text: any text.
        levels: of each character, from -4 to 4, see `activation_levels`; 0: no color.
    """
    colors = (*reversed(NEGATIVE_COLORS), None, *POSITIVE_COLORS)
    middle = len(NEGATIVE_COLORS)
    return _color(text, [colors[level + middle] for level in levels])


def _color(text: str, colors: Iterable[int | None]) -> str:
    """The text with these background colors; line ends have none."""
    colored = []
    pairs = ((None if character == "\n" else color, character) for color, character in zip(colors, text, strict=True))
    for color, run in groupby(pairs, key=itemgetter(0)):
        shown = "".join(character if character in "\t\n" else escape_unprintable(character) for _, character in run)
        colored.append(shown if color is None else f"\x1b[38;5;{_BLACK};48;5;{color}m{shown}{_RESET}")
    return "".join(colored)
