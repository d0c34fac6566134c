"""What is read of folders and archives, and what is passed over and told."""

import errno
import gzip
import lzma
import os
from pathlib import Path
from typing import IO

import pytest

from corpora import make_file
from quickfox.config.corpus import CorpusOptions
from quickfox.errors import NoInputError
from quickfox.text.corpus import open_corpus
from quickfox.text.sources import FileSource


def test_each_kind_that_is_passed_over_has_one_line(tmp_path: Path) -> None:
    contents = {
        "A.TXT": b"END",
        "same.txt": b"END",
        "x.jsonl": b"x",
        "y.csv": b"y",
        "empty.md": b"",
        "sub/empty.txt": b"",
    }
    for name, content in contents.items():
        make_file(tmp_path / name, content)
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "sub" / "up").symlink_to("..")
    (tmp_path / "broken.txt").symlink_to("nowhere")
    (tmp_path / "link.txt").symlink_to("A.TXT")
    lines: list[str] = []
    corpus = open_corpus([str(tmp_path), str(tmp_path / "A.TXT")], lines.append)
    assert corpus.names == (f"{tmp_path}/A.TXT",)
    assert [line.replace(f"{tmp_path}/", "") for line in lines] == [
        "passed over 2 files, which --include does not name: x.jsonl, y.csv",
        "passed over 1 file, not regular: pipe.txt",
        "passed over 1 file, a link to a folder that is read already: sub/up",
        "passed over 1 file, unreadable: broken.txt",
        "passed over 2 files, empty: empty.md, sub/empty.txt",
        "passed over 3 files, of the same content as another: link.txt (as A.TXT), same.txt (as A.TXT), A.TXT",
    ]


def test_a_compressed_copy_is_a_duplicate(tmp_path: Path) -> None:
    make_file(tmp_path / "a.txt", b"END")
    make_file(tmp_path / "b.txt.gz", gzip.compress(b"END"))
    make_file(tmp_path / "c.txt.gz", gzip.compress(b"another END"))
    make_file(tmp_path / "d.txt.xz", lzma.compress(b"another END"))
    lines: list[str] = []
    corpus = open_corpus([str(tmp_path)], lines.append)
    assert corpus.names == (f"{tmp_path}/a.txt", f"{tmp_path}/c.txt.gz")
    assert [line.replace(f"{tmp_path}/", "") for line in lines] == [
        "passed over 2 files, of the same content as another: b.txt.gz (as a.txt), d.txt.xz (as c.txt.gz)"
    ]


def test_files_of_other_names_are_included(tmp_path: Path) -> None:
    for name in ("a.py", "b.rst", "c.txt"):
        make_file(tmp_path / name, name.encode())
    options = CorpusOptions(include=("*.PY", "b*"))
    assert "".join(open_corpus([str(tmp_path)], print, options=options).iter_text()) == "a.py\nb.rst"


def test_a_folder_has_the_files_of_the_requested_format(tmp_path: Path) -> None:
    make_file(tmp_path / "a.csv", b"text\na\n")
    make_file(tmp_path / "a.txt", b"no")
    corpus = open_corpus([str(tmp_path)], print, options=CorpusOptions(format="csv"))
    assert [document.text for document in corpus.iter_documents()] == ["a"]
    with pytest.raises(NoInputError, match=r"no \*\.parquet file in it, but \*\.csv, \*\.txt: read them with include"):
        open_corpus([str(tmp_path)], print, options=CorpusOptions(format="parquet"))


def test_the_files_of_a_record_are_all_read(tmp_path: Path) -> None:
    names = [str(make_file(tmp_path / name, b"END")) for name in ("a.txt", "b.txt")]
    options = CorpusOptions(separator="")
    corpus = open_corpus([*names, names[0]], pytest.fail, options=options, is_recorded=True)
    assert "".join(corpus.iter_text()) == "ENDENDEND"


def test_an_unreadable_file_is_passed_over_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        make_file(tmp_path / name, name.encode())
    open_file = FileSource.open

    def refuse(source: FileSource) -> IO[bytes]:
        if source.path.name == "b.txt":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_file(source)

    monkeypatch.setattr(FileSource, "open", refuse)
    lines: list[str] = []
    assert open_corpus([str(tmp_path)], lines.append).names == (f"{tmp_path}/a.txt", f"{tmp_path}/c.txt")
    assert lines == [f"passed over 1 file, unreadable: {tmp_path}/b.txt"]
