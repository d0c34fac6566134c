"""Sources of bytes: files, directories, globs, gzip and streams, and their errors."""

import gzip
import hashlib
import io
import os
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from corpora import make_file, read_text, reading_error
from quickfox.errors import DataError, ExitStatus, NoInputError, StorageError, UsageError
from quickfox.text.corpus import Corpus, open_corpus


def test_files_are_read_in_the_order_given(tmp_path: Path):
    one, two = make_file(tmp_path / "1", b"one"), make_file(tmp_path / "2", b"two")
    assert read_text(two, one) == "two\none"
    assert open_corpus([str(two), str(one)], pytest.fail).names == (str(two), str(one))


def test_a_directory_gives_its_visible_txt_files_sorted(tmp_path: Path):
    make_file(tmp_path / "b.txt", b"b")
    make_file(tmp_path / "a" / "z.txt", b"z")
    make_file(tmp_path / "a" / "deep" / "y.txt", b"y")
    make_file(tmp_path / "NOTES.MD.gz", gzip.compress(b"n"))
    make_file(tmp_path / ".hidden.txt", b"no")
    make_file(tmp_path / ".git" / "x.txt", b"no")
    corpus = open_corpus([str(tmp_path)], pytest.fail)
    assert corpus.names == tuple(str(tmp_path / name) for name in ("NOTES.MD.gz", "a/deep/y.txt", "a/z.txt", "b.txt"))
    assert "".join(corpus.iter_text()) == "n\ny\nz\nb"


def test_a_hidden_directory_is_read_when_it_is_named(tmp_path: Path):
    make_file(tmp_path / ".notes" / "a.txt", b"a")
    assert read_text(tmp_path / ".notes") == "a"


def test_a_glob_gives_its_files_sorted(tmp_path: Path):
    for name in ("c.log", "a.log", "b.log", "d.txt"):
        make_file(tmp_path / name, name[:1].encode())
    (tmp_path / "folder.log").mkdir()
    assert read_text(tmp_path / "*.log") == "a\nb\nc"
    assert read_text(tmp_path / "[bd].*") == "b\nd"


def test_a_recursive_glob(tmp_path: Path):
    make_file(tmp_path / "x" / "y" / "a.md", b"a")
    make_file(tmp_path / "b.md", b"b")
    assert read_text(tmp_path / "**" / "*.md") == "b\na"


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path):
    make_file(tmp_path / "1.txt", b"no")
    assert read_text(make_file(tmp_path / "[1].txt", b"yes")) == "yes"


def test_gzip_is_recognized_by_the_file_name(tmp_path: Path):
    members = gzip.compress("naïve ".encode()) + gzip.compress(b"text")  # two members, as from `cat` of two files
    assert read_text(make_file(tmp_path / "a.txt.gz", members)) == "naïve text"


def test_standard_input_can_be_read_several_times():
    corpus = open_corpus(["-"], pytest.fail, io.BytesIO("a fôx".encode()))
    assert corpus.names == ("-",)
    assert "".join(corpus.iter_text()) == "a fôx"
    assert "".join(corpus.iter_text(2)) == "a fôx"


def test_a_full_disk_while_standard_input_is_copied(monkeypatch):
    def fail() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    monkeypatch.setattr(tempfile, "tempdir", "/small")
    with pytest.raises(StorageError) as error:
        open_corpus(["-"], pytest.fail, io.BytesIO(b"a"))
    assert str(error.value) == (
        "cannot copy standard input to a temporary file in /small: No space left on device; set TMPDIR to another disk"
    )


