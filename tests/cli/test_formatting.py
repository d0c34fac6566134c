"""Surprise as colour, safe for any terminal."""

import re

from quickfox.cli.formatting import COLOURS, paint_surprisal


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_runs_of_one_level_are_painted_together() -> None:
    painted = paint_surprisal("abcde", [0.2, 1.0, 1.9, 2.0, 0.99])
    assert painted == f"a\x1b[38;5;16;48;5;{COLOURS[0]}mbc\x1b[0m\x1b[38;5;16;48;5;{COLOURS[1]}md\x1b[0me"


def test_all_that_is_most_surprising_is_red() -> None:
    assert paint_surprisal("a", [7.0]) == paint_surprisal("a", [1e9])
    assert str(COLOURS[-1]) in paint_surprisal("a", [7.0])


def test_no_line_end_is_painted() -> None:
    assert paint_surprisal("a\nb", [0, 9, 0]) == "a\nb"


def test_what_a_terminal_would_act_upon_is_escaped() -> None:
    painted = paint_surprisal("\x1b[2J\tä\r\x07\x9b", [5.0] * 9)
    assert without_colour(painted) == "\\x1b[2J\tä\\r\\x07\\x9b"
