"""Parse and format durations such as `90s`, `5m` and `1h`."""

import math
import re

from quickfox.errors import UsageError

_SECONDS_PER_UNIT = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90`, `90s`, `1.5m` or `2h`.

    Raises:
        UsageError: the text is not a duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f"{text!r} is not a duration; write 60s, 5m or 1h")
    number, unit = match.groups()
    return float(number) * _SECONDS_PER_UNIT[unit]


def format_duration(seconds: float) -> str:
    """Seconds in at most two units: `42s`, `3m 20s`, `1h 05m`; `?` if not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minute:02d}m"
    return f"{minute}m {second:02d}s" if minute else f"{second}s"
