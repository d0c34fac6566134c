"""Transliterate characters outside of a vocabulary: `É` to `E`, `’` to `'`, `…` to `...`.

The first of these spellings is used whose characters are all in the vocabulary:

1. the normalization forms of Unicode (UAX #15): composed, decomposed, and both with compatibility characters replaced;
2. the letter without its marks;
3. look-alikes, and the letter without what its Unicode name has after WITH (a stroke, a hook);
4. another case of any of these, of one character or several (`ß` to `ss`).

A character is replaced with its combining marks, so that `e` and a combining acute become `é` if that is known. It is
unchanged if all of it is known. Independent of files and token ids.
"""

import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator

_FIRST_MARK = "\u0300"
"""The lowest code point that combines with the character before it."""

_MAX_MARKS = 30
"""Per character; text has no more (UAX #15, Stream-Safe Text Format), and sorting them takes quadratic time."""

_LOOK_ALIKES: dict[str, tuple[str, ...]] = {
    character: alternatives
    for characters, alternatives in (
        ("\n\r\v\f\x85\u2028\u2029", ("\n", "\r\n", "\r", " ")),
        ("\t\u1680", (" ",)),  # all other spaces have the plain one as their compatibility form
        ("'’‘‛‚ʼʹ′‵`´‹›", ("'", "’", "‘")),
        ("“„‟«〝「『", ('"', "“", "„", "«")),
        ('"”″‶»〞」』', ('"', "”", "“", "»", "«")),
        ("-‐‒–−⁃", ("-", "–", "−", "‐", "—")),
        ("—―⸺", ("—", "–", "--")),
        ("•‣◦∙·●▪■", ("•", "·", "*", "-")),
        ("⁄∕÷", ("/",)),
        ("×", ("x", "*")),
        ("∼〜", ("~",)),
        ("、", (",",)),
        ("。", (".",)),
        (".", ("。",)),
        ("æ", ("ae",)),
        ("Æ", ("AE", "Ae")),
        ("œ", ("oe",)),
        ("Œ", ("OE", "Oe")),
        ("ı", ("i",)),
    )
    for character in characters
}
"""Replacements of a character, the most similar first."""

_OPENING_QUOTES = {'"': ("“", "„", "«", "”", "»"), "'": ("‘", "’")}
"""Replacements of a straight quote that opens a quotation."""

_TO_FULLWIDTH = 0xFEE0
"""Offset from ASCII to its fullwidth forms, which Chinese and Japanese texts use."""


def transliterate(text: str, known: Container[str]) -> tuple[str, Counter[tuple[str, str]]]:
    """Replaces characters that are not in `known` by similar ones that are, where there are any.

    Returns:
        The text, and (original, replacement) -> number of times. Characters without a replacement are unchanged.
    """
    replaced: Counter[tuple[str, str]] = Counter()
    if _are_known(text, known):
        return text, replaced
    spellings: dict[tuple[str, bool], str] = {}  # a cache: few different ones recur
    transliterated: list[str] = []
    for cluster in _clusters(text):
        opens = not transliterated or transliterated[-1].isspace() or transliterated[-1].endswith(("(", "[", "{"))
        spelling = spellings.get((cluster, opens))
        if spelling is None:
            spelling = spellings[cluster, opens] = _spell(cluster, known, opens)
        if spelling != cluster:
            replaced[cluster, spelling] += 1
        transliterated.append(spelling)
    return "".join(transliterated), replaced


def describe_transliteration(replaced: Counter[tuple[str, str]], limit: int = 5) -> str:
    """Replacements in one line, the most frequent first: `'’' by "'" (3), 'É' by 'E'`."""
    names = []
    for (cluster, spelling), count in replaced.most_common(limit):
        look_identical = unicodedata.normalize("NFC", cluster) == unicodedata.normalize("NFC", spelling)
        show = ascii if look_identical else repr
        names.append(f"{show(cluster)} by {show(spelling)}" + (f" ({count})" if count > 1 else ""))
    return ", ".join(names) + (" and others" if len(replaced) > limit else "")


def _clusters(text: str) -> Iterator[str]:
    """Splits the text into characters with their marks; CR LF is one cluster."""
    cluster = text[:1]
    for character in text[1:]:
        if _extends(cluster, character):
            cluster += character
        else:
            yield cluster
            cluster = character
    if cluster:
        yield cluster


def _extends(cluster: str, character: str) -> bool:
    """Whether the character combines with the cluster before it."""
    if character < _FIRST_MARK:
        return character == "\n" and cluster == "\r"
    decomposed = unicodedata.normalize("NFKD", character)
    if unicodedata.combining(decomposed[0]):
        return len(cluster) <= _MAX_MARKS
    composed = unicodedata.normalize("NFKC", cluster + character)  # also the letters of a Hangul syllable
    return composed != unicodedata.normalize("NFKC", cluster) + unicodedata.normalize("NFKC", character)


def _spell(cluster: str, known: Container[str], opens: bool) -> str:
    """The first known spelling of the cluster, else the cluster itself."""
    if _are_known(cluster, known):
        return cluster
    forms = ["\n"] if cluster == "\r\n" else _forms(cluster)
    substituted = ["".join(_substitute(character, known, opens) for character in form) for form in forms]
    candidates = (form for form in forms + substituted if form and _are_known(form, known))
    return next(candidates, cluster)


def _forms(cluster: str) -> list[str]:
    """The normalization forms of a cluster, and the last of them without its marks."""
    forms = [unicodedata.normalize(form, cluster) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    plain = "".join(character for character in forms[-1] if not unicodedata.combining(character))
    return [*forms, plain.strip()]  # empty for an isolated accent, a space and a mark


def _substitute(character: str, known: Container[str], opens: bool) -> str:
    """The first known replacement of a single character, else the character itself."""
    spellings = [character, *_look_alikes(character, opens)]
    cased = [change(spelling) for change in (str.lower, str.casefold, str.upper, str.title) for spelling in spellings]
    return next((spelling for spelling in (*spellings, *cased) if _are_known(spelling, known)), character)


def _look_alikes(character: str, opens: bool) -> Iterator[str]:
    if opens:
        yield from _OPENING_QUOTES.get(character, ())
    yield from _LOOK_ALIKES.get(character, ())
    if "!" <= character <= "~":
        yield chr(ord(character) + _TO_FULLWIDTH)
    plain, _, addition = unicodedata.name(character, "").partition(" WITH ")  # LATIN SMALL LETTER O WITH STROKE
    if addition:
        try:
            yield unicodedata.lookup(plain)
        except KeyError:  # not the name of a character
            return


def _are_known(characters: Iterable[str], known: Container[str]) -> bool:
    return all(character in known for character in characters)
