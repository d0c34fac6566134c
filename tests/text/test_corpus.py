"""Sources of text: every kind that is read, every kind that is refused and how."""

import gzip
import hashlib
import io
import os
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.errors import DataError, ExitStatus, NoInputError, QuickfoxError, StorageError, UsageError
from quickfox.text.corpus import Corpus, open_corpus

BOM = b"\xef\xbb\xbf"

CORPUS_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda t: not t.startswith("\ufeff")
)
"""Text that a corpus keeps as it is: a zero means binary data, and U+FEFF at the start is a byte-order mark."""


def read(*sources: object, stdin: io.BytesIO | None = None) -> str:
    """The whole text of sources that give no cause for a notice."""
    return "".join(open_corpus([str(source) for source in sources], pytest.fail, stdin).iter_text())


def refused(kind: type[QuickfoxError], *sources: object, stdin: io.BytesIO | None = None) -> str:
    """The message, of one line, with which sources are refused, at the latest when they are read."""
    with pytest.raises(kind) as failure:
        read(*sources, stdin=stdin)
    message = str(failure.value)
    assert len(message.splitlines()) == 1
    return message


def make(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# What is read.


def test_a_file_is_read_with_its_line_ends_as_they_are(tmp_path: Path):
    assert read(make(tmp_path / "a.txt", b"one\r\ntwo\rthree\n\n")) == "one\r\ntwo\rthree\n\n"


@given(text=CORPUS_TEXT, chunk_bytes=st.integers(1, 9))
def test_any_text_survives_however_it_is_cut(tmp_path_factory, text, chunk_bytes):
    path = make(tmp_path_factory.mktemp("corpus") / "a.txt", text.encode())
    chunks = list(open_corpus([str(path)], pytest.fail).iter_text(chunk_bytes))
    assert "".join(chunks) == text
    assert all(0 < len(chunk.encode()) <= chunk_bytes + 3 for chunk in chunks)  # a character may wait for its end


def test_files_follow_each_other_in_the_order_given(tmp_path: Path):
    one, two = make(tmp_path / "1", b"one"), make(tmp_path / "2", b"two")
    assert read(two, one, two) == "twoonetwo"
    assert open_corpus([str(two), str(one)], pytest.fail).names == (str(two), str(one))


def test_a_folder_gives_its_texts_sorted_and_none_that_is_hidden(tmp_path: Path):
    make(tmp_path / "b.txt", b"b")
    make(tmp_path / "a" / "z.txt", b"z")
    make(tmp_path / "a" / "deep" / "y.txt", b"y")
    make(tmp_path / "notes.md", b"no")
    make(tmp_path / ".hidden.txt", b"no")
    make(tmp_path / ".git" / "x.txt", b"no")
    corpus = open_corpus([str(tmp_path)], pytest.fail)
    assert corpus.names == tuple(str(tmp_path / name) for name in ("a/deep/y.txt", "a/z.txt", "b.txt"))
    assert "".join(corpus.iter_text()) == "yzb"


def test_a_hidden_folder_is_read_when_it_is_asked_for(tmp_path: Path):
    make(tmp_path / ".notes" / "a.txt", b"a")
    assert read(tmp_path / ".notes") == "a"


def test_a_glob_gives_its_files_sorted(tmp_path: Path):
    for name in ("c.log", "a.log", "b.log", "d.txt"):
        make(tmp_path / name, name[:1].encode())
    (tmp_path / "folder.log").mkdir()
    assert read(tmp_path / "*.log") == "abc"
    assert read(tmp_path / "[bd].*") == "bd"


def test_a_glob_over_folders(tmp_path: Path):
    make(tmp_path / "x" / "y" / "a.md", b"a")
    make(tmp_path / "b.md", b"b")
    assert read(tmp_path / "**" / "*.md") == "ba"


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path):
    make(tmp_path / "1.txt", b"no")
    assert read(make(tmp_path / "[1].txt", b"yes")) == "yes"


def test_gzip_by_name(tmp_path: Path):
    members = gzip.compress("naïve ".encode()) + gzip.compress(b"text")  # two, as `cat` of two files makes
    assert read(make(tmp_path / "a.txt.gz", members)) == "naïve text"


def test_standard_input_is_read_to_its_end_and_can_be_read_again():
    corpus = open_corpus(["-"], pytest.fail, io.BytesIO("a fôx".encode()))
    assert corpus.names == ("-",)
    assert "".join(corpus.iter_text()) == "a fôx"
    assert "".join(corpus.iter_text(2)) == "a fôx"


