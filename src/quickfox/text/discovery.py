"""Find the sources that the arguments of a command name: files, folders, globs, archives and streams.

What is passed over is noted, to be told in one line of each kind. Independent of what the files contain.
"""

import glob
import hashlib
import os
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import BinaryIO, Literal

from quickfox.errors import DataError, NoInputError, StorageError
from quickfox.files.errors import translate_read_errors
from quickfox.text.sources import (
    CHUNK_BYTES,
    STANDARD_INPUT,
    ZIP_SIGNATURES,
    FileSource,
    Source,
    display_name,
    list_members,
    spool,
    uncompressed_name,
)

_SHOWN_NAMES = 3
_HEAD_BYTES = 2**12  # of files that are compared if they are equal

NoteKind = Literal["not included", "not a file", "circular link", "unreadable", "empty", "duplicate"]

_REASONS: dict[NoteKind, str] = {
    "not included": "which --include does not name",
    "not a file": "not regular",
    "circular link": "a link to a folder that is read already",
    "unreadable": "unreadable",
    "empty": "empty",
    "duplicate": "of the same content as another",
}


@dataclass
class Notes:
    """What is passed over while sources are opened.

    Attributes:
        names: kind -> names, in order.
    """

    names: dict[NoteKind, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: NoteKind, name: str) -> None:
        self.names[kind].append(name)

    def describe(self) -> Iterator[str]:
        """A line for each kind."""
        for kind, reason in _REASONS.items():
            if names := self.names.get(kind):
                count = "1 file" if len(names) == 1 else f"{len(names):,} files"
                shown = ", ".join(names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")
                yield f"passed over {count}, {reason}: {shown}"


@dataclass(frozen=True, slots=True)
class Found:
    """A source, and whether an argument names it; else it was found in a folder, by a glob or in an archive."""

    source: Source
    is_named: bool


def find_sources(
    argument: str, stdin: BinaryIO | None, include: Sequence[str], is_document: Callable[[Source], bool], notes: Notes
) -> list[Found]:
    """The files of one argument of `open_corpus`, in reading order.

    Args:
        argument: a file, folder, glob, member of an archive, or "-".
        stdin: the stream of "-"; None: the program's standard input.
        include: patterns of the names of files to read in folders and archives, in any letter case.
        is_document: whether a zip archive is a document of its own, such as an EPUB.
        notes: receives what is passed over.

    Raises:
        NoInputError: it does not exist, or matches no file.
        DataError: an archive is damaged.
        StorageError: it cannot be read.
    """
    if argument == STANDARD_INPUT:
        if stdin is None and sys.stdin is None:  # the program was started with it closed
            raise NoInputError("standard input is closed")
        return _expand(spool(argument, stdin or sys.stdin.buffer), include, is_document, notes)
    if not argument:  # an unset shell variable; Path("") is the current directory
        raise NoInputError("'': no such file or directory")
    path = Path(argument)
    with translate_read_errors(argument):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: not a possible file name
            mode = None
        if mode is None:
            return _find_member(path, is_document) or _find_matches(argument, include, is_document, notes)
        if stat.S_ISDIR(mode):
            return _find_in_folder(path, include, is_document, notes)
        if stat.S_ISREG(mode):
            return _expand(FileSource(path), include, is_document, notes)
        with path.open("rb") as stream:  # a device or a pipe, such as the shell's <(zcat log.gz)
            return _expand(spool(argument, stream), include, is_document, notes)


def drop_duplicates(found: Sequence[Found], notes: Notes) -> list[Found]:
    """The sources without those that are the same file as an earlier one, or have the same bytes, decompressed.

    Only sources of the same size are compared; if one is compressed, those that start with the same bytes.

    Raises:
        NoInputError: a file was removed.
        DataError: damaged compressed data.
    """
    sources = [item.source for item in found]
    is_compressed = any(uncompressed_name(source.name) != source.name for source in sources)
    keys = [_head(source) if is_compressed and len(found) > 1 else source.size for source in sources]
    counts = Counter(keys)
    kept = []
    originals: dict[str, str] = {}
    for item, key in zip(found, keys, strict=True):
        if key and counts[key] > 1 and (digest := _digest(item.source)) is not None:
            name = display_name(item.source.name)
            if digest in originals:
                notes.add("duplicate", name if name == originals[digest] else f"{name} (as {originals[digest]})")
                continue
            originals[digest] = name
        kept.append(item)
    return kept


def _head(source: Source) -> bytes:
    """The first bytes of a source; none if it cannot be read, which is told when it is opened."""
    try:
        return next(source.iter_bytes(_HEAD_BYTES), b"")
    except StorageError:
        return b""


def _digest(source: Source) -> str | None:
    """The sha256 of a source; None if it cannot be read, which is told when it is opened."""
    sha256 = hashlib.sha256()
    try:
        for chunk in source.iter_bytes(CHUNK_BYTES):
            sha256.update(chunk)
    except StorageError:
        return None
    return sha256.hexdigest()


def _expand(source: Source, include: Sequence[str], is_document: Callable[[Source], bool], notes: Notes) -> list[Found]:
    """A named source, or the members of an archive that are included; its only member always is."""
    with source.open_checked() as file:
        is_archive = file.read(4) in ZIP_SIGNATURES
    if not is_archive or is_document(source):
        return [Found(source, is_named=True)]
    members = [member for member in list_members(source) if not _is_hidden(PurePath(member.member))]
    kept = members if len(members) == 1 else [member for member in members if _is_included(member.member, include)]
    if not kept:
        raise _nothing_included(display_name(source.name), (member.member for member in members), include)
    for member in members:
        if member not in kept:
            notes.add("not included", display_name(member.name))
    return [Found(member, is_named=False) for member in sorted(kept, key=lambda member: PurePath(member.member).parts)]


def _find_member(path: Path, is_document: Callable[[Source], bool]) -> list[Found]:
    """The member of an archive that the path names, as `books.zip/moby-dick.txt`; empty if there is no archive."""
    for parent in path.parents:
        if parent.is_file():
            archive = FileSource(parent)
            with archive.open_checked() as file:
                if file.read(4) not in ZIP_SIGNATURES or is_document(archive):
                    return []
            member = path.relative_to(parent).as_posix()
            return [Found(found, is_named=True) for found in list_members(archive) if found.member == member]
    return []


def _find_matches(
    pattern: str, include: Sequence[str], is_document: Callable[[Source], bool], notes: Notes
) -> list[Found]:
    """The files that a glob matches; raises NoInputError if it is not a glob or matches none."""
    if not glob.has_magic(pattern):
        raise NoInputError(f"{pattern}: no such file or directory")
    matches = sorted((Path(match) for match in glob.glob(pattern, recursive=True)), key=_by_parts)  # noqa: PTH207
    files = [path for path in matches if path.is_file()]
    for path in matches:
        if not path.is_file() and not path.is_dir():
            notes.add("not a file", str(path))
    if not files:
        raise NoInputError(f"{pattern}: matches no file")
    return [
        Found(found.source, is_named=False)
        for path in files
        for found in _expand(FileSource(path), include, is_document, notes)
    ]


def _find_in_folder(
    folder: Path, include: Sequence[str], is_document: Callable[[Source], bool], notes: Notes
) -> list[Found]:
    """The visible files in a folder that are included, at any depth, sorted; raises NoInputError if there is none."""
    others: list[Path] = []
    found: list[Found] = []
    for path in sorted(_walk(folder, notes), key=_by_parts):
        if not _is_included(path.name, include):
            others.append(path)
        elif path.suffix.lower() == ".zip":
            found += _expand(FileSource(path), include, is_document, notes)
        elif path.is_file():
            found.append(Found(FileSource(path), is_named=False))
        else:
            notes.add("unreadable" if path.is_symlink() else "not a file", str(path))
    if not found:
        if described := " ".join(notes.describe()):
            raise NoInputError(f"{folder}: no file to read; {described}")
        raise _nothing_included(str(folder), (path.name for path in others), include)
    for path in others:
        notes.add("not included", str(path))
    return found


def _walk(folder: Path, notes: Notes) -> Iterator[Path]:
    """All visible files in a folder; links to folders are followed, but none is entered twice."""
    entered: set[tuple[int, int]] = set()
    for path, subfolders, files in os.walk(
        folder, followlinks=True, onerror=lambda error: notes.add("unreadable", str(error.filename))
    ):
        status = os.stat(path)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in entered:
            notes.add("circular link", path)
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(path, name) for name in files if not name.startswith("."))


def _nothing_included(where: str, names: Iterable[str], include: Sequence[str]) -> DataError | NoInputError:
    """The error of a folder or an archive in which no file is included; it names the suffixes of those that are."""
    patterns = " or ".join(include)
    suffixes = sorted({PurePath(name.lower()).suffix for name in names} - {""})
    if not suffixes:
        return NoInputError(f"{where}: no {patterns} file in it")
    advice = f"include '*{suffixes[0]}'"
    return NoInputError(
        f"{where}: no {patterns} file in it, but {', '.join(f'*{suffix}' for suffix in suffixes[:5])}: read them with "
        f"{advice}",
        "include",
    )


def _is_included(name: str, include: Sequence[str]) -> bool:
    """Whether a pattern matches the name of a file, or its name without the suffix of a compression."""
    name = PurePath(name).name.lower()
    candidates = (name, uncompressed_name(name))
    return any(fnmatch(candidate, pattern.lower()) for pattern in include for candidate in candidates)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _by_parts(path: Path) -> tuple[str, ...]:
    return path.parts  # comparing them is four times as fast as comparing paths
