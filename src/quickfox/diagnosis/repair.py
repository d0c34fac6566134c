"""Write cleaned copies of a corpus: line feeds as line ends, no control characters, boilerplate and duplicates.

The files themselves are never changed. Mojibake is repaired by the library ftfy where it is installed.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quickfox.diagnosis.characters import GUTENBERG_END, GUTENBERG_START, MOJIBAKE
from quickfox.diagnosis.findings import Kind
from quickfox.errors import DataError
from quickfox.files.atomic import new_directory, sync
from quickfox.files.errors import translate_write_errors
from quickfox.text.corpus import Corpus
from quickfox.text.sources import STANDARD_INPUT, display_name, uncompressed_name

_DOCUMENTS_NAME = "documents.jsonl"
_CHANGES_NAME = "changes.log"
"""In the directory too, as JSON lines, but without the name of a file that a corpus reads."""
_MEMBERS = {(True,): ("text",), (False, True): ("prompt", "completion")}
"""Which parts of a document are learned -> their keys."""

_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufeff]")
"""The characters of the kind control-character."""


@dataclass(frozen=True)
class Change:
    """What was changed in a file.

    Attributes:
        where: the file, as it was named.
        kind: the fault that was removed.
        count: number of occurrences; of mojibake the lines.
    """

    where: str
    kind: Kind
    count: int


def repair(corpus: Corpus, directory: Path) -> list[Change]:
    """Writes cleaned copies of the files of a corpus; documents become one file of JSON lines.

    Files and documents that repeat earlier ones are left out, and documents of which nothing is left. Characters that
    cannot be repaired, such as U+FFFD and those of the private use areas, are kept.

    Args:
        corpus: plain text or documents.
        directory: new, or empty. It also gets the list of changes, as JSON lines.

    Raises:
        DataError: the corpus is of conversations, sound or pictures, or a file is damaged.
        CannotCreateError: the directory is not empty, or cannot be created.
        StorageError: reading or writing failed; no directory is left.
    """
    changes: list[Change] = []
    with new_directory(directory) as temporary:
        if corpus.has_documents:
            changes += _repair_documents(corpus, temporary / _DOCUMENTS_NAME)
        else:
            changes += _repair_files(corpus, temporary)
        lines = "".join(json.dumps(dataclasses.asdict(change), ensure_ascii=False) + "\n" for change in changes)
        (temporary / _CHANGES_NAME).write_text(lines, encoding="utf-8", errors="backslashreplace")
    return changes


def _repair_files(corpus: Corpus, directory: Path) -> Iterator[Change]:
    """Writes the files of a plain text; those of other formats and encodings become text files in UTF-8."""
    outlines = [_outline(chunks) for _, chunks in corpus.iter_files()]
    seen: set[bytes] = set()
    targets = _target_paths(corpus)
    for (name, chunks), outline, target in zip(corpus.iter_files(), outlines, targets, strict=True):
        where = display_name(name)
        if outline.digest in seen:
            yield Change(where, "duplicate", 1)
            continue
        seen.add(outline.digest)
        cleaner = TextCleaner()
        path = directory / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with translate_write_errors(path), path.open("w", encoding="utf-8", newline="") as file:
            for lines in _whole_lines(_part(chunks, outline.start, outline.end)):
                file.write(cleaner.clean(lines))
        sync(path)
        if outline.boilerplate:
            yield Change(where, "boilerplate", outline.boilerplate)
        yield from (Change(where, kind, count) for kind, count in cleaner.changes.items())


def _repair_documents(corpus: Corpus, path: Path) -> Iterator[Change]:
    cleaner = TextCleaner()
    seen: set[bytes] = set()
    with translate_write_errors(path), path.open("w", encoding="utf-8", newline="") as file:
        for number, document in enumerate(corpus.iter_documents(), start=1):
            members = _MEMBERS.get(tuple(is_learned for _, is_learned in document.parts))
            if corpus.is_chat or members is None:
                raise DataError(f"document {number} is a conversation, which is not repaired: only checked")
            if document.signal is not None:
                raise DataError(f"document {number} has sound or a picture, which is not repaired: only checked")
            texts = [cleaner.clean(text) for text, _ in document.parts]
            if not any(texts):  # control characters alone: a corpus has no empty documents
                continue
            digest = hashlib.blake2b("\0".join(texts).encode()).digest()
            if digest in seen:
                cleaner.changes["duplicate"] += 1
                continue
            seen.add(digest)
            file.write(json.dumps(dict(zip(members, texts, strict=True)), ensure_ascii=False) + "\n")
    yield from (Change(_DOCUMENTS_NAME, kind, count) for kind, count in cleaner.changes.items())


class TextCleaner:
    """Cleans text of whole lines.

    Attributes:
        changes: the number of faults removed, by kind.
    """

    def __init__(self) -> None:
        self.changes: Counter[Kind] = Counter()
        self._fix_encoding = _find_ftfy()

    def clean(self, text: str) -> str:
        """The text with line feeds as line ends, without control characters and, with ftfy, without mojibake."""
        if carriage_returns := text.count("\r"):
            self.changes["mixed-line-ends"] += carriage_returns
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if self._fix_encoding is not None and MOJIBAKE.search(text):
            text = "".join(map(self._fix_line, text.splitlines(keepends=True)))
        text, removed = _CONTROLS.subn("", text)
        if removed:
            self.changes["control-character"] += removed
        return text

    def _fix_line(self, line: str) -> str:
        assert self._fix_encoding is not None
        fixed = self._fix_encoding(line) if MOJIBAKE.search(line) else line
        if fixed != line:
            self.changes["mojibake"] += 1
        return fixed


def _find_ftfy() -> Callable[[str], str] | None:
    try:
        from ftfy import fix_encoding
    except ImportError:
        return None
    return fix_encoding


@dataclass(frozen=True)
class _Outline:
    """A file as a whole: a hash of its text, and the part between its boilerplate.

    Attributes:
        digest: of the text.
        start: index of the first character to keep.
        end: index after the last.
        boilerplate: number of characters outside.
    """

    digest: bytes
    start: int
    end: int
    boilerplate: int


def _outline(chunks: Iterable[str]) -> _Outline:
    digest = hashlib.blake2b()
    start = offset = 0
    end = None
    for lines in _whole_lines(chunks):
        digest.update(lines.encode())
        if "gutenberg" in lines.lower():
            if not start and end is None and (match := GUTENBERG_START.search(lines)):
                start = offset + min(match.end() + 1, len(lines))
            if end is None and (match := GUTENBERG_END.search(lines, max(0, start - offset))):
                end = offset + match.start()
        offset += len(lines)
    end = offset if end is None else end
    return _Outline(digest.digest(), start, end, offset - (end - start))


def _part(chunks: Iterable[str], start: int, end: int) -> Iterator[str]:
    """The characters of a text from `start` to before `end`."""
    offset = 0
    for chunk in chunks:
        yield chunk[max(0, start - offset) : max(0, end - offset)]
        offset += len(chunk)


def _whole_lines(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in chunks that end with a line feed, except the last."""
    unfinished: list[str] = []
    for chunk in chunks:
        lines, line_feed, rest = chunk.rpartition("\n")
        if line_feed:
            yield "".join([*unfinished, lines, line_feed])
            unfinished.clear()
        unfinished.append(rest)
    if text := "".join(unfinished):
        yield text


def _target_paths(corpus: Corpus) -> list[Path]:
    """A path for each file of a corpus, relative to the directory that they have in common; all are different."""
    names = [Path("standard_input.txt" if name == STANDARD_INPUT else name).absolute() for name in corpus.names]
    common = os.path.commonpath([os.path.normpath(name.parent) for name in names])
    targets: dict[Path, None] = {Path(_CHANGES_NAME): None}  # in this order
    for name, text_format in zip(names, corpus.formats, strict=True):
        target = Path(os.path.relpath(os.path.normpath(name), common))
        target = target.with_name(uncompressed_name(target.name))
        if text_format != "text":
            target = target.with_name(f"{target.name}.txt")
        stem, number = target.stem, 2
        while target in targets:
            target, number = target.with_stem(f"{stem}-{number}"), number + 1
        targets[target] = None
    return list(targets)[1:]
