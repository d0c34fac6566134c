"""Faults that single characters and lines show: wrong decoding, control characters, line ends, boilerplate.

Mojibake is UTF-8 that was decoded as cp1252 or latin-1: a character of two or three bytes appears as a letter with an
accent and one or two symbols. Only combinations that encode a Latin, Greek or Cyrillic letter, a sign of Latin-1, a
punctuation mark or kana are counted, not those that correct texts have, such as an accented capital before a quote.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

import numpy as np

from quickfox.diagnosis.findings import Finding, Kind
from quickfox.diagnosis.reading import Batch
from quickfox.text.vocabulary import code_points, describe_characters

LONG_LINE = 10_000
"""Characters from which a line is very long."""

ALLOWED_CONTROLS = frozenset("\t\n\r\f")
BYTE_ORDER_MARK = "\ufeff"

_CODE_POINTS = 0x110000


def _decoded(first: int, last: int) -> str:
    """The characters as which these bytes appear in cp1252, and in latin-1 where they differ."""
    characters = {bytes([byte]).decode("cp1252", "ignore") for byte in range(first, last + 1)}
    return "".join(sorted((characters | {chr(byte) for byte in range(first, last + 1)}) - {""}))


def _any_of(characters: str) -> str:
    return f"[{re.escape(characters)}]"


_QUOTES = "‘’“”„‚‹›«»…–—\xa0"
_CONTINUATION = _any_of(_decoded(0x80, 0xBF))
_SYMBOL = _any_of("".join(character for character in _decoded(0x80, 0xBF) if character not in _QUOTES))

MOJIBAKE = re.compile(
    f"(?<![A-ZÀ-Þ])[ÂÃ]{_CONTINUATION}"  # signs and letters of Latin-1
    f"|[ÄÅÎÏÐÑ]{_SYMBOL}"  # further Latin letters, Greek and Cyrillic
    f"|â{_any_of(_decoded(0x80, 0x82))}{_CONTINUATION}"  # punctuation and currencies
    f"|â{_any_of(_decoded(0x84, 0x84) + _decoded(0x86, 0x86))}{_CONTINUATION}"  # letter-like signs and arrows
    f"|ã{_any_of(_decoded(0x80, 0x83))}{_CONTINUATION}"  # kana
    f"|ï»¿|ï¿½"  # the byte-order mark and U+FFFD
)
MOJIBAKE_LEADS = "ÂÃÄÅÎÏÐÑâãï"

GUTENBERG_START = re.compile(
    r"^.*(?:\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG|\*END\*? ?THE SMALL PRINT).*$", re.I | re.M
)
GUTENBERG_END = re.compile(
    r"^.*(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the )?Project Gutenberg).*$", re.I | re.M
)
_GUTENBERG_NAME = re.compile("Project Gutenberg|PROJECT GUTENBERG")

_CONTROL_ADVICE = {
    "replacement-character": "U+FFFD stands for bytes that were lost when the text was decoded: get the original",
    "control-character": "control characters",
    "private-use": "characters of the private use areas, which have no meaning of their own",
    "unassigned": "code points without a character in this version of Unicode",
}


def kind_of(character: str) -> Kind | None:
    """The kind of fault that a character is by itself; None: none."""
    if character == "\ufffd":
        return "replacement-character"
    category = unicodedata.category(character)
    if character == BYTE_ORDER_MARK or (category == "Cc" and character not in ALLOWED_CONTROLS):
        return "control-character"
    return {"Co": "private-use", "Cn": "unassigned", "Cs": "unassigned"}.get(category)  # type: ignore[return-value]


class CharacterCheck:
    """Counts the characters of a text and finds its faults, batch by batch.

    Attributes:
        counts: (0x110000,) int64, the number of each code point.
        first_places: the place of the first occurrence of each character.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_CODE_POINTS, np.int64)
        self.first_places: dict[str, str] = {}
        self._occurrences: Counter[Kind] = Counter()
        self._places: dict[Kind, str] = {}
        self._examples: dict[Kind, str] = {}
        self._line_ends: dict[str, int] = {}  # of the current file
        self._file = ""
        self._line_length = 0
        self._tail = ""

    def add(self, batch: Batch) -> None:
        """Check the next batch."""
        if batch.starts and batch.starts[0] == 0:
            self._tail, self._line_length = "", 0
        self._count(batch)
        self._find_mojibake(batch)
        self._check_lines(batch)
        if _GUTENBERG_NAME.search(batch.text):
            for pattern in (GUTENBERG_START, GUTENBERG_END):
                for match in pattern.finditer(batch.text):
                    self._note("boilerplate", batch, match.start(), match.group().strip())
        self._tail = batch.text[-2:]

    def _note(self, kind: Kind, batch: Batch, index: int, example: str, count: int = 1) -> None:
        self._occurrences[kind] += count
        if kind not in self._places:
            self._places[kind] = batch.place_of(index)
            self._examples[kind] = example[:80]

    def _count(self, batch: Batch) -> None:
        counts = np.bincount(code_points(batch.text).astype(np.int64))
        present = np.flatnonzero(counts)
        for code in present[self.counts[present] == 0].tolist():
            self.first_places[chr(code)] = batch.place_of(batch.text.index(chr(code)))
        self.counts[: len(counts)] += counts

    def _find_mojibake(self, batch: Batch) -> None:
        if not any(lead in batch.text for lead in MOJIBAKE_LEADS):
            return
        text = self._tail + batch.text
        for match in MOJIBAKE.finditer(text):
            if match.end() > len(self._tail):
                start = max(0, match.start() - len(self._tail))
                self._note("mojibake", batch, start, text[max(0, match.start() - 15) : match.end() + 15])

    def _check_lines(self, batch: Batch) -> None:
        text = batch.text
        if batch.name != self._file:
            self._file, self._line_ends = batch.name, {}
        if "\r" in text:
            both = text.count("\r\n")
            ends = {"\\r\\n": both, "\\n": text.count("\n") - both, "\\r": text.count("\r") - both}
        else:
            ends = {"\\n": text.count("\n")}
        was_mixed = len(self._line_ends) > 1
        for end, count in ends.items():
            if count:
                self._line_ends[end] = self._line_ends.get(end, 0) + count
        if len(self._line_ends) > 1 and not was_mixed:
            rarest = min(ends, key=lambda end: ends[end] or len(text))
            shown = ", ".join(f"{count:,} x {end}" for end, count in sorted(self._line_ends.items()))
            index = text.find({"\\n": "\n", "\\r": "\r", "\\r\\n": "\r\n"}[rarest])
            self._note("mixed-line-ends", batch, max(0, index), shown)
        self._check_line_lengths(batch)

    def _check_line_lengths(self, batch: Batch) -> None:
        """Lines end at line feeds, at carriage returns and at the ends of documents."""
        codes = code_points(batch.text)
        ends = np.flatnonzero((codes == 10) | (codes == 13))
        bounds = np.unique(np.concatenate([np.array(batch.starts, np.int64), ends]))
        bounds = bounds[bounds > 0]
        lengths = np.diff(bounds, prepend=0)
        if len(lengths):
            lengths[0] += self._line_length
            # A line that continues from the batch before was counted when it became long.
            for row in np.flatnonzero(lengths > LONG_LINE).tolist():
                if row > 0 or self._line_length <= LONG_LINE:
                    self._note("long-line", batch, int(bounds[row]) - 1, f"{lengths[row]:,} characters")
        rest = len(batch.text) - (int(bounds[-1]) if len(bounds) else -self._line_length)
        if rest > LONG_LINE and not (len(bounds) == 0 and self._line_length > LONG_LINE):
            self._note("long-line", batch, len(batch.text) - 1, f"over {LONG_LINE:,} characters")
        self._line_length = rest

    def findings(self) -> Iterator[Finding]:
        """The faults found; to be called after the last batch."""
        by_kind: dict[Kind, list[str]] = {}
        for character in self.first_places:
            if kind := kind_of(character):
                by_kind.setdefault(kind, []).append(character)
        for kind, characters in by_kind.items():
            count = int(self.counts[[ord(character) for character in characters]].sum())
            shown = describe_characters(sorted(characters, key=lambda character: -self.counts[ord(character)]), limit=3)
            yield Finding(kind, count, self.first_places[characters[0]], f"{_CONTROL_ADVICE[kind]}: {shown}")
        messages: dict[Kind, str] = {
            "mojibake": "UTF-8 that was decoded as cp1252 or latin-1, such as {!r}: with ftfy, --fix repairs it",
            "mixed-line-ends": "files with several kinds of line ends ({}): --fix writes line feeds",
            "long-line": "lines of more than %d characters ({}): is the format right?" % LONG_LINE,  # noqa: UP031
            "boilerplate": "text of Project Gutenberg around the work ({!r}): --fix leaves it out",
        }
        for kind, message in messages.items():
            if kind in self._occurrences:
                example = self._examples[kind]
                yield Finding(kind, self._occurrences[kind], self._places[kind], message.format(example))
