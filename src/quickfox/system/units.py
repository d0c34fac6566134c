"""Lengths of time as people write them: `90s`, `5m`, `1h`."""

import math
import re

from quickfox.errors import UsageError

_SECONDS_IN = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """The seconds of a time such as `90`, `90s`, `1.5m` or `2h`.

    Raises:
        UsageError: it is no such time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f"{text!r} is no time; write 60s, 5m or 1h")
    number, unit = match.groups()
    return float(number) * _SECONDS_IN[unit]


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: `42s`, `3m 20s`, `1h 05m`; `?` where it is not known."""
    if not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minute:02d}m"
    return f"{minute}m {second:02d}s" if minute else f"{second}s"
