"""Random configurations, within the bounds that their fields declare."""

import dataclasses
import sys
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from quickfox.config.schema import MAX_INTEGER
from quickfox.errors import UsageError

Config = TypeVar("Config")


def configurations(kind: type[Config], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Config]:
    """Valid configurations; `given` has the fields without default that are not numbers, choices or texts."""
    hints = get_type_hints(kind)
    fields = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            fields[field.name] = given[field.name]
        elif (values := values_of(hints[field.name], field.metadata.get("bounds"))) is not None:
            fields[field.name] = values

    def build(values: dict[str, Any]) -> Config | None:
        try:
            return kind(**values)
        except UsageError:  # settings that exclude each other
            return None

    return st.fixed_dictionaries(fields).map(build).filter(lambda config: config is not None)  # type: ignore[return-value]


def values_of(hint: Any, bounds: tuple[float, float] | None) -> st.SearchStrategy[Any] | None:
    """The values of a type within bounds; None for types of other values."""
    low, high = bounds or (-MAX_INTEGER, MAX_INTEGER)
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if NoneType in get_args(hint):
        (other,) = (each for each in get_args(hint) if each is not NoneType)
        values = values_of(other, bounds)
        return None if values is None else st.none() | values
    if hint is float:
        return st.floats(max(low, -sys.float_info.max), min(high, sys.float_info.max))
    simple = {bool: st.booleans(), int: st.integers(int(max(low, -MAX_INTEGER)), int(min(high, MAX_INTEGER)))}
    return simple.get(hint, st.text() if hint is str else None)
