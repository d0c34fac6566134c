"""Documents: texts with an end, of which a model learns some parts and reads the others; as lines and as JSON.

    {"text": "..."}
    {"prompt": "...", "completion": "..."}
    {"audio": "FILE", "prompt": "...", "completion": "..."}        the prompt may be missing
    {"image": "FILE", "prompt": "...", "completion": "..."}

are objects of JSON lines or of a JSON array; other members are ignored. Tables have the texts in their columns.
Independent of tokens, and of what the files of signals contain.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

from quickfox.config.media import MediaKind
from quickfox.errors import DataError
from quickfox.files.json import MAX_JSON_BYTES, iter_json_array, parse_json_text
from quickfox.text.sources import Source

MAX_LINE_CHARACTERS = MAX_JSON_BYTES

Part = tuple[str, bool]
"""A text, and whether it is learned."""

Columns = tuple[str, ...]
"""The column or key of the text, or those of the prompt and the completion."""

TEXT: Columns = ("text",)
PAIR: Columns = ("prompt", "completion")
_STANDARD_COLUMNS = (*TEXT, *PAIR)

SIGNALS: tuple[MediaKind, ...] = ("audio", "image")
"""The keys of the file of a signal."""

OpenNamed = Callable[[str], Source]
"""The source of a file that a document names; raises DataError if it may not name it."""


class Signal(NamedTuple):
    """A sound or a picture before the text of a document.

    Attributes:
        kind: what it is.
        source: its file.
        where: file and line that name it, for messages.
    """

    kind: MediaKind
    source: Source
    where: str


@dataclass(slots=True)  # not frozen: a table of short rows takes a third longer to read
class Document:
    """A text with an end, which is learned if its last part is; never changed.

    Attributes:
        parts: texts, each with whether it is a training target, as one of them is.
        signal: what is read before them; None: nothing.
    """

    parts: tuple[Part, ...]
    signal: Signal | None = None

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.parts)

    @property
    def prompt(self) -> tuple[str, ...]:
        """The texts before the last part that is learned; no token extends over two of them."""
        return tuple(text for text, _ in self.parts[: self._last_learned] if text)

    @property
    def completion(self) -> str:
        """The last part that is learned."""
        return self.parts[self._last_learned][0]

    @property
    def _last_learned(self) -> int:
        return max(index for index, (_, is_learned) in enumerate(self.parts) if is_learned)

    @property
    def is_end_learned(self) -> bool:
        return self.parts[-1][1]


def iter_lines(chunks: Iterable[str], name: str) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers, in memory bounded by a chunk and the longest line allowed.

    Only a line feed ends a line: JSON strings may contain other line ends.

    Raises:
        DataError: a line is too long.
    """
    unfinished: list[str] = []  # parts of the last line
    length = 0
    number = 1
    for chunk in chunks:
        first, *others = chunk.split("\n")
        unfinished.append(first)
        length += len(first)
        if length > MAX_LINE_CHARACTERS:  # of which a line has at most as many as bytes; parse_json_text counts those
            raise DataError(f"{name}, line {number}: larger than the limit of {MAX_LINE_CHARACTERS} bytes")
        if others:
            for line in ("".join(unfinished), *others[:-1]):
                yield number, line
                number += 1
            unfinished, length = others[-1:], len(others[-1])
    yield number, "".join(unfinished)


def read_lines(chunks: Iterable[str], name: str) -> Iterator[Document]:
    """A document for each line that is not blank, without its line end."""
    for _, line in iter_lines(chunks, name):
        if line and not line.isspace():
            yield Document(((line.removesuffix("\r"), True),))


