"""Declaration of a setting: its range, help and group are metadata of a dataclass field.

The configurations validate themselves against this metadata, JSON is decoded by it, and the command line builds its
options from it. Independent of particular settings, files and options.
"""

import dataclasses
import math
import reprlib
import sys
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from quickfox.errors import DataError, UsageError

Config = TypeVar("Config")
Bounds = tuple[float, float]
"""The lowest and the highest value of a number, both allowed."""

Group = Literal[
    "",
    "Prompt",
    "Corpus and tokenizer",
    "Model",
    "Optimization",
    "Sampling",
    "Length and stopping",
    "Run and checkpoints",
    "Devices",
    "Output",
]
"""Headings of the options in a help text, in order; "" has no heading of its own, see `cli/options.py`."""

MAX_INTEGER = 2**63 - 1


def setting(
    help: str = "",
    default: Any = dataclasses.MISSING,
    bounds: Bounds | None = None,
    metavar: str = "N",
    *,
    group: Group = "",
    aliases: str = "",
    added_later: bool = False,
    omitted_by_default: bool = False,
) -> Any:
    """A dataclass field that declares a setting.

    Args:
        help: one sentence, with the unit and the default.
        default: as for `dataclasses.field`.
        bounds: lowest and highest value of a number; None: not checked.
        metavar: placeholder of the value in the help text.
        group: heading of the option in the help text.
        aliases: further names of the option, separated by spaces.
        added_later: whether files of earlier versions may lack the setting, which then has its default.
        omitted_by_default: whether files lack the setting if it has its default.
    """
    metadata = {
        "help": help,
        "bounds": bounds,
        "group": group,
        "metavar": metavar,
        "aliases": aliases,
        "added_later": added_later,
        "omitted_by_default": omitted_by_default,
    }
    return dataclasses.field(default=default, metadata=metadata)


def bounds_of(config: type, name: str) -> Bounds:
    """The bounds of the field `name` of a configuration, for a field of another with the same meaning."""
    bounds: Bounds = next(field.metadata["bounds"] for field in dataclasses.fields(config) if field.name == name)
    return bounds


def check_settings(config: Any) -> None:
    """Validates every field of a configuration that is not None.

    A field whose type is a union of choices and numbers has bounds too, which apply to its numbers.

    Raises:
        UsageError: a number is out of bounds, or another value is not one of the choices.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None:
            continue
        bounds, allowed = field.metadata.get("bounds"), choices(field.type)
        if bounds and (not allowed or type(value) is int):
            _check_bounds(field.name, value, bounds)
        elif allowed and value not in allowed:
            valid = f"one of {', '.join(allowed)}"
            if bounds:
                valid = f"{', '.join(allowed)} or a number from {bounds[0]} to {bounds[1]}"
            raise UsageError(f"{field.name} must be {valid}, not {reprlib.repr(value)}", field.name)


def choices(hint: Any) -> tuple[str, ...]:
    """The strings that a `Literal` type or a union with one allows; empty for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(choice for member in get_args(hint) if get_origin(hint) is not tuple for choice in choices(member))


def check_exclusive(config: Any, *names: str) -> None:
    """Raises UsageError if more than one of these settings is given."""
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) > 1:
        raise exclusive_error(given[0], given[1])


def exclusive_error(first: str, second: str, reason: str = "give one") -> UsageError:
    """The error of two settings of which only one can be given."""
    return UsageError(f"{first} and {second} exclude each other: {reason}", first, second)


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a configuration and of the configurations in it, ready for JSON."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not field.metadata.get("omitted_by_default") or value != field.default:
            values[field.name] = _to_plain(value)
    return values


def _to_plain(value: Any) -> Any:
    """A value whose configurations, at any depth, are dictionaries."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, dict):
        return {key: _to_plain(member) for key, member in value.items()}
    return tuple(map(_to_plain, value)) if isinstance(value, list | tuple) else value


def from_dict(kind: type[Config], values: Any, where: str) -> Config:
    """Builds a configuration from decoded JSON, strictly; only settings that were added later may be missing.

    Args:
        kind: the configuration class.
        values: a decoded JSON value.
        where: the source, such as a file name, that begins error messages.

    Raises:
        DataError: not an object, or a field is missing, unknown, of a wrong type (a bool is not an int) or out of
            range.
    """
    if not isinstance(values, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(values).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - fields.keys()):
        raise DataError(f"{where}: unknown setting {reprlib.repr(unknown[0])}")
    needed = {name for name, field in fields.items() if not field.metadata.get("added_later")}
    if missing := sorted(needed - values.keys()):
        raise DataError(f"{where}: setting {missing[0]!r} is missing")
    hints = get_type_hints(kind)
    values = {name: _decode_member(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    for name, value in values.items():
        if not has_type(value, hints[name]):
            raise DataError(f"{where}: setting {name!r} cannot be {reprlib.repr(value)}")
    try:
        return kind(**{name: _to_tuples(value) for name, value in values.items()})
    except UsageError as error:
        raise DataError(f"{where}: {error}") from None


def _decode_member(hint: Any, value: Any, where: str) -> Any:
    """A member of a configuration: an object becomes the configuration class that its type has, if any."""
    kinds = [kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)]
    return from_dict(kinds[0], value, where) if kinds and isinstance(value, dict) else value  # type: ignore[arg-type]


def _check_bounds(name: str, value: float, bounds: Bounds) -> None:
    low, high = bounds
    is_finite = abs(value) <= sys.float_info.max  # math.isfinite fails for an integer beyond that
    if not (low <= value <= high and is_finite):
        bound = f"at least {low}" if high == math.inf or value < low else f"at most {high}"
        finite = "" if is_finite else " and finite"
        raise UsageError(f"{name} must be {bound}{finite}, not {reprlib.repr(value)}", name)


def has_type(value: Any, hint: Any) -> bool:
    """Whether a decoded JSON value has the type of a field; a bool is not an int, and an int is a float."""
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return False  # for floats too: Python would fail to convert it
    if get_origin(hint) is Literal:
        return value in get_args(hint) and isinstance(value, str)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and _have_types(value, get_args(hint))
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(has_type(member, get_args(hint)[1]) for member in value.values())
    if args := get_args(hint):  # a union such as int | None
        return any(has_type(value, arg) for arg in args)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)


def _have_types(values: Any, hints: Any) -> bool:
    """Whether the items match the types of a tuple, where `(int, ...)` allows any number of integers."""
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = hints[:1] * len(values)
    return len(values) == len(hints) and all(map(has_type, values, hints))


def _to_tuples(value: Any) -> Any:
    return tuple(map(_to_tuples, value)) if isinstance(value, list | tuple) else value
