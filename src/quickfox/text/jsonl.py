"""Corpora of JSON lines: each line is a document, or a prompt with its completion.

    {"text": "..."}
    {"prompt": "...", "completion": "..."}

A model is trained on every token of the first kind, and on the completion and its end in the second. Other members
are ignored. Independent of tokens.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from quickfox.errors import DataError
from quickfox.files.json import MAX_JSON_BYTES, parse_json
from quickfox.text.corpus import Corpus
from quickfox.text.segmentation import split_chunks

_SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Document:
    """A text with an end.

    Attributes:
        prompt: the part before the completion, not a training target; may be empty.
        completion: the rest.
    """

    prompt: str
    completion: str


def has_documents(corpus: Corpus) -> bool:
    """Whether a corpus is JSON lines: the names of all its files end in .jsonl or .jsonl.gz.

    Raises:
        DataError: only some of them do.
    """
    are_lines = {name: name.endswith(_SUFFIXES) for name in corpus.names}
    if len(set(are_lines.values())) > 1:
        lines, text = (next(name for name in are_lines if are_lines[name] is kind) for kind in (True, False))
        raise DataError(f"{lines} is JSON lines and {text} is plain text: a corpus is one or the other")
    return all(are_lines.values())


def iter_documents(corpus: Corpus) -> Iterator[Document]:
    """Yields the documents of a corpus of JSON lines in order; empty lines are skipped.

    Raises:
        DataError: a line is not JSON, too long, or not of one of the two kinds; the message has its file and number.
        NoInputError, StorageError: a file was removed, or reading failed.
    """
    for where, line in _iter_document_lines(corpus):
        yield _parse_document(parse_json(line.encode(), where), where)


def count_units(corpus: Corpus) -> int:
    """Number of units of a corpus, none of which is divided by a split: its documents, or the characters of plain text.

    Raises:
        DataError: a line is too long, or the corpus is not UTF-8 text; documents are not parsed.
        NoInputError, StorageError: a file was removed, or reading failed.
    """
    if has_documents(corpus):
        return sum(1 for _ in _iter_document_lines(corpus))
    return sum(map(len, corpus.iter_text()))


def iter_texts(corpus: Corpus, units: int | None = None) -> Iterator[str]:
    """Yields the text from which a tokenizer is built, in chunks: the plain text, or that of the documents.

    Args:
        corpus: plain text or JSON lines.
        units: number of characters or documents, after which it ends; None: all.
    """
    if not has_documents(corpus):
        text, _ = split_chunks(corpus.iter_text(), units)
        yield from text
        return
    for document in islice(iter_documents(corpus), units):
        yield document.prompt
        yield document.completion


def _iter_document_lines(corpus: Corpus) -> Iterator[tuple[str, str]]:
    """Yields the lines that are not empty, each after its file and number."""
    for name, chunks in corpus.iter_files():
        for number, line in _iter_lines(name, chunks):
            if line.strip():
                yield f"{name}, line {number}", line


def _parse_document(value: Any, where: str) -> Document:
    members = [name for name in ("text", "prompt", "completion") if isinstance(value, dict) and name in value]
    if members not in (["text"], ["prompt", "completion"]):
        raise DataError(f'{where}: expected {{"text": ...}} or {{"prompt": ..., "completion": ...}}')
    for member in members:
        if not isinstance(value[member], str):
            raise DataError(f"{where}: {member!r} must be a string")
    return Document(value.get("prompt", ""), value[members[-1]])


def _iter_lines(name: str, chunks: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yields the lines with their numbers, in memory bounded by a chunk and the longest line allowed.

    Only a line feed ends a line: JSON strings may contain other line ends.
    """
    unfinished: list[str] = []  # parts of the last line
    length = 0
    number = 1
    for chunk in chunks:
        first, *others = chunk.split("\n")
        unfinished.append(first)
        length += len(first)
        if length > MAX_JSON_BYTES:  # characters, of which there are at most as many as bytes; parse_json counts those
            raise DataError(f"{name}, line {number}: larger than the limit of {MAX_JSON_BYTES} bytes")
        if others:
            for line in ("".join(unfinished), *others[:-1]):
                yield number, line
                number += 1
            unfinished, length = others[-1:], len(others[-1])
    yield number, "".join(unfinished)
