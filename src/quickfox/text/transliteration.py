"""Other spellings for the characters that a model does not know: `É` as `E`, `’` as `'`, `…` as `...`.

Tried in this order, and the first whose characters are all known is taken:

1. the normalisation forms of Unicode (UAX #15): composed, decomposed, and both with compatibility characters replaced;
2. the letter without its marks;
3. look-alikes, and the letter without what its Unicode name says it is WITH (a stroke, a hook);
4. another case, of one character or several (`ß` as `ss`), of all of those.

What is folded is a character with the marks that follow it, so that `e` and a combining acute become the `é` that the
model knows. Where all of it is known it is left alone. Knows no files and no token ids.
"""

import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

_FIRST_MARK = "\u0300"
"""No character below it combines with the one before."""

_MOST_MARKS = 30
"""On one character; more are not text (UAX #15, Stream-Safe Text Format), and to sort them takes quadratic time."""

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
"""What else to write for a character, the likest first."""

_OPENING_QUOTES = {'"': ("“", "„", "«", "”", "»"), "'": ("‘", "’")}
"""What else to write for a straight quote where it opens."""

_TO_FULLWIDTH = 0xFEE0
"""From the code points of ASCII to those of their fullwidth forms, as Chinese and Japanese texts have them."""


@dataclass(frozen=True)
class Transliteration:
    """A text after folding.

    Attributes:
        text: the text with what could be replaced replaced; characters that are still unknown are left in it.
        replaced: (what was replaced, by what), and how often.
    """

    text: str
    replaced: Counter[tuple[str, str]]


def transliterate(text: str, known: Container[str]) -> Transliteration:
    """The text, with characters that are not known replaced by such that are, where any are like them.

    Args:
        text: any text.
        known: the single characters that are known.
    """
    replaced: Counter[tuple[str, str]] = Counter()
    if _are_known(text, known):
        return Transliteration(text, replaced)
    spellings: dict[tuple[str, bool], str] = {}  # a text in another script has the same few over and over
    transliterated: list[str] = []
    for cluster in _clusters(text):
        opens = not transliterated or transliterated[-1].isspace() or transliterated[-1].endswith(("(", "[", "{"))
        spelling = spellings.get((cluster, opens))
        if spelling is None:
            spelling = spellings[cluster, opens] = _spell(cluster, known, opens)
        if spelling != cluster:
            replaced[cluster, spelling] += 1
        transliterated.append(spelling)
    return Transliteration("".join(transliterated), replaced)


def describe_transliteration(replaced: Counter[tuple[str, str]], limit: int = 5) -> str:
    """Replacements named for a message, the most frequent first, fit for one line: `'’' by "'" (3), 'É' by 'E'`."""
    names = []
    for (cluster, spelling), count in replaced.most_common(limit):
        look_the_same = unicodedata.normalize("NFC", cluster) == unicodedata.normalize("NFC", spelling)
        show = ascii if look_the_same else repr
        names.append(f"{show(cluster)} by {show(spelling)}" + (f" ({count})" if count > 1 else ""))
    return ", ".join(names) + (" and others" if len(replaced) > limit else "")


def _clusters(text: str) -> Iterator[str]:
    """The text cut into characters with their marks; CR LF, which is one line end, stays together."""
    cluster = text[:1]
    for character in text[1:]:
        if _joins(cluster, character):
            cluster += character
        else:
            yield cluster
            cluster = character
    if cluster:
        yield cluster


def _joins(cluster: str, character: str) -> bool:
    if character < _FIRST_MARK:
        return character == "\n" and cluster == "\r"
    decomposed = unicodedata.normalize("NFKD", character)
    if unicodedata.combining(decomposed[0]):
        return len(cluster) <= _MOST_MARKS
    composed = unicodedata.normalize("NFKC", cluster + character)  # the letters of a Hangul syllable combine, too
    return composed != unicodedata.normalize("NFKC", cluster) + unicodedata.normalize("NFKC", character)


def _spell(cluster: str, known: Container[str], opens: bool) -> str:
    """The first spelling of the cluster that is known; the cluster itself when none is."""
    if _are_known(cluster, known):
        return cluster
    forms = ["\n"] if cluster == "\r\n" else _forms(cluster)
    substituted = ["".join(_substitute(character, known, opens) for character in form) for form in forms]
    candidates = (form for form in forms + substituted if form and _are_known(form, known))
    return next(candidates, cluster)


def _forms(cluster: str) -> list[str]:
    """The normalisation forms of a cluster, and the last of them without its marks."""
    forms = [unicodedata.normalize(form, cluster) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    plain = "".join(character for character in forms[-1] if not unicodedata.combining(character))
    return [*forms, plain.strip()]  # nothing is left of an accent by itself, which decomposes into a space and a mark


def _substitute(character: str, known: Container[str], opens: bool) -> str:
    """What to write for a single character; the character itself when it is known, or nothing like it is."""
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
        except KeyError:  # the name of no character
            return


def _are_known(characters: Iterable[str], known: Container[str]) -> bool:
    return all(character in known for character in characters)
