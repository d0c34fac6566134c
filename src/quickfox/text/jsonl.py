"""A corpus of JSON lines: every line a text with an end, or a prompt and what is to follow it.

    {"text": "..."}
    {"prompt": "...", "completion": "..."}

From the first kind a model learns every token, from the second how to complete the prompt, which it only reads. Other
members of a line are passed over. Knows no tokens.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from quickfox.errors import DataError
from quickfox.files.json import MAX_JSON_BYTES, parse_json
from quickfox.text.corpus import Corpus

_SUFFIXES = (".jsonl", ".jsonl.gz")

_KINDS = 'expected {"text": ...} or {"prompt": ..., "completion": ...}'


@dataclass(frozen=True, slots=True)
class Document:
    """A text that has an end.

    Attributes:
        prompt: its beginning, which is read and not learned; may be empty.
        completion: all that follows.
    """

    prompt: str
    completion: str


def has_documents(corpus: Corpus) -> bool:
    """Whether a corpus is JSON lines, as the names of its files say: all of them end in .jsonl or .jsonl.gz.

    Raises:
        DataError: some do, and some do not.
    """
    are_lines = {name: name.endswith(_SUFFIXES) for name in corpus.names}
    if len(set(are_lines.values())) > 1:
        lines, text = (next(name for name in are_lines if are_lines[name] is kind) for kind in (True, False))
        raise DataError(f"{lines} is JSON lines and {text} is plain text: a corpus is one or the other")
    return all(are_lines.values())


def iter_documents(corpus: Corpus) -> Iterator[Document]:
    """The documents of a corpus of JSON lines, in their order; empty lines are none.

    Raises:
        DataError: a line is not JSON, or too long, or not of one of the two kinds; named by file and number.
        NoInputError, StorageError: a file has gone, or reading failed.
    """
    for name, chunks in corpus.iter_files():
        for number, line in _iter_lines(name, chunks):
            if line.strip():
                where = _where(name, number)
                yield _document(parse_json(line.encode(), where), where)


def iter_texts(corpus: Corpus) -> Iterator[str]:
    """All that a tokenizer for the corpus must know, in pieces: the plain text, or the texts of its documents."""
    if not has_documents(corpus):
        yield from corpus.iter_text()
        return
    for document in iter_documents(corpus):
        yield document.prompt
        yield document.completion


def _document(value: Any, where: str) -> Document:
    if not isinstance(value, dict) or len({"text", "prompt"} & value.keys()) != 1:
        raise DataError(f"{where}: {_KINDS}")
    members = ("text",) if "text" in value else ("prompt", "completion")
    if ("completion" in value) != ("prompt" in value):
        raise DataError(f"{where}: {_KINDS}")
    for member in members:
        if not isinstance(value[member], str):
            raise DataError(f"{where}: {member!r} must be a string")
    return Document("", value["text"]) if "text" in value else Document(value["prompt"], value["completion"])


def _iter_lines(name: str, chunks: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers; they end with a line feed and nothing else: JSON strings may hold other
    line ends. Never more in memory than a chunk and the longest line that can be read."""
    held: list[str] = []  # of a line whose end has not come
    held_characters = 0
    number = 1
    for chunk in chunks:
        first, *others = chunk.split("\n")
        held.append(first)
        held_characters += len(first)
        if held_characters > MAX_JSON_BYTES:  # characters, which are no more than bytes; parse_json counts those
            raise DataError(f"{_where(name, number)}: larger than the {MAX_JSON_BYTES} bytes it may have")
        if others:
            for line in ("".join(held), *others[:-1]):
                yield number, line
                number += 1
            held, held_characters = others[-1:], len(others[-1])
    yield number, "".join(held)


def _where(name: str, number: int) -> str:
    return f"{name}, line {number}"
