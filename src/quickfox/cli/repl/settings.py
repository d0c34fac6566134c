"""Commands of the prompt loop that show and change sampling settings, such as `/top-k 40`, named like the options.

The displayed form of a setting is the command that sets it.
"""

import dataclasses
import json
import reprlib
from typing import Any, get_type_hints

from quickfox.cli.options import parse_logit_bias
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import has_type
from quickfox.errors import UsageError
from quickfox.files.json import parse_json

SETTINGS = {
    field.name.replace("_", "-"): field.name
    for field in dataclasses.fields(SamplingConfig)
    if field.name != "logprobs"  # only in JSON output
}
"""Command name -> field of SamplingConfig."""

UNSET = "none"
"""The value that switches an optional setting off."""


def change_setting(config: SamplingConfig, name: str, text: str) -> SamplingConfig:
    """The settings after `/name text`; stop and logit-bias add to a list, as their options do.

    Raises:
        UsageError, DataError: the text is not a valid value of this setting.
    """
    value: Any
    if text == UNSET:
        value = () if name in ("stop", "logit-bias") else None
    elif name == "stop":
        value = (*config.stop, _unquote(text, name))
    elif name == "logit-bias":
        token, bias = parse_logit_bias(text)
        value = (*config.logit_bias, (_unquote(token, name), bias))
    else:
        value = _parse_number(text)
    field = SETTINGS[name]
    if not has_type(value, get_type_hints(SamplingConfig)[field]):
        raise UsageError(f"{field} cannot be {reprlib.repr(value)}", field)
    return dataclasses.replace(config, **{field: value})


def format_setting(config: SamplingConfig, name: str) -> str:
    """The commands that set the current value, one per line."""
    value = getattr(config, SETTINGS[name])
    if name == "stop":
        items = [_quote(text) for text in value]
    elif name == "logit-bias":
        items = [f"{_quote(text)}={bias}" for text, bias in value]
    else:
        items = [] if value is None else [str(value)]
    return "\n".join(f"/{name} {item}" for item in items or [UNSET])


def _parse_number(text: str) -> int | float | str:
    """The number, or the text unchanged, which is then refused by the configuration."""
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquote(text: str, name: str) -> str:
    r"""Decodes a text in double quotes as JSON, so that `"\n"` is a newline; any other text is unchanged."""
    if len(text) < 2 or not text.startswith('"') or not text.endswith('"'):
        return text
    value: str = parse_json(text.encode(errors="replace"), f"/{name}")
    return value