def iter_json_values(chunks: Iterable[str], name: str) -> Iterator[tuple[str, Any]]:
    """The values of JSON lines or of a JSON array, each after its file and line; blank lines are skipped.

    Raises:
        DataError: a line is not JSON, or too long.
    """
    source = iter(chunks)
    head = ""
    while not head.strip() and (chunk := next(source, None)) is not None:
        head += chunk
    whole = chain([head], source)
    if head.lstrip().startswith("["):
        yield from iter_json_array(whole, name)
        return
    for number, line in iter_lines(whole, name):
        if line.strip():
            where = f"{name}, line {number}"
            yield where, parse_json_text(line, where)


def parse_object(value: Any, columns: Columns | None, where: str, open_named: OpenNamed) -> Document:
    """The document of a decoded JSON object.

    Args:
        value: the object.
        columns: its keys; None: `text`, or `prompt` and `completion`.
        where: its file and line.
        open_named: opens the file of a signal.

    Raises:
        DataError: not an object, or a key is missing, or its value is not a string, or all are empty; or the file of a
            signal may not be named.
    """
    if not isinstance(value, dict):
        raise DataError(f'{where}: expected an object such as {{"text": "..."}}')
    prompt_key, completion_key = columns if columns is not None and len(columns) == len(PAIR) else PAIR
    if completion_key in value and (signal := parse_signal(value, where, open_named)):
        texts = [value.get(prompt_key, ""), value[completion_key]]
        for key, text in zip((prompt_key, completion_key), texts, strict=True):
            if not isinstance(text, str):
                raise DataError(f"{where}: {key!r} must be a string")
        return replace(make_document(texts, where), signal=signal)
    columns = columns or find_columns(value, where)
    try:
        texts = [value[column] for column in columns]
    except KeyError as error:
        raise missing_column(error.args[0], value, "key", where) from None
    for column, text in zip(columns, texts, strict=True):
        if not isinstance(text, str):
            raise DataError(f"{where}: {column!r} must be a string")
    return make_document(texts, where)


def parse_signal(value: dict[str, Any], where: str, open_named: OpenNamed) -> Signal | None:
    """The signal that an object names; None: it names none.

    Raises:
        DataError: it names two, or not by a string, or a file that it may not name.
    """
    kinds = [kind for kind in SIGNALS if kind in value]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise DataError(f"{where}: 'audio' and 'image' exclude each other: give one")
    name = value[kinds[0]]
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{where}: {kinds[0]!r} must be the name of a file")
    try:
        return Signal(kinds[0], open_named(name), where)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def find_columns(names: Collection[str], where: str, kind: str = "key") -> Columns:
    """The columns among the names of a record: `text`, or `prompt` and `completion`.

    Raises:
        DataError: it has neither, or both; the message lists the names.
    """
    members = tuple([name for name in _STANDARD_COLUMNS if name in names])
    if members in (TEXT, PAIR):
        return members
    if "text" in members:
        others = " and ".join(map(repr, members[1:]))
        raise DataError(
            f"{where}: expected 'text' alone, but it is beside {others}: choose column text, or a prompt_column and a "
            f"completion_column",
            *("column", "prompt_column", "completion_column"),
        )
    absent = next(name for name in PAIR if name not in members) if members else "text"
    raise missing_column(absent, names, kind, where)


def missing_column(missing: str, names: Iterable[str], kind: str, where: str) -> DataError:
    """The error of a column or key that is not there, with those that are."""
    shown = [repr(name[:40]) for name in names]
    listed = ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "")
    has = (
        f"{missing!r} is not among its {kind}s {listed}" if shown else f"{missing!r} is expected, but it has no {kind}s"
    )
    return DataError(
        f"{where}: {has}: name one with column, or two with prompt_column and completion_column",
        *("column", "prompt_column", "completion_column"),
    )


def make_document(texts: Sequence[str], where: str) -> Document:
    """The document of a text, or of a prompt and its completion; raises DataError if all are empty."""
    if not any(texts):
        raise DataError(f"{where}: the document is empty: remove it")
    if len(texts) == 1:
        return Document(((texts[0], True),))
    return Document(((texts[0], False), (texts[1], True)))
