"""SamplingConfig: bounds, and settings that exclude each other."""

import math
from typing import Any

import pytest
from hypothesis import given

from configurations import configurations
from quickfox.config.sampling import (
    INACTIVE_SETTINGS,
    SamplingConfig,
    describe_inactive,
    describe_unreachable_stops,
)
from quickfox.config.schema import MAX_INTEGER, from_dict, to_dict
from quickfox.errors import UsageError
from quickfox.files.json import format_json, parse_json


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("length", -1),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", -math.inf),
        ("top_k", 0),
        ("num_samples", 0),
        ("random_seed", -1),
    ],
)
def test_values_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} must be at \w+ .*not {value}$") as error:
        SamplingConfig(**{name: value})
    assert error.value.settings == (name,)


def test_extreme_values() -> None:
    SamplingConfig(length=0, temperature=0, top_k=2**40, random_seed=MAX_INTEGER, num_samples=1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stop": ("a", "")}, "stop must not be an empty text"),
        ({"logit_bias": (("e", math.nan),)}, "logit_bias of 'e' must be -inf or between .*, not nan"),
        ({"logit_bias": (("e", math.inf),)}, "logit_bias of 'e' must be -inf or between .*, not inf"),
        ({"logit_bias": (("e", 1e300),)}, "logit_bias of 'e' must be -inf or between"),
        ({"num_beams": 2, "best_of": 2}, "num_beams and best_of exclude each other"),
        ({"num_samples": 3, "best_of": 2}, "num_samples must be at most best_of, which is 2, not 3"),
        ({"num_samples": 3, "num_beams": 2}, "num_samples must be at most num_beams, which is 2, not 3"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=f"^{reason}") as error:
        SamplingConfig(**settings)
    assert set(error.value.settings) == set(settings)


def test_minus_infinity_is_a_logit_bias() -> None:
    assert SamplingConfig(logit_bias=(("e", -math.inf),)).logit_bias == (("e", -math.inf),)


ACTIVE: dict[str, Any] = {
    "temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5, "best_of": 2, "penalty_window": 8
}  # fmt: skip
REASONS: list[dict[str, Any]] = [{"num_beams": 2}, {"temperature": 0.0}, {}]
"""Settings that meet the condition of each row of INACTIVE_SETTINGS."""

PAIRS = [(reason, name) for reason, (_, _, names) in zip(REASONS, INACTIVE_SETTINGS, strict=True) for name in names]


@pytest.mark.parametrize(("reason", "name"), PAIRS)
def test_a_setting_that_others_make_inactive_is_told(reason: dict[str, Any], name: str) -> None:
    config = SamplingConfig(**{name: ACTIVE[name]} | reason)
    (error,) = describe_inactive(config, {name})
    assert str(error).startswith(f"{name} has no effect: ")
    assert error.settings == (name,)
    assert describe_inactive(config, set()) == [], "only settings that the user gave"


def test_active_settings_are_not_told_of() -> None:
    config = SamplingConfig(**ACTIVE, presence_penalty=1.0)
    assert describe_inactive(config, set(ACTIVE)) == []


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("\n", None),
        ("ab", None),
        ("aé", "stop 'aé' never occurs: the model has no 'é'"),
        (r"\n", r"stop '\\n' never occurs: the model has no '\\'; a newline is written $'\n' in a shell"),
    ],
)
def test_stops_that_the_model_cannot_write(stop: str, message: str | None) -> None:
    found = describe_unreachable_stops(SamplingConfig(stop=(stop,)), "ab\n")
    assert [str(error) for error in found] == ([message] if message else [])


def test_a_backslash_before_an_n_is_probably_a_newline() -> None:
    (error,) = describe_unreachable_stops(SamplingConfig(stop=(r"\n",)), r"\n")
    assert "has a backslash and an n; a newline is written" in str(error)


@given(configurations(SamplingConfig))
def test_any_configuration_is_read_back(config: SamplingConfig) -> None:
    assert from_dict(SamplingConfig, parse_json(format_json(to_dict(config)), "file"), "file") == config
