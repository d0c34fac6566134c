"""Split a text between words, at positions that do not depend on how its chunks were read.

What a tokenizer makes of a text depends on more than one character, and a corpus is too long to encode at once. The
borders of the segments are a function of the text alone, and so are its tokens. Independent of tokens.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator

SEGMENT_CHARACTERS = 2**16
"""Maximum length of a segment."""

_SEARCH_CHARACTERS = 2**12
"""How far before the longest possible end a better border is searched; without a limit, texts without spaces took ten
times as long."""

_CHUNK_SEGMENTS = 16
"""Segments per chunk: enough work for all processors."""


def iter_segments(chunks: Iterable[str], max_characters: int = SEGMENT_CHARACTERS) -> Iterator[str]:
    """Splits the text of the chunks into non-empty segments.

    Each segment is about as long as allowed. It ends where a line starts with a letter or digit after a line that is
    not empty, else before a space between two letters or digits, else anywhere. At these positions the usual subword
    tokenizers have a token border.

    Args:
        chunks: the text.
        max_characters: maximum length of a segment, >= 1.
    """
    text = ""
    for chunk in chunks:
        text += chunk
        start = 0
        while len(text) - start > max_characters:
            end = _last_border(text, start, start + max_characters)
            yield text[start:end]
            start = end
        text = text[start:]
    if text:
        yield text


def limit_chunks(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in chunks of limited length, split anywhere: for tokenizers of characters and bytes."""
    limit = _CHUNK_SEGMENTS * SEGMENT_CHARACTERS
    for chunk in chunks:
        for start in range(0, len(chunk), limit):
            yield chunk[start : start + limit]


def align_chunks(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in chunks of several whole segments; `iter_segments` splits each into the same segments again."""
    segments = iter_segments(chunks)
    while chunk := "".join(itertools.islice(segments, _CHUNK_SEGMENTS)):
        yield chunk


def split_chunks(chunks: Iterable[str], at: int | None) -> tuple[Iterator[str], Iterator[str]]:
    """The first `at` characters of a text, all if None, and the rest, which is read after them; both in chunks."""
    source = iter(chunks)
    rest: list[str] = []  # of the chunk that has the border

    def first_part() -> Iterator[str]:
        left = sys.maxsize if at is None else at
        while left > 0 and (chunk := next(source, None)) is not None:
            if len(chunk) > left:
                rest.append(chunk[left:])
            yield chunk[:left]
            left -= len(chunk)

    def second_part() -> Iterator[str]:
        yield from rest
        yield from source

    return first_part(), second_part()


def _last_border(text: str, start: int, end: int) -> int:
    """The last border in start < border <= end; `end` if there is none close to it."""
    start = max(start, end - _SEARCH_CHARACTERS)
    for mark, length in (("\n", 1), (" ", 0)):
        position = end
        while (position := text.rfind(mark, start + 1, position)) > 0:
            before, after = text[position - 1], text[position + 1]
            if after.isalnum() and (before.isalnum() or (mark == "\n" and not before.isspace())):
                return position + length
    return end