def test_the_default_is_the_standard_input_of_the_program(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert read_text("-") == "piped"


def test_two_simultaneous_readers_of_standard_input():
    corpus = open_corpus(["-"], pytest.fail, io.BytesIO(b"abcd"))
    assert list(zip(corpus.iter_text(1), corpus.iter_text(1), strict=True)) == [(c, c) for c in "abcd"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_can_be_read_several_times(tmp_path: Path):
    """As the shell's <(zcat log.gz)."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"through a pipe",))
    writer.start()
    corpus = open_corpus([str(pipe)], pytest.fail)
    writer.join()
    assert ["".join(corpus.iter_text()) for _ in range(2)] == ["through a pipe"] * 2


def test_exit_statuses():
    kinds = (UsageError, DataError, NoInputError, StorageError)
    assert (
        [kind.exit_status for kind in kinds]
        == [2, 65, 66, 74]
        == [
            ExitStatus.USAGE,
            ExitStatus.BAD_DATA,
            ExitStatus.NO_INPUT,
            ExitStatus.IO_ERROR,
        ]
    )


@pytest.mark.parametrize("name", ["missing.txt", "missing/", "no\0name"])
def test_a_missing_file(tmp_path: Path, name):
    assert "no such file or directory" in reading_error(NoInputError, f"{tmp_path}/{name}")


def test_a_path_through_a_file(tmp_path: Path):
    assert "no such file or directory" in reading_error(NoInputError, make_file(tmp_path / "a.txt", b"a") / "b.txt")


def test_a_directory_without_txt_files(tmp_path: Path):
    assert reading_error(NoInputError, tmp_path) == f"{tmp_path}: no *.txt or *.md file in it"
    make_file(tmp_path / "notes.rst", b"no")
    assert reading_error(NoInputError, tmp_path) == (
        f"{tmp_path}: no *.txt or *.md file in it, but *.rst: read them with include '*.rst'"
    )


def test_a_glob_without_matches(tmp_path: Path):
    assert reading_error(NoInputError, tmp_path / "*.txt") == f"{tmp_path}/*.txt: matches no file"


def test_a_glob_that_matches_only_directories(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert "matches no file" in reading_error(NoInputError, tmp_path / "*")


def test_closed_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert reading_error(NoInputError, "-") == "standard input is closed"


def test_standard_input_twice():
    assert "only once" in reading_error(UsageError, "-", "-", stdin=io.BytesIO(b"text"))


def test_no_source():
    assert reading_error(UsageError) == "no corpus given"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],  # truncated
        lambda data: data[: len(data) // 2],
        lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],  # the checksum
        lambda data: data[:12] + bytes([data[12] ^ 0xFF]) + data[13:],  # the content
        lambda data: b"plain text",
        lambda data: data + b"garbage",
    ],
)
def test_damaged_gzip_data(tmp_path: Path, damage):
    whole = gzip.compress(b"The quick brown fox jumps over the lazy dog. " * 400, mtime=0)
    assert "a.gz: damaged gzip data" in reading_error(DataError, make_file(tmp_path / "a.gz", damage(whole)))


def test_a_file_that_is_removed_before_it_is_read(tmp_path: Path):
    path = make_file(tmp_path / "a.txt", b"text")
    corpus = open_corpus([str(path)], pytest.fail)
    path.unlink()
    with pytest.raises(NoInputError, match=r"a\.txt: no such file"):
        list(corpus.iter_text())


def test_a_broken_link_in_a_directory(tmp_path: Path):
    (tmp_path / "a.txt").symlink_to("nowhere")
    assert f"passed over 1 file, unreadable: {tmp_path}/a.txt" in reading_error(NoInputError, tmp_path)


def failing_open(self: Path, *arguments: object) -> None:
    raise PermissionError(13, "Permission denied", str(self))


def test_a_file_without_read_permission(tmp_path: Path, monkeypatch):
    path = make_file(tmp_path / "a.txt", b"text")
    monkeypatch.setattr(Path, "open", failing_open)  # root may read any file
    assert reading_error(StorageError, path) == f"cannot read {path}: Permission denied"


def test_a_file_name_that_is_too_long(tmp_path: Path):
    assert "cannot read" in reading_error(StorageError, tmp_path / ("x" * 5000))


def test_a_read_error_of_standard_input():
    class Failing(io.RawIOBase):
        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

        def readable(self) -> bool:
            return True

    message = reading_error(StorageError, "-", stdin=io.BufferedReader(Failing()))
    assert message == "cannot read standard input: Input/output error"


def test_a_gzip_file_is_decompressed_as_it_is_read(tmp_path: Path):
    """Bounded memory: the first chunk of a 100 MB text is read without decompressing the rest."""
    path = make_file(tmp_path / "a.gz", gzip.compress(b"a" * 10**8, 1)[:-100])  # damaged at its end
    corpus: Corpus = open_corpus([str(path)], pytest.fail)
    assert next(corpus.iter_text(1000)) == "a" * 1000


def test_progress_counts_the_stored_bytes(tmp_path: Path):
    text = ("the quick brown fox – " * 20_000).encode()
    plain = make_file(tmp_path / "plain.txt", text)
    other = text.replace(b"fox", b"dog")
    packed = make_file(tmp_path / "packed.txt.gz", gzip.compress(other))
    corpus = open_corpus([str(plain), str(packed), "-"], pytest.fail, io.BytesIO(text[:-1]))
    whole = text + b"\n" + other + b"\n" + text[:-1]
    sizes: list[int] = []
    with_progress = corpus.with_progress(sizes.append)
    assert with_progress.size == 2 * len(text) - 1 + packed.stat().st_size
    assert "".join(with_progress.iter_text(1000)).encode() == whole
    assert sum(sizes) == with_progress.size
    assert len(sizes) > 1000
    assert "".join(corpus.iter_text()).encode() == whole
    assert with_progress.digest() == hashlib.sha256(whole).hexdigest()
    assert sum(sizes) == with_progress.size  # readings without progress are not counted
