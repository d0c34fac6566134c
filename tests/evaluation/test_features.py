"""Features of texts: worked examples."""

import pytest

from quickfox.errors import UsageError
from quickfox.evaluation.features import FEATURES, feature_values

EXAMPLES = [
    ("quotes", 'a "b" c', "0011000"),
    ("quotes", "“a” „b“ «c» d", "1100110011000"),
    ("quotes", '"a\n\n"b" c', "111011000"),
    ("quotes", '"a\nb" c', "1111000"),
    ("line-length", "ab\n\nc\n", "120010"),
    ("brackets", "a(b[c]d)e", "011221100"),
    ("brackets", "(]a)", "1110"),
    ("brackets", "([a)b", "12200"),
    ("word-start", "ab, c'd 1", "100010101"),
    ("uppercase", "aÄB1", "0110"),
    ("digits", "a1٣b", "0110"),
    ("[aeiou]r?", "art be", "110001"),
]


@pytest.mark.parametrize(("feature", "text", "expected"), EXAMPLES)
def test_a_feature_has_a_value_for_each_character(feature: str, text: str, expected: str) -> None:
    assert feature_values(feature, text).tolist() == [float(digit) for digit in expected]


@pytest.mark.parametrize("feature", FEATURES)
def test_an_empty_text_has_no_values(feature: str) -> None:
    assert len(feature_values(feature, "")) == 0


def test_an_invalid_expression_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"'\[a' is neither one of quotes, .* nor a regular expression"):
        feature_values("[a", "text")
