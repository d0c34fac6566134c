"""How the files of a corpus are read: format, columns, encoding, and which files of a folder."""

import codecs
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

from quickfox.config.schema import check_exclusive, check_settings, setting
from quickfox.errors import UsageError

Format = Literal["text", "lines", "jsonl", "chat", "csv", "tsv", "html", "epub", "parquet"]

TABLES = ("csv", "tsv", "parquet")
"""The formats with columns."""

_GROUPS = (
    ("format", "lines"),
    ("column", "prompt_column", "completion_column"),
    ("encoding",),
    ("include",),
    ("separator",),
)
"""Options for the same purpose."""

_corpus = partial(setting, group="Corpus and tokenizer", default=None)


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How a corpus is read; what is None is recognized by the names and the content of its files.

    The fields are options of every command that reads a corpus.

    Raises:
        UsageError: a value is unknown, or two exclude each other.
    """

    format: Format | None = _corpus("Format of all files. Default: by name and content, and shown.")
    lines: bool | None = _corpus("Each line is a document, as with --format lines.")
    column: str | None = _corpus(
        "Column of a table, or key of JSON lines, with the text. Default: text.", metavar="NAME", aliases="--text-key"
    )
    prompt_column: str | None = _corpus("Column or key with the prompt. Default: prompt.", metavar="NAME")
    completion_column: str | None = _corpus("Column or key with the completion. Default: completion.", metavar="NAME")
    encoding: str | None = _corpus("Encoding of all files, such as cp1252 or utf-16. Default: utf-8.", metavar="NAME")
    include: tuple[str, ...] = _corpus(
        "Files to read of folders and archives, by name; repeatable. Default: *.txt and *.md.",
        default=(),
        metavar="GLOB",
    )
    separator: str | None = _corpus(
        r"Text between the files of a plain text; \n is a newline. Default: a newline where a file ends without one.",
        metavar="TEXT",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.lines and self.format not in (None, "lines"):
            raise UsageError(f"lines and format {self.format} exclude each other: give one", "lines", "format")
        for name in ("prompt_column", "completion_column"):
            check_exclusive(self, "column", name)
        if (self.prompt_column is None) != (self.completion_column is None):
            given, missing = ("prompt_column", "completion_column")[:: 1 if self.prompt_column is not None else -1]
            raise UsageError(f"{given} needs {missing} too", given, missing)
        named = next((name for name in ("column", "prompt_column") if getattr(self, name) is not None), None)
        if named and self.requested_format not in (None, "jsonl", *TABLES):
            raise UsageError(f"{named} is for tables and JSON lines, not for {self.requested_format}", named)
        if self.encoding is not None:
            _check_encoding(self.encoding)

    @classmethod
    def take(cls, settings: dict[str, Any]) -> "CorpusOptions":
        """The options among the settings, which are removed from them; raises UsageError."""
        return cls(**{name: settings.pop(name) for name in [field.name for field in fields(cls)] if name in settings})

    @property
    def given(self) -> dict[str, Any]:
        """The options that do not have their defaults, by name."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def fill_from(self, other: "CorpusOptions") -> "CorpusOptions":
        """The options with those of `other` where neither they nor others for the same purpose are given."""
        missing = [group for group in _GROUPS if not any(name in self.given for name in group)]
        return replace(self, **{name: getattr(other, name) for group in missing for name in group})

    @property
    def requested_format(self) -> Format | None:
        """The format of all files; None: it is recognized."""
        return "lines" if self.lines else self.format


def is_text_encoding(name: str) -> bool:
    """Whether it is the name of a character encoding that Python can decode piece by piece."""
    try:
        b"a".decode(name, "replace")  # fails for codecs that are not of characters, such as base64
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        return False
    return True


def _check_encoding(name: str) -> None:
    if not is_text_encoding(name):
        raise UsageError(f"encoding {name[:40]!r} is unknown: name one such as cp1252 or utf-16", "encoding")
