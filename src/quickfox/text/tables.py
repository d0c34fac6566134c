"""Documents of tables: comma- or tab-separated values, whose first row has the names of the columns, and Parquet.

The column `text` is the text, or `prompt` and `completion` are a prompt and its completion, unless others are named.
Independent of files and tokens.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import IO, Any

from quickfox.errors import DataError, UnavailableError
from quickfox.text.batches import DocumentBatch
from quickfox.text.documents import MAX_LINE_CHARACTERS, Columns, Document, find_columns, make_document, missing_column

_MAX_ROWS = 2**12
"""Rows of Parquet in memory."""


def read_table(
    chunks: Iterable[str], name: str, columns: Columns | None, delimiter: str | None
) -> Iterator[DocumentBatch]:
    """The documents of separated values as in RFC 4180, where fields in quotes may have line ends; one per row.

    Args:
        chunks: the text; its documents are in about as many batches.
        name: of its file, for messages.
        columns: their names; None: see `column_indices`.
        delimiter: between fields; None: that of , ; tab and | which is most frequent in the first line.

    Raises:
        DataError: a column is missing, a row has another number of fields, or the quotes are damaged.
    """
    lines = _Lines(chunks, name)
    source = iter(lines)
    first = next(source, "")
    csv.field_size_limit(MAX_LINE_CHARACTERS)
    reader = csv.reader(chain([first], source), delimiter=delimiter or _guess_delimiter(first), strict=True)
    try:
        header = next(filter(None, reader), None)  # blank lines are no rows
        if header is None:
            return
        indices = column_indices(header, columns, f"{name}, line {reader.line_num}")
        width, last = len(header), indices[-1]
        prompt = None if len(indices) == 1 else indices[0]
        texts: list[str] = []
        chunks_read = lines.chunks_read
        for row in reader:
            if len(row) != width:
                if not row:
                    continue
                raise DataError(f"{name}, line {reader.line_num}: {len(row)} fields, but the header has {width}")
            if not row[last]:
                make_document([row[index] for index in indices], f"{name}, line {reader.line_num}")
            if prompt is not None:
                texts.append(row[prompt])
            texts.append(row[last])
            if lines.chunks_read != chunks_read:
                chunks_read = lines.chunks_read
                yield DocumentBatch.of_columns(texts, len(indices))
                texts = []
        if texts:
            yield DocumentBatch.of_columns(texts, len(indices))
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: not a table of separated values: {error}") from None


def column_indices(header: Sequence[str], columns: Columns | None, where: str) -> list[int]:
    """The indices of the columns.

    Args:
        header: the names of all columns.
        columns: the names to find; None: the only column, or else `text`, or `prompt` and `completion`.
        where: file and line of the header.

    Raises:
        DataError: a column is not in the header, or is in it twice.
    """
    if columns is None:
        columns = (header[0],) if len(header) == 1 else find_columns(header, where, "column")
    for column in columns:
        if column not in header:
            raise missing_column(column, header, "column", where)
        if header.count(column) > 1:
            raise DataError(f"{where}: {header.count(column)} columns have the name {column!r}")
    return [header.index(column) for column in columns]


def read_parquet(file: IO[bytes], name: str, columns: Columns | None) -> Iterator[Document]:
    """The documents of a Parquet file, one per row.

    Raises:
        UnavailableError: pyarrow is not installed.
        DataError: the file is damaged, or a column is missing or is not text.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UnavailableError(f"{name}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        table = parquet.ParquetFile(file)
        header = table.schema_arrow.names
        names = [header[index] for index in column_indices(header, columns, name)]
        number = 0
        for batch in table.iter_batches(_MAX_ROWS, columns=names):
            for texts in zip(*(batch.column(column).to_pylist() for column in names), strict=True):
                number += 1
                yield make_document(_check_texts(texts, names, f"{name}, row {number}"), f"{name}, row {number}")
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        raise DataError(f"{name}: damaged Parquet data: {' '.join(str(error).split()):.200}") from None


def _check_texts(texts: Sequence[Any], columns: Sequence[str], where: str) -> list[str]:
    for column, text in zip(columns, texts, strict=True):
        if not isinstance(text, str):
            raise DataError(f"{where}: {column!r} must be a text, not {type(text).__name__}")
    return list(texts)


class _Lines:
    """The lines of a text with their ends, of any kind, as the reader needs them: one at a time.

    Attributes:
        chunks_read: number of chunks that the lines so far are of.
    """

    def __init__(self, chunks: Iterable[str], name: str) -> None:
        self._chunks = chunks
        self._name = name
        self.chunks_read = 0

    def __iter__(self) -> Iterator[str]:
        unfinished: list[str] = []
        length = 0
        for chunk in self._chunks:
            self.chunks_read += 1
            end = max(chunk.rfind("\n"), chunk.rfind("\r", 0, -1)) + 1  # a line feed may follow a last carriage return
            if end:
                yield from io.StringIO("".join([*unfinished, chunk[:end]]), newline="")
                unfinished, length = [], 0
            unfinished.append(chunk[end:])
            length += len(chunk) - end
            if length > MAX_LINE_CHARACTERS:
                raise DataError(f"{self._name}: a line is larger than the limit of {MAX_LINE_CHARACTERS} bytes")
        yield from io.StringIO("".join(unfinished), newline="")


def _guess_delimiter(line: str) -> str:
    """The most frequent separator in the first line, outside of quotes."""
    unquoted = "".join(line.split('"')[::2])
    return max(",;\t|", key=unquoted.count)
