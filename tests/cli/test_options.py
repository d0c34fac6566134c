"""Times as people write them."""

import math

import pytest
import typer

from quickfox.cli.options import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60.0), ("90", 90.0), ("5m", 300.0), ("1.5m", 90.0), ("1h", 3600.0), (" 2s ", 2.0)]
)
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 m", "1h30m", "nan", "5d", "s", "1e3"])
def test_parse_duration_refuses(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 60s, 5m or 1h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (42.4, "42s"), (59.7, "1m 00s"), (200, "3m 20s"), (3900, "1h 05m"), (-1, "0s"), (math.nan, "?")],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