def test_standard_input_is_the_programs_unless_another_is_given(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert read("-") == "piped"


def test_two_readers_of_standard_input_do_not_disturb_each_other():
    corpus = open_corpus(["-"], pytest.fail, io.BytesIO(b"abcd"))
    assert list(zip(corpus.iter_text(1), corpus.iter_text(1), strict=True)) == [(c, c) for c in "abcd"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_can_be_read_again(tmp_path: Path):
    """As the shell's <(zcat log.gz)."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"through a pipe",))
    writer.start()
    corpus = open_corpus([str(pipe)], pytest.fail)
    writer.join()
    assert ["".join(corpus.iter_text()) for _ in range(2)] == ["through a pipe"] * 2


@given(parts=st.lists(CORPUS_TEXT, min_size=1, max_size=3))
def test_the_digest_is_that_of_the_texts_bytes(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("corpus")
    paths = [str(make(folder / str(i), part.encode())) for i, part in enumerate(parts)]
    assert open_corpus(paths, pytest.fail).digest() == hashlib.sha256("".join(parts).encode()).hexdigest()


# Byte-order marks.


def test_a_byte_order_mark_is_dropped_with_one_notice_a_file(tmp_path: Path):
    one = make(tmp_path / "1.txt", BOM + b"one " + BOM + b"more ")
    two = make(tmp_path / "2.txt.gz", gzip.compress(BOM + b"two"))
    three = make(tmp_path / "3.txt", b" three")
    notices: list[str] = []
    corpus = open_corpus([str(one), str(two), str(three)], notices.append)
    for chunk_bytes in (1, 2, 1000):
        assert "".join(corpus.iter_text(chunk_bytes)) == "one \ufeffmore two three"  # only the one at the start
    assert notices == [f"{path}: dropped the byte-order mark at its start" for path in (one, two)]


def test_a_file_that_is_given_twice_is_one_file_to_the_notice(tmp_path: Path):
    path = make(tmp_path / "1.txt", BOM + b"one")
    notices: list[str] = []
    corpus = open_corpus([str(path), str(path)], notices.append)
    assert "".join(corpus.iter_text()) == "oneone"
    assert len(notices) == 1


def test_the_digest_leaves_out_the_byte_order_mark(tmp_path: Path):
    marked, plain = make(tmp_path / "1", BOM + b"text"), make(tmp_path / "2", b"text")
    digests = {open_corpus([str(path)], lambda notice: None).digest() for path in (marked, plain)}
    assert len(digests) == 1


# What is refused.


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
def test_a_missing_source(tmp_path: Path, name):
    assert "no such file or folder" in refused(NoInputError, f"{tmp_path}/{name}")


def test_a_path_through_a_file(tmp_path: Path):
    assert "no such file or folder" in refused(NoInputError, make(tmp_path / "a.txt", b"a") / "b.txt")


def test_a_folder_without_text(tmp_path: Path):
    make(tmp_path / "notes.md", b"no")
    assert refused(NoInputError, tmp_path) == f"{tmp_path}: no *.txt file in this folder"


def test_a_glob_that_matches_nothing(tmp_path: Path):
    assert refused(NoInputError, tmp_path / "*.txt") == f"{tmp_path}/*.txt: matches no file"


def test_a_glob_that_matches_only_folders(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert "matches no file" in refused(NoInputError, tmp_path / "*")


@pytest.mark.parametrize("content", [b"", BOM])
def test_an_empty_file(tmp_path: Path, content):
    path = make(tmp_path / "a.txt", content)
    with pytest.raises(NoInputError, match=r"a\.txt: empty: there is no text"):
        open_corpus([str(path)], lambda notice: None)


def test_empty_gzip_data_and_an_empty_file(tmp_path: Path):
    empty = make(tmp_path / "a.gz", gzip.compress(b"")), make(tmp_path / "b.txt", b"")
    assert "all 2 files are empty" in refused(NoInputError, *empty)


def test_an_empty_file_among_others_is_no_error(tmp_path: Path):
    assert read(make(tmp_path / "a", b""), make(tmp_path / "b", b"text")) == "text"


def test_empty_standard_input():
    assert refused(NoInputError, "-", stdin=io.BytesIO()) == "standard input: empty: there is no text to read"


def test_closed_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert refused(NoInputError, "-") == "standard input is closed"


def test_standard_input_twice():
    assert "only once" in refused(UsageError, "-", "-", stdin=io.BytesIO(b"text"))


def test_no_source():
    assert refused(UsageError) == "no corpus given"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"caf\xe9!", "byte 3 (0xe9)"),
        (b"\x80", "byte 0 (0x80)"),
        ("é".encode() * 5 + b"\xc3", "byte 10 (0xc3)"),  # cut in the middle of a character
        (b"ab\xed\xa0\x80", "byte 2 (0xed)"),  # a surrogate
        (b"ab\xc0\x80", "byte 2 (0xc0)"),  # a zero in two bytes
        (b"a" * 10_000 + b"\xff", "byte 10000 (0xff)"),  # far from the start
        (BOM + b"a\xff", "byte 4 (0xff)"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 3, 1 << 20])
def test_what_is_not_utf_8_is_refused_with_the_offset_in_the_file(tmp_path: Path, content, where, chunk_bytes):
    path = make(tmp_path / "a.txt", content)
    corpus = open_corpus([str(path)], lambda notice: None)
    with pytest.raises(DataError) as failure:
        list(corpus.iter_text(chunk_bytes))
    assert f"a.txt: not UTF-8 at {where}; convert it" in str(failure.value)


def test_the_offset_counts_from_the_start_of_its_own_file(tmp_path: Path):
    good, bad = make(tmp_path / "good", b"12345"), make(tmp_path / "bad", b"1\xff")
    assert "bad: not UTF-8 at byte 1 " in refused(DataError, good, bad)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["To be, or not to be", "a"])
def test_utf_16_is_named(tmp_path: Path, encoding, text):
    assert "UTF-16 text" in refused(DataError, make(tmp_path / "a.txt", text.encode(encoding)))


def test_utf_16_with_a_mark_is_named_in_any_script(tmp_path: Path):
    assert "UTF-16 text" in refused(DataError, make(tmp_path / "a.txt", "敏捷的狐狸".encode("utf-16")))


def test_utf_32_is_named(tmp_path: Path):
    assert "UTF-32 text" in refused(DataError, make(tmp_path / "a.txt", "To be".encode("utf-32")))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x7fELF\2\1\1\0\0\0\0\0\0\0\0\0\3\0\x3e\0", "binary data"),
        (b"\0", "binary data"),
        (b"text and\0then", "binary data"),
        (gzip.compress(b"text"), "gzip data (its name must end in .gz)"),
        (b"PK\3\4\x14\0", "zip archive or office document"),
        (b"%PDF-1.7\n", "PDF document"),
    ],
)
def test_binary_data_is_named(tmp_path: Path, content, kind):
    message = refused(DataError, make(tmp_path / "a.txt", content))
    assert message.startswith(f"{tmp_path}/a.txt: ")
    assert kind in message
    assert "standard input: " in refused(DataError, "-", stdin=io.BytesIO(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],  # cut short
        lambda data: data[: len(data) // 2],
        lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],  # the checksum
        lambda data: data[:12] + bytes([data[12] ^ 0xFF]) + data[13:],  # the content
        lambda data: b"plain text",
        lambda data: data + b"garbage",
    ],
)
def test_damaged_gzip_data(tmp_path: Path, damage):
    whole = gzip.compress(b"The quick brown fox jumps over the lazy dog. " * 400, mtime=0)
    assert "a.gz: damaged gzip data" in refused(DataError, make(tmp_path / "a.gz", damage(whole)))


def test_a_file_that_goes_away_before_it_is_read(tmp_path: Path):
    path = make(tmp_path / "a.txt", b"text")
    corpus = open_corpus([str(path)], pytest.fail)
    path.unlink()
    with pytest.raises(NoInputError, match=r"a\.txt: no such file"):
        list(corpus.iter_text())


def test_a_link_to_nowhere_in_a_folder(tmp_path: Path):
    (tmp_path / "a.txt").symlink_to("nowhere")
    assert "a.txt: no such file" in refused(NoInputError, tmp_path)


def failing_open(self: Path, *arguments: object) -> None:
    raise PermissionError(13, "Permission denied", str(self))


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch):
    path = make(tmp_path / "a.txt", b"text")
    monkeypatch.setattr(Path, "open", failing_open)  # permissions do not bind a test that runs as root
    assert refused(StorageError, path) == f"cannot read {path}: Permission denied"


def test_a_name_that_is_too_long(tmp_path: Path):
    assert "cannot read" in refused(StorageError, tmp_path / ("x" * 5000))


def test_standard_input_that_fails():
    class Failing(io.RawIOBase):
        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

        def readable(self) -> bool:
            return True

    message = refused(StorageError, "-", stdin=io.BufferedReader(Failing()))
    assert message == "cannot keep standard input in a temporary file: Input/output error"


def test_a_corpus_reads_no_more_than_its_chunks_ask_for(tmp_path: Path):
    """Bounded memory: of a 100 MB text, taking the first chunk decompresses the first chunk only."""
    path = make(tmp_path / "a.gz", gzip.compress(b"a" * 10**8, 1)[:-100])  # damaged at its end
    corpus: Corpus = open_corpus([str(path)], pytest.fail)
    assert next(corpus.iter_text(1000)) == "a" * 1000


def test_many_files_are_opened_without_keeping_their_heads(tmp_path: Path):
    for number in range(300):
        make(tmp_path / f"{number}.txt", b"a" * 8192)
    tracemalloc.start()
    try:
        corpus = open_corpus([str(tmp_path)], pytest.fail)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(corpus.names) == 300
    assert most_bytes < 150 * 8192


def test_who_watches_is_told_of_every_byte_as_it_is_stored(tmp_path: Path):
    text = ("the quick brown fox – " * 20_000).encode()
    plain = make(tmp_path / "plain.txt", text)
    packed = make(tmp_path / "packed.txt.gz", gzip.compress(text))
    corpus = open_corpus([str(plain), str(packed), "-"], pytest.fail, io.BytesIO(text))
    told: list[int] = []
    with_progress = corpus.with_progress(told.append)
    assert with_progress.size == 2 * len(text) + packed.stat().st_size
    assert "".join(with_progress.iter_text(1000)).encode() == 3 * text
    assert sum(told) == with_progress.size
    assert len(told) > 1000
    assert "".join(corpus.iter_text()).encode() == 3 * text
    assert with_progress.digest() == hashlib.sha256(3 * text).hexdigest()
    assert sum(told) == with_progress.size  # those readings were nobody's business
