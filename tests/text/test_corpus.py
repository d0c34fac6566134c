"""Decoding of a corpus: UTF-8 in chunks, byte-order marks, and what is not text."""

import gzip
import hashlib
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora import BOM, make_file, read_text, reading_error
from quickfox.config.corpus import CorpusOptions
from quickfox.errors import DataError, NoInputError
from quickfox.text.corpus import open_corpus

CORPUS_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda text: not text.startswith("\ufeff")
)
"""Text that a corpus leaves unchanged: no zero, which means binary data, and no byte-order mark at the start."""


def test_line_ends_are_unchanged(tmp_path: Path):
    assert read_text(make_file(tmp_path / "a.txt", b"one\r\ntwo\rthree\n\n")) == "one\r\ntwo\rthree\n\n"


@given(text=CORPUS_TEXT, chunk_bytes=st.integers(1, 9))
def test_the_text_does_not_depend_on_the_chunk_size(tmp_path_factory, text, chunk_bytes):
    path = make_file(tmp_path_factory.mktemp("corpus") / "a.txt", text.encode())
    chunks = list(open_corpus([str(path)], pytest.fail).iter_text(chunk_bytes))
    assert "".join(chunks) == text
    assert all(0 < len(chunk.encode()) <= chunk_bytes + 3 for chunk in chunks)  # a character may wait for its end


@given(parts=st.lists(CORPUS_TEXT, min_size=1, max_size=3, unique=True), separator=st.sampled_from(["", "\n\n", "–"]))
def test_digest_is_the_sha256_of_the_text(tmp_path_factory, parts, separator):
    folder = tmp_path_factory.mktemp("corpus")
    paths = [str(make_file(folder / f"{i}.txt", part.encode())) for i, part in enumerate(parts)]
    corpus = open_corpus(paths, pytest.fail, options=CorpusOptions(separator=separator))
    assert "".join(corpus.iter_text()) == separator.join(parts)
    assert corpus.digest() == hashlib.sha256(separator.join(parts).encode()).hexdigest()


def test_a_byte_order_mark_is_removed_with_one_notice_per_file(tmp_path: Path):
    one = make_file(tmp_path / "1.txt", BOM + b"one " + BOM + b"more\n")
    two = make_file(tmp_path / "2.txt.gz", gzip.compress(BOM + b"two"))
    three = make_file(tmp_path / "3.txt", b"three")
    notices: list[str] = []
    corpus = open_corpus([str(one), str(two), str(three)], notices.append)
    for chunk_bytes in (1, 2, 1000):
        assert "".join(corpus.iter_text(chunk_bytes)) == "one \ufeffmore\ntwo\nthree"  # only the one at the start
    assert notices == [f"{path}: removed the byte-order mark at its start" for path in (one, two)]


def test_a_boundary_is_kept_between_files(tmp_path: Path):
    ends = ("A", "B\n", "C\r\n", "D\r", "E", BOM.decode() + "F")
    paths = [make_file(tmp_path / f"{number}.txt", end.encode()) for number, end in enumerate(ends)]
    corpus = open_corpus([str(path) for path in paths], print)
    for chunk_bytes in (1, 2, 1000):
        assert "".join(corpus.iter_text(chunk_bytes)) == "A\nB\nC\r\nD\rE\nF"


def test_digest_ignores_the_byte_order_mark(tmp_path: Path):
    marked, plain = make_file(tmp_path / "1", BOM + b"text"), make_file(tmp_path / "2", b"text")
    digests = {open_corpus([str(path)], lambda notice: None).digest() for path in (marked, plain)}
    assert len(digests) == 1


@pytest.mark.parametrize("content", [b"", BOM])
def test_an_empty_file(tmp_path: Path, content):
    path = make_file(tmp_path / "a.txt", content)
    with pytest.raises(NoInputError, match=r"a\.txt: empty: there is no text"):
        open_corpus([str(path)], lambda notice: None)


