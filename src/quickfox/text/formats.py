"""The formats of files: how each is recognized, and how it is read, as plain text or as documents.

A new format is an entry of `READERS`. Independent of how files are found and joined.
"""

import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import PurePath
from typing import Any

from quickfox.config.corpus import CorpusOptions, Format
from quickfox.errors import DataError
from quickfox.text.batches import DocumentBatch
from quickfox.text.chat import parse_conversation
from quickfox.text.documents import Columns, Document, iter_json_values, parse_object, read_lines
from quickfox.text.encodings import decode_chunks
from quickfox.text.markup import declared_encoding, read_epub, read_html
from quickfox.text.sources import (
    CHUNK_BYTES,
    OnRead,
    Source,
    display_name,
    ignore_progress,
    open_named,
    translate_damage,
    uncompressed_name,
)
from quickfox.text.tables import read_parquet, read_table

DEFAULT_ENCODING = "utf-8"

_JSON_OBJECT = re.compile(r'\s*(\[\s*)?\{\s*["}]')
_HTML = re.compile(r"\s*(<!--.*?-->\s*)*(<!doctype\s+html|<html)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class File:
    """A file of a corpus.

    Attributes:
        source: its bytes.
        format: how it is read.
        encoding: of its text; not of formats that have their own.
        options: the options of the corpus.
    """

    source: Source
    format: Format
    encoding: str
    options: CorpusOptions

    @property
    def name(self) -> str:
        """The name in messages."""
        return display_name(self.source.name)

    @property
    def suffix(self) -> str:
        """The last suffix of the name before that of a compression, in lower case."""
        return _suffix(self.source.name)

    @property
    def columns(self) -> Columns | None:
        """The requested columns."""
        if self.options.column is not None:
            return (self.options.column,)
        if self.options.prompt_column is None or self.options.completion_column is None:
            return None
        return (self.options.prompt_column, self.options.completion_column)

    def decode(self, chunk_bytes: int = CHUNK_BYTES, on_read: OnRead = ignore_progress) -> Iterator[str]:
        """The characters of the file in non-empty chunks.

        Raises:
            DataError: not text of the encoding, or damaged compressed data.
            NoInputError, StorageError: the file was removed, or reading failed.
        """
        chunks = self.source.iter_bytes(chunk_bytes, on_read)
        return decode_chunks(chunks, self.encoding, self.name, lambda: self.source.iter_bytes(CHUNK_BYTES))


Characters = Iterator[str]


@dataclass(frozen=True)
class Reader:
    """How a format is read; `read_text` or `read_documents` is given.

    Attributes:
        description: for the user.
        suffixes: of file names, in lower case.
        read_text: characters of a file -> its plain text.
        read_documents: a file and its characters -> its documents.
        read_batches: the same in batches; None: there is no faster way than `read_documents`.
        is_binary: whether the reader opens the file itself; then its characters are empty.
    """

    description: str
    suffixes: tuple[str, ...]
    read_text: Callable[[File, Characters], Iterator[str]] | None = None
    read_documents: Callable[[File, Characters], Iterator[Document]] | None = None
    read_batches: Callable[[File, Characters], Iterator[DocumentBatch]] | None = None
    is_binary: bool = False


def _read_json(file: File, characters: Characters) -> Iterator[Document]:
    open_file = partial(open_named, file.source)
    for where, value in iter_json_values(characters, file.name):
        yield parse_object(value, file.columns, where, open_file)


def _read_chat(file: File, characters: Characters) -> Iterator[Document]:
    for where, value in iter_json_values(characters, file.name):
        if not isinstance(value, dict) or "messages" not in value:
            raise DataError(f"{where}: expected an object with 'messages', a list")
        yield parse_conversation(value["messages"], where)


def _table(description: str, suffixes: tuple[str, ...], delimiter: str | None) -> Reader:
    def read_batches(file: File, characters: Characters) -> Iterator[DocumentBatch]:
        return read_table(characters, file.name, file.columns, delimiter)

    def read_documents(file: File, characters: Characters) -> Iterator[Document]:
        return chain.from_iterable(batch.documents() for batch in read_batches(file, characters))

    return Reader(description, suffixes, None, read_documents, read_batches)


def _read_epub(file: File, _characters: Characters) -> Iterator[str]:
    with file.source.open_checked() as opened:
        yield from read_epub(opened, file.name)


def _read_parquet(file: File, _characters: Characters) -> Iterator[Document]:
    with file.source.open_checked() as opened:
        yield from read_parquet(opened, file.name, file.columns)


READERS: dict[Format, Reader] = {
    "text": Reader("plain text", (".txt", ".md", ".rst", ".tex", ".py"), lambda _, characters: characters),
    "html": Reader("HTML", (".html", ".htm", ".xhtml"), lambda _, characters: read_html(characters)),
    "epub": Reader("EPUB", (".epub",), _read_epub, is_binary=True),
    "lines": Reader("lines, each a document", (), None, lambda file, characters: read_lines(characters, file.name)),
    "jsonl": Reader("JSON", (".jsonl", ".ndjson", ".json"), None, _read_json),
    "chat": Reader("JSON with the messages of chats", (), None, _read_chat),
    "csv": _table("comma-separated values", (".csv",), None),
    "tsv": _table("tab-separated values", (".tsv", ".tab"), "\t"),
    "parquet": Reader("Parquet", (".parquet",), None, _read_parquet, is_binary=True),
}

_BY_SUFFIX: dict[str, Format] = {suffix: name for name, reader in READERS.items() for suffix in reader.suffixes}


def default_include(options: CorpusOptions) -> Sequence[str]:
    """The patterns of the files to read in a folder, if none are given: those of the requested format."""
    requested = options.requested_format
    if requested in (None, "text", "lines"):
        return ("*.txt", "*.md")
    return tuple(f"*{suffix}" for suffix in READERS["jsonl" if requested == "chat" else requested].suffixes)


def is_epub(source: Source) -> bool:
    """Whether a zip archive is an EPUB; raises DataError if it is an office document."""
    name = display_name(source.name)
    with source.open_checked() as file, translate_damage(name), zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        try:
            media_type = archive.read("mimetype")[:100] if "mimetype" in names else b""
        except RuntimeError:  # encrypted or of an unknown compression
            media_type = b""
    if "[Content_Types].xml" in names or media_type.startswith(b"application/vnd.oasis"):
        raise DataError(f"{name}: an office document, not UTF-8 text; save it as text first")
    return media_type.startswith(b"application/epub") or "META-INF/container.xml" in names


def recognize(source: Source, head: bytes, options: CorpusOptions) -> File:
    """The file of a source, with the format and encoding that its options, name or content tell.

    Args:
        source: the source.
        head: its first decompressed bytes.
        options: of the corpus.

    Raises:
        DataError: a file that starts like JSON is not.
        NoInputError, StorageError: the file was removed, or cannot be read.
    """
    encoding = options.encoding or DEFAULT_ENCODING
    requested = options.requested_format or _BY_SUFFIX.get(_suffix(source.name))
    found = requested or recognize_content(head, encoding, options)
    if found == "html" and options.encoding is None:
        encoding = declared_encoding(head) or encoding
    file = File(source, found, encoding, options)
    if found == "jsonl" and options.requested_format is None and file.columns is None:
        return _recognize_chat(file, is_certain=requested is not None)
    return file


def _suffix(name: str) -> str:
    """The last suffix before those of compressions, in lower case."""
    return PurePath(uncompressed_name(name.lower())).suffix


def recognize_content(head: bytes, encoding: str, options: CorpusOptions) -> Format:
    """The format that the first bytes of a file, decompressed, look like."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK"):  # other archives were expanded
        return "epub"
    start = head.decode(encoding, errors="replace").removeprefix("\ufeff")
    if _JSON_OBJECT.match(start):
        return "jsonl"
    if _HTML.match(start):
        return "html"
    if options.column is not None or options.prompt_column is not None:
        return "csv"
    first = re.split(r"[,;\t|]", start.split("\n", 1)[0].rstrip("\r"))
    names = {name.strip('"') for name in first}
    return "csv" if len(first) > 1 and ("text" in names or {"prompt", "completion"} <= names) else "text"


def _recognize_chat(file: File, *, is_certain: bool) -> File:
    """The file as chat if its first object has messages; as text if it only starts like JSON."""
    try:
        first: Any = next((value for _, value in iter_json_values(file.decode(), file.name)), None)
    except DataError:
        if is_certain:
            raise
        return File(file.source, "text", file.encoding, file.options)
    if isinstance(first, dict) and "messages" in first and not {"text", "prompt", "completion"} & first.keys():
        return File(file.source, "chat", file.encoding, file.options)
    return file
