"""Features of a text that the units of a network may follow, as a number for each character.

Each describes the text up to and including that character, which is what a network has read at that point.
"""

import re
from collections.abc import Callable

import numpy as np

from quickfox.errors import UsageError

_PAIRS = {")": "(", "]": "[", "}": "{"}
_OPENING, _CLOSING = frozenset("“„«「『"), frozenset("”»」』")


def feature_values(feature: str, text: str) -> np.ndarray:
    """The values of a feature: (characters,) float64.

    Args:
        feature: a name of FEATURES, or else a regular expression, whose matches have the value 1.
        text: any text.

    Raises:
        UsageError: the regular expression is invalid.
    """
    if feature in FEATURES:
        return np.array(FEATURES[feature](text), np.float64)
    try:
        pattern = re.compile(feature)
    except re.error as error:
        names = ", ".join(FEATURES)
        message = f"find: {feature!r} is neither one of {names} nor a regular expression: {error}"
        raise UsageError(message, "find") from None
    values = np.zeros(len(text))
    for match in pattern.finditer(text):
        values[match.start() : match.end()] = 1.0
    return values


def _quotes(text: str) -> list[int]:
    """1 within a quotation, from its opening mark to the last character before its closing mark.

    The straight mark opens and closes by turns. A paragraph, which ends with an empty line, closes all.
    """
    values, is_inside, is_line_empty = [], False, False
    for character in text:
        if character == "“":
            is_inside = not is_inside  # it closes a quotation that the German mark opened
        elif character == '"':
            is_inside = not is_inside
        elif character in _OPENING or character in _CLOSING:
            is_inside = character in _OPENING
        elif character == "\n":
            is_inside = is_inside and not is_line_empty
        is_line_empty = character == "\n" or (is_line_empty and character.isspace())
        values.append(int(is_inside))
    return values


def _line_length(text: str) -> list[int]:
    """The number of characters since the last line end."""
    values, length = [], 0
    for character in text:
        length = 0 if character == "\n" else length + 1
        values.append(length)
    return values


def _brackets(text: str) -> list[int]:
    """The number of brackets that are open; a closing one closes those opened after its partner too."""
    values: list[int] = []
    opened: list[str] = []
    for character in text:
        if character in "([{":
            opened.append(character)
        elif (partner := _PAIRS.get(character)) in opened:
            while opened.pop() != partner:
                pass
        values.append(len(opened))
    return values


def _word_start(text: str) -> list[bool]:
    """Whether the character is the first letter or digit of a word."""
    is_word = [character.isalnum() for character in text]
    return [is_in and not was_in for is_in, was_in in zip(is_word, [False, *is_word], strict=False)]


FEATURES: dict[str, Callable[[str], list[int] | list[bool]]] = {
    "quotes": _quotes,
    "line-length": _line_length,
    "brackets": _brackets,
    "word-start": _word_start,
    "uppercase": lambda text: [character.isupper() for character in text],
    "digits": lambda text: [character.isdigit() for character in text],
}
"""Name -> the values of the characters of a text."""
