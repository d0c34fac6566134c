"""Read a corpus in batches of bounded size that know where each document starts, and where a character is.

A document of a plain text is a file. Independent of what is looked for.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from quickfox.text.corpus import Corpus
from quickfox.text.sources import display_name

BATCH_CHARACTERS = 2**18
"""Minimum size of a batch of documents; a batch of a file is a chunk of it."""


@dataclass(frozen=True)
class Batch:
    """A part of a corpus.

    Attributes:
        text: the text, which never ends between \\r and \\n.
        starts: index in `text` of the start of each document that begins in it, ascending.
        first_document: number of the document that `text` begins in or with, from 0.
        name: of the file; empty for documents, whose place is their number.
        lines_before: number of line feeds of the file before `text`.
    """

    text: str
    starts: list[int]
    first_document: int
    name: str
    lines_before: int

    def document_at(self, index: int) -> int:
        """The number of the document of the character at an index of the text."""
        begun = bisect_right(self.starts, index)
        starts_here = bool(self.starts) and self.starts[0] == 0
        return self.first_document + begun - (1 if starts_here else 0)

    def place_of(self, index: int) -> str:
        """Where the character at an index of the text is, for messages."""
        if not self.name:
            return f"document {self.document_at(index) + 1}"
        return f"{self.name}, line {self.lines_before + self.text.count(chr(10), 0, index) + 1}"


def iter_batches(corpus: Corpus) -> Iterator[Batch]:
    """The text of a corpus in batches, one document after another."""
    if corpus.has_documents:
        yield from _iter_document_batches(corpus)
        return
    for number, (name, chunks) in enumerate(corpus.iter_files()):
        starts, lines, held_back = [0], 0, ""
        for chunk in chunks:
            text = held_back + chunk
            held_back = "\r" if text.endswith("\r") else ""
            text = text.removesuffix(held_back)
            if text:
                yield Batch(text, starts, number, display_name(name), lines)
                starts, lines = [], lines + text.count("\n")
        if held_back:
            yield Batch(held_back, starts, number, display_name(name), lines)


def _iter_document_batches(corpus: Corpus) -> Iterator[Batch]:
    texts: list[str] = []
    starts: list[int] = []
    size = first = 0
    for document in corpus.iter_documents():
        text = document.text
        starts.append(size)
        texts.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield Batch("".join(texts), starts, first, "", 0)
            first += len(starts)
            texts, starts, size = [], [], 0
    if texts:
        yield Batch("".join(texts), starts, first, "", 0)
