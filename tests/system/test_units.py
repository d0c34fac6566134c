"""Parse and format durations."""

import math

import pytest

from quickfox.errors import UsageError
from quickfox.system.units import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("1.5m", 90), ("0.25h", 900), (" 60s ", 60), ("0", 0)],
)
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5 m", "5d", "-5m", "+5m", "1e3", ".5m", "5.m", "1h30m", "5M", "nan", "inf", "٥m", "5m\n5m"]
)
def test_an_invalid_duration_is_reported_with_its_text(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-3, "0s"),
        (42.4, "42s"),
        (59.6, "1m 00s"),
        (200, "3m 20s"),
        (3599.4, "59m 59s"),
        (3600, "1h 00m"),
        (3900, "1h 05m"),
        (100 * 3600, "100h 00m"),
        (math.nan, "?"),
        (math.inf, "?"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
