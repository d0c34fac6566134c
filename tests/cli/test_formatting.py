"""Text colored by surprisal: colors, and escaping of control characters."""

import re

from quickfox.cli.formatting import COLORS, color_by_surprisal


def remove_colors(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_adjacent_characters_of_one_level_are_colored_as_one_run() -> None:
    colored = color_by_surprisal("abcde", [0.2, 1.0, 1.9, 2.0, 0.99])
    assert colored == f"a\x1b[38;5;16;48;5;{COLORS[0]}mbc\x1b[0m\x1b[38;5;16;48;5;{COLORS[1]}md\x1b[0me"


def test_the_color_is_limited_to_red() -> None:
    assert color_by_surprisal("a", [7.0]) == color_by_surprisal("a", [1e9])
    assert str(COLORS[-1]) in color_by_surprisal("a", [7.0])


def test_line_ends_are_not_colored() -> None:
    assert color_by_surprisal("a\nb", [0, 9, 0]) == "a\nb"


def test_control_characters_are_escaped() -> None:
    colored = color_by_surprisal("\x1b[2J\tä\r\x07\x9b", [5.0] * 9)
    assert remove_colors(colored) == "\\x1b[2J\tä\\r\\x07\\x9b"
