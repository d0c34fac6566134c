"""Loss curves drawn with characters: points in Braille patterns, validations as o."""

import math
from collections.abc import Sequence

from quickfox.cli.training_log import format_loss

Point = tuple[int, float]
"""A step, from 1, and the loss at it."""

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of the dots of a Braille pattern, four rows of two."""

_BRAILLE = 0x2800
_LABEL_WIDTH = 8


def draw_losses(training: Sequence[Point], validation: Sequence[Point], width: int, height: int) -> list[str]:
    """The losses of a run against its steps, which are on a logarithmic scale.

    Args:
        training, validation: of the same run; without any point the picture is empty.
        width, height: in characters, the labels of the axes included; at least 24 and 3.

    Returns:
        `height` lines, or none.
    """
    points = [point for point in (*training, *validation) if math.isfinite(point[1])]
    if not points:
        return []
    columns, rows = width - _LABEL_WIDTH, height - 1
    first, last = (choose(step for step, _ in points) for choose in (min, max))
    low, high = (choose(loss for _, loss in points) for choose in (min, max))

    def place(point: Point) -> tuple[int, int]:
        """The column and the row of the dot of a point."""
        x = math.log(point[0] / first) / math.log(last / first) if last > first else 0.0
        y = (high - point[1]) / (high - low) if high > low else 0.0
        return round(x * (2 * columns - 1)), round(y * (4 * rows - 1))

    cells = [[0] * columns for _ in range(rows)]
    for point in training:
        if math.isfinite(point[1]):
            x, y = place(point)
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    picture = [[chr(_BRAILLE + cell) if cell else " " for cell in row] for row in cells]
    for point in validation:
        if math.isfinite(point[1]):
            x, y = place(point)
            picture[y // 4][x // 2] = "o"
    labels = {0: format_loss(high), rows - 1: format_loss(low)}
    lines = [
        f"{labels.get(row, ''):>{_LABEL_WIDTH - 1}} {''.join(cells)}".rstrip() for row, cells in enumerate(picture)
    ]
    end = f"{last:,} steps"
    return [*lines, f"{'':{_LABEL_WIDTH}}{first:<{max(1, columns - len(end))},}{end}"]