def test_empty_gzip_data_and_an_empty_file(tmp_path: Path):
    empty = make_file(tmp_path / "a.gz", gzip.compress(b"")), make_file(tmp_path / "b.txt", b"")
    assert "all 2 files are empty" in reading_error(NoInputError, *empty)


def test_an_empty_file_and_a_text(tmp_path: Path):
    empty, full = make_file(tmp_path / "a", b""), make_file(tmp_path / "b", b"text")
    notices: list[str] = []
    assert "".join(open_corpus([str(empty), str(full)], notices.append).iter_text()) == "text"
    assert notices == [f"passed over 1 file, empty: {empty}"]


def test_empty_standard_input():
    assert reading_error(NoInputError, "-", stdin=io.BytesIO()) == "standard input: empty: there is no text to read"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"caf\xe9!", "byte 3 (0xe9)"),
        (b"\x80", "byte 0 (0x80)"),
        ("é".encode() * 5 + b"\xc3", "byte 10 (0xc3)"),  # cut within a character
        (b"ab\xed\xa0\x80", "byte 2 (0xed)"),  # a surrogate
        (b"ab\xc0\x80", "byte 2 (0xc0)"),  # a zero in two bytes
        (b"a" * 10_000 + b"\xff", "byte 10000 (0xff)"),  # not in the first chunk
        (BOM + b"a\xff", "byte 4 (0xff)"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 3, 1 << 20])
def test_invalid_utf_8_is_reported_with_its_offset(tmp_path: Path, content, where, chunk_bytes):
    path = make_file(tmp_path / "a.txt", content)
    corpus = open_corpus([str(path)], lambda notice: None)
    with pytest.raises(DataError) as failure:
        list(corpus.iter_text(chunk_bytes))
    assert f"a.txt: not UTF-8 at {where}, line 1" in str(failure.value)


def test_the_offset_is_relative_to_the_file(tmp_path: Path):
    good, bad = make_file(tmp_path / "good", b"12345"), make_file(tmp_path / "bad", b"1\xff")
    assert "bad: not UTF-8 at byte 1 " in reading_error(DataError, good, bad)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["To be, or not to be", "a"])
def test_utf_16_is_recognized(tmp_path: Path, encoding, text):
    assert "UTF-16 text" in reading_error(DataError, make_file(tmp_path / "a.txt", text.encode(encoding)))


def test_utf_16_with_a_byte_order_mark_is_recognized_in_any_script(tmp_path: Path):
    assert "UTF-16 text" in reading_error(DataError, make_file(tmp_path / "a.txt", "敏捷的狐狸".encode("utf-16")))


def test_utf_32_is_recognized(tmp_path: Path):
    assert "UTF-32 text" in reading_error(DataError, make_file(tmp_path / "a.txt", "To be".encode("utf-32")))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x7fELF\2\1\1\0\0\0\0\0\0\0\0\0\3\0\x3e\0", "binary data"),
        (b"\0", "binary data, not text: a zero byte in line 1, at character 0"),
        (b"text\nand\0then", "a zero byte in line 2, at character 8; remove zero bytes with: tr -d '\\000' < "),
        (b"text " * 9999 + b"\0", "a zero byte in line 1, at character 49995"),  # not in the first chunk
        (b"PK\3\4\x14\0", "zip archive or office document"),
        (b"%PDF-1.7\n", "PDF document"),
    ],
)
def test_binary_data_is_recognized(tmp_path: Path, content, kind):
    message = reading_error(DataError, make_file(tmp_path / "a.txt", content))
    assert message.startswith(f"{tmp_path}/a.txt: ")
    assert kind in message
    assert "standard input: " in reading_error(DataError, "-", stdin=io.BytesIO(content))


def test_opening_many_files_needs_little_memory(tmp_path: Path):
    for number in range(300):
        make_file(tmp_path / f"{number}.txt", b"%04d" % number * 2048)
    tracemalloc.start()
    try:
        corpus = open_corpus([str(tmp_path)], pytest.fail)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(corpus.names) == 300
    assert most_bytes < 150 * 8192
