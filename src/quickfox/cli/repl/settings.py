"""The settings of sampling as a person types them at a prompt: `/top-k 40`, named and valued like the options.

What is shown can be typed again.
"""

import dataclasses
import json
from typing import Any

from quickfox.cli.options import parse_logit_bias
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import from_dict, to_dict
from quickfox.files.json import parse_json

SETTINGS = {
    field.name.replace("_", "-"): field.name
    for field in dataclasses.fields(SamplingConfig)
    if field.name != "logprobs"  # those are reported as JSON only
}
"""The name of each command, and that of the field it sets."""

NO_TOKEN = "none"
"""Switches a setting off that can be."""


def changed(config: SamplingConfig, name: str, text: str) -> SamplingConfig:
    """The settings after `/name text`; like the options, stop and logit-bias may be repeated to give several.

    Raises:
        UsageError, DataError: the text is no value of this setting, or one out of its range.
    """
    value: Any
    if name in ("stop", "logit-bias"):
        value = () if text == NO_TOKEN else (*getattr(config, SETTINGS[name]), _parse_item(name, text))
    else:
        value = None if text == NO_TOKEN else _parse_number(text)
    return from_dict(SamplingConfig, to_dict(config) | {SETTINGS[name]: value}, f"/{name}")


def shown(config: SamplingConfig, name: str) -> str:
    """The commands that would set what is set, a line each."""
    value = getattr(config, SETTINGS[name])
    if name == "stop":
        items = [_quote(text) for text in value]
    elif name == "logit-bias":
        items = [f"{_quote(text)}={bias}" for text, bias in value]
    else:
        items = [] if value is None else [str(value)]
    return "\n".join(f"/{name} {item}" for item in items or [NO_TOKEN])


def _parse_number(text: str) -> int | float | str:
    """The number, or the text as it is, which is no value of any setting."""
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def _parse_item(name: str, text: str) -> Any:
    if name == "stop":
        return _unquote(text, name)
    token, bias = parse_logit_bias(text)
    return _unquote(token, name), bias


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquote(text: str, name: str) -> str:
    r"""What stands in double quotes is JSON, so that `"\n"` is a line end; a text without them is as it was typed."""
    if len(text) < 2 or not text.startswith('"') or not text.endswith('"'):
        return text
    value: str = parse_json(text.encode(errors="replace"), f"/{name}")
    return value
