"""Setting commands of the prompt loop: round trip, values and errors."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.cli.repl.settings import SETTINGS, change_setting, format_setting
from quickfox.config.sampling import SamplingConfig
from quickfox.errors import QuickfoxError, UsageError

DEFAULT = SamplingConfig()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
CONFIGS = st.builds(
    SamplingConfig,
    length=st.integers(0, 2**40),
    temperature=st.floats(0, 1e300),
    top_k=st.none() | st.integers(1, 1000),
    max_seconds=st.none() | st.floats(0.001, 1e9),
    stop=st.lists(TEXTS).map(tuple),
    logit_bias=st.lists(st.tuples(TEXTS, st.floats(-1e9, 1e9) | st.just(-float("inf")))).map(tuple),
)


@given(CONFIGS)
def test_displayed_settings_are_valid_commands(config: SamplingConfig) -> None:
    typed = DEFAULT
    for name in SETTINGS:
        for command in format_setting(config, name).split("\n"):
            typed = change_setting(typed, name, command.removeprefix(f"/{name} "))
    assert typed == config


def test_every_field_except_logprobs_is_a_setting() -> None:
    assert {*SETTINGS.values(), "logprobs"} == {field.name for field in dataclasses.fields(SamplingConfig)}
    assert all(name.replace("-", "_") == field for name, field in SETTINGS.items())


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "1", 1),
        ("temperature", ".5", 0.5),
        ("top-k", "40", 40),
        ("top-k", "none", None),
        ("stop", "END", ("END",)),
        ("stop", " a ", (" a ",)),
        ("stop", '"', ('"',)),
        ("stop", r'"\n"', ("\n",)),
        ("stop", '"none"', ("none",)),
        ("logit-bias", "e=-2", (("e", -2.0),)),
        ("logit-bias", "==-inf", (("=", -float("inf")),)),
        ("logit-bias", r'"\n"=3', (("\n", 3.0),)),
    ],
)
def test_values_are_parsed(name: str, text: str, value: object) -> None:
    assert getattr(change_setting(DEFAULT, name, text), SETTINGS[name]) == value


def test_stop_strings_accumulate_and_none_clears_them() -> None:
    config = change_setting(change_setting(DEFAULT, "stop", "a"), "stop", "b")
    assert config.stop == ("a", "b")
    assert change_setting(config, "stop", "none").stop == ()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("temperature", "hot", "temperature cannot be 'hot'"),
        ("temperature", "-1", "temperature must be at least 0.0, not -1"),
        ("temperature", "nan", "temperature must be"),
        ("temperature", "none", "temperature cannot be None"),
        ("temperature", "[1]", "temperature cannot be '[1]'"),
        ("length", "1.5", "length cannot be 1.5"),
        ("length", "9" * 5000, "length cannot be inf"),
        ("stop", '""', "stop must not be an empty text"),
        ("stop", r'"\x"', "/stop: not valid JSON"),
        ("logit-bias", "e", "logit_bias must be TEXT=X, such as e=-2, not 'e'"),
        ("best-of", "0", "best_of must be at least 1, not 0"),
    ],
)
def test_invalid_values_are_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(QuickfoxError) as refused:
        change_setting(DEFAULT, name, text)
    assert str(refused.value).startswith(message)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UsageError):
        change_setting(DEFAULT, "temperature", "\udcff")
