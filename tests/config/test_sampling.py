"""SamplingConfig: bounds, and settings that exclude each other."""

import math
from typing import Any

import pytest

from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import MAX_INTEGER
from quickfox.errors import UsageError


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
