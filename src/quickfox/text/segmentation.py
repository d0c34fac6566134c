"""A text cut where no word is cut, at the same places however it comes: what a tokenizer may encode by itself.

What a tokenizer makes of a text depends on more than a character at a time, and a corpus is too long to be encoded in
one go. Where it is cut is a function of the text alone: so are its tokens, then. Knows no tokens.
"""

import itertools
from collections.abc import Iterable, Iterator

SEGMENT = 2**16
"""Most characters of a segment."""

_REACH = 2**12
"""Characters from the longest possible end of a segment in which a better one is looked for: without a bound, texts
that have no spaces were cut at a tenth of the speed."""

_BLOCK = 16
"""Segments in a block: enough work for all processors."""


def iter_segments(chunks: Iterable[str], most: int = SEGMENT) -> Iterator[str]:
    """The text of the chunks in segments that are not empty, none longer than `most` characters, >= 1.

    Each segment is about as long as it may be; it ends where a line begins with a letter or digit and the line before
    is not empty, else before a space between two letters or digits, else anywhere. At these places the usual subword
    tokenizers never have a token that goes on.
    """
    text = ""
    for chunk in chunks:
        text += chunk
        start = 0
        while len(text) - start > most:
            end = _last_border(text, start, start + most)
            yield text[start:end]
            start = end
        text = text[start:]
    if text:
        yield text


def iter_slices(chunks: Iterable[str]) -> Iterator[str]:
    """The text of the chunks in pieces that are not too long, cut anywhere: for tokens that end with each character."""
    most = _BLOCK * SEGMENT
    for chunk in chunks:
        for start in range(0, len(chunk), most):
            yield chunk[start : start + most]


def iter_blocks(chunks: Iterable[str]) -> Iterator[str]:
    """The text of the chunks in pieces of several segments each, which are cut into the same segments again."""
    segments = iter_segments(chunks)
    while block := "".join(itertools.islice(segments, _BLOCK)):
        yield block


def _last_border(text: str, start: int, end: int) -> int:
    """The last place in start < place <= end where the text may be cut; `end` itself if there is none near it."""
    start = max(start, end - _REACH)
    for mark, length in (("\n", 1), (" ", 0)):
        place = end
        while (place := text.rfind(mark, start + 1, place)) > 0:
            before, after = text[place - 1], text[place + 1]
            if after.isalnum() and (before.isalnum() or (mark == "\n" and not before.isspace())):
                return place + length
    return end
