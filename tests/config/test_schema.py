"""Declarations of settings: bounds, choices, exclusions, and strict decoding from JSON."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.model import ModelConfig
from quickfox.config.schema import (
    MAX_INTEGER,
    bounds_of,
    check_exclusive,
    check_settings,
    choices,
    from_dict,
    setting,
    to_dict,
)
from quickfox.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True)
class Example:
    count: int = setting(bounds=(1, 10))
    rate: float | None = setting(default=None, bounds=(0.0, math.inf))
    kind: Literal["a", "b"] | None = None
    pairs: tuple[tuple[str, float], ...] = ()
    flag: bool = setting(default=False, added_later=True)
    order: Literal["auto", "off"] | int = setting(default="auto", bounds=(1, 16), added_later=True)

    def __post_init__(self) -> None:
        check_settings(self)


VALUES = {"count": 3, "rate": None, "kind": "a", "pairs": []}
MODEL = {"architecture": "lstm", "vocabulary_size": 65, "embedding_dim": 64, "hidden_dim": 512, "num_layers": 1}


def test_bounds_are_inclusive_and_none_is_not_checked() -> None:
    assert (Example(count=1).count, Example(count=10).rate) == (1, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"count": 11}, "count must be at most 10, not 11"),
        ({"rate": -0.5}, "rate must be at least 0.0, not -0.5"),
        ({"rate": math.inf}, "rate must be at least 0.0 and finite, not inf"),
        ({"rate": math.nan}, "rate must be at least 0.0 and finite, not nan"),
        ({"kind": "c"}, "kind must be one of a, b, not 'c'"),
        ({"order": 0}, "order must be at least 1, not 0"),
        ({"order": 17}, "order must be at most 16, not 17"),
        ({"order": "x"}, "order must be auto, off or a number from 1 to 16, not 'x'"),
        ({"order": "4"}, "order must be auto, off or a number from 1 to 16, not '4'"),
        ({"order": True}, "order must be auto, off or a number from 1 to 16, not True"),
        ({"order": 4.0}, "order must be auto, off or a number from 1 to 16, not 4.0"),
    ],
)
def test_an_error_names_the_setting_and_its_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Example(**{"count": 3} | changes)
    assert str(error.value) == message
    assert error.value.settings == tuple(changes)


@pytest.mark.parametrize("order", ["auto", "off", 1, 16])
def test_a_choice_or_a_number(order: Any) -> None:
    assert Example(count=3, order=order).order == order
    assert from_dict(Example, VALUES | {"order": order}, "file").order == order


def test_an_integer_beyond_the_range_of_floats_is_out_of_bounds() -> None:
    with pytest.raises(UsageError, match="count must be at most 10"):
        Example(count=10**400)


def test_settings_that_exclude_each_other() -> None:
    check_exclusive(Example(count=3), "rate", "kind")
    with pytest.raises(UsageError, match="count and kind exclude each other: give one") as error:
        check_exclusive(Example(count=3, kind="b"), "count", "rate", "kind")
    assert error.value.settings == ("count", "kind")


def test_bounds_of_a_setting_serve_another_configuration() -> None:
    assert bounds_of(Example, "count") == (1, 10)


def test_choices_of_a_type() -> None:
    assert choices(Literal["a", "b"]) == ("a", "b")
    assert choices(Literal["x"] | Literal["a", "b"] | None) == ("x", "a", "b")
    assert choices(Literal["a", "b"] | int) == ("a", "b")
    assert choices(int | None) == choices(tuple[Literal["a"], ...]) == ()


def test_a_configuration_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example(count=3).count = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"more": 1}, "unknown setting 'more'"),
        ({"count": "3"}, "'count' cannot be '3'"),
        ({"count": 3.0}, "'count' cannot be 3.0"),
        ({"count": True}, "'count' cannot be True"),
        ({"count": None}, "'count' cannot be None"),
        ({"count": [3]}, "'count' cannot be"),
        ({"count": 11}, "count must be at most 10, not 11"),
        ({"rate": False}, "'rate' cannot be False"),
        ({"rate": "0"}, "'rate' cannot be '0'"),
        ({"rate": MAX_INTEGER + 1}, "'rate' cannot be"),
        ({"kind": "c"}, "'kind' cannot be 'c'"),
        ({"kind": 1}, "'kind' cannot be 1"),
        ({"order": "x"}, "'order' cannot be 'x'"),
        ({"order": True}, "'order' cannot be True"),
        ({"order": 4.0}, "'order' cannot be 4.0"),
        ({"order": 0}, "order must be at least 1, not 0"),
        ({"pairs": [["a", 1.0], ["b"]]}, "'pairs' cannot be"),
        ({"flag": 1}, "'flag' cannot be 1"),
    ],
)
def test_invalid_json_is_refused_with_its_source(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=f"^some/config.json: .*{reason}"):
        from_dict(Example, VALUES | changes, "some/config.json")


@pytest.mark.parametrize("name", VALUES)
def test_a_missing_setting_is_refused_even_if_it_has_a_default(name: str) -> None:
    values = {key: value for key, value in VALUES.items() if key != name}
    with pytest.raises(DataError, match=f"setting '{name}' is missing"):
        from_dict(Example, values, "file")


def test_a_setting_that_was_added_later_may_be_missing() -> None:
    assert from_dict(Example, VALUES, "file") == Example(count=3, kind="a")
    assert from_dict(Example, VALUES | {"flag": True}, "file").flag


@pytest.mark.parametrize("values", [None, [], "lstm", 3])
def test_only_an_object_is_a_configuration(values: Any) -> None:
    with pytest.raises(DataError, match="expected a JSON object"):
        from_dict(Example, values, "file")


def test_lists_become_tuples_and_integers_are_floats_too() -> None:
    config = from_dict(Example, VALUES | {"rate": 2, "pairs": [["e", -1]]}, "file")
    assert (config.rate, config.pairs) == (2, (("e", -1),))


@given(
    st.integers(1, 2**24).flatmap(
        lambda vocabulary_size: st.builds(
            ModelConfig,
            vocabulary_size=st.just(vocabulary_size),
            embedding_dim=st.integers(1, 2**16),
            hidden_dim=st.integers(1, 2**16),
            num_layers=st.integers(1, 64),
            ngrams=st.just(())
            | st.lists(st.integers(0, 2**31 - 1), max_size=15).map(lambda counts: (vocabulary_size, *counts)),
        )
    )
)
def test_round_trip_through_json(config: ModelConfig) -> None:
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config))), "file") == config
