"""A text to continue as a model reads it: unknown characters are transliterated or left out, the rest is encoded."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from quickfox.errors import UsageError
from quickfox.text.transliteration import describe_transliteration, transliterate
from quickfox.text.vocabulary import describe_characters, leave_out_unknown
from quickfox.tokenizers.base import Tokenizer, UnknownToken, start_of_text

Unknown = Literal["fold", "skip", "error"]
"""Treatment of characters of a prompt that the model does not know: transliterate them, and leave out the rest; leave
them all out; raise DataError."""


@dataclass(frozen=True)
class Prompt:
    """A text to continue, encoded for a model.

    Attributes:
        text: the seed after transliteration, without the characters that the model does not know.
        token_ids: of the text, after the end-of-text token if the model has one; else, for an empty text, of a newline
            if the model knows it.
        unknown: the characters left out -> number of occurrences.
        transliterated: (character or cluster, its replacement) -> number of occurrences.
    """

    text: str
    token_ids: list[int]
    unknown: Counter[str]
    transliterated: Counter[tuple[str, str]]

    @property
    def warning(self) -> str | None:
        """How the text differs from the seed, in one line; None: it does not."""
        return describe_prompt_changes(self.transliterated, self.unknown)


def encode_prompt(tokenizer: Tokenizer, seed: str | Sequence[str], unknown: Unknown = "fold") -> Prompt:
    """Encode a seed.

    Args:
        tokenizer: of the model.
        seed: the text to continue, or its parts, over whose borders no token extends.
        unknown: treatment of characters that the tokenizer does not know.

    Raises:
        DataError: `unknown` is "error", and the seed has characters that the tokenizer does not know.
        UsageError: `unknown` is another word.
    """
    if unknown not in get_args(Unknown):
        raise UsageError(f"unknown must be one of {', '.join(get_args(Unknown))}, not {unknown!r}", "unknown")
    transliterated: Counter[tuple[str, str]] = Counter()
    unknown_counts: Counter[str] = Counter()
    token_ids: list[int] = []
    for text in [seed] if isinstance(seed, str) else seed:
        if unknown == "fold":
            text, replaced = transliterate(text, tokenizer.known_characters)
            transliterated += replaced
        if unknown != "error":
            text, left_out = leave_out_unknown(text, tokenizer.known_characters)
            unknown_counts += left_out
        token_ids += tokenizer.encode(text).tolist()
    start = start_of_text(tokenizer).tolist() if not token_ids or tokenizer.end_of_text is not None else []
    return Prompt(tokenizer.decode(token_ids), start + token_ids, unknown_counts, transliterated)


def describe_prompt_changes(transliterated: Counter[tuple[str, str]], unknown: Counter[str]) -> str | None:
    """The warning that characters were transliterated or left out; None: none were."""
    changes = [f"replaced {describe_transliteration(transliterated)}"] if transliterated else []
    if unknown:
        changes.append(describe_unknown_characters(unknown))
    return "; ".join(changes) or None


def describe_unknown_characters(unknown: Counter[str], token: UnknownToken | None = None) -> str:
    """The warning that the model does not know characters of a text; without a `token` for them, they are left out."""
    characters = describe_characters(character for character, _ in unknown.most_common())
    count = unknown.total()
    what = "1 character" if count == 1 else f"{count:,} characters"
    if token is not None:
        return f"{what} that the model does not know: {characters}; each costs {token.nats / math.log(2):.1f} bits"
    return f"left out {what} that the model does not know: {characters}"
