"""Plain tables: aligned columns of text, for any terminal, file or pipe."""

from collections.abc import Iterable, Sequence

GAP = "  "


def format_table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells, a line each, every column as wide as its widest cell; the last one is not padded."""
    rows = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)
