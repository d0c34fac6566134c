"""Encodings: the likely one of a text that is not UTF-8, and texts that are read in another."""

from pathlib import Path

import pytest

from corpora import make_file, reading_error
from quickfox.config.corpus import CorpusOptions
from quickfox.errors import DataError
from quickfox.text.corpus import open_corpus
from quickfox.text.encodings import guess_encoding

TEXTS = {
    "cp1252": "It’s a “quote” – isn’t it? Café, naïve, señor, Größe.",
    "shift_jis": "私は猫である。名前はまだない。どこで生れたか頓と見当がつかぬ。",
    "euc_jp": "私は猫である。名前はまだない。どこで生れたか頓と見当がつかぬ。",
    "gb18030": "这是一个用来测试的句子，我们不知道它会说什么。",
    "big5": "這是一個用來測試的句子，我們不知道它會說什麼。",
    "euc_kr": "이것은 시험을 위한 글이다. 그리고 우리는 그것을 읽는다.",
    "cp1251": "Все счастливые семьи похожи друг на друга, каждая несчастлива по-своему.",
    "koi8-r": "Все счастливые семьи похожи друг на друга, каждая несчастлива по-своему.",
    "cp1253": "Αυτό είναι ένα κείμενο για δοκιμή της κωδικοποίησης.",
    "mac_roman": "Il était une fois, à l’école, un élève très gêné qui répétait: déjà vu.",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_likely_encoding(encoding: str) -> None:
    assert guess_encoding(TEXTS[encoding].encode(encoding)) == encoding


def test_damaged_utf_8_is_not_of_another_encoding() -> None:
    assert guess_encoding("Größe, café, naïve".encode() + b"\xff") is None


def test_the_message_has_the_place_and_the_command(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a b.txt", b"one\n" * 100_000 + "It’s".encode("cp1252"))
    assert reading_error(DataError, path) == (
        f"{path}: not UTF-8 at byte 400002 (0x92), line 100001; it is probably cp1252: read it with encoding cp1252, "
        f"or convert it: iconv -f cp1252 -t utf-8 '{path}'"
    )


def test_the_likely_encoding_is_that_of_the_text_around_the_byte(tmp_path: Path) -> None:
    """Near the start of a long file whose other parts are ASCII."""
    path = make_file(tmp_path / "a.txt", "It’s “one”.\n".encode("cp1252") + b"two\n" * 150_000)
    assert "it is probably cp1252" in reading_error(DataError, path)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32", "shift_jis", "utf-8"])
def test_a_text_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    text = "猫 one\r\n" if encoding != "cp1252" else "É one\r\n"
    path = make_file(tmp_path / "a.txt", text.encode(encoding))
    corpus = open_corpus([str(path)], print, options=CorpusOptions(encoding=encoding))
    assert ["".join(corpus.iter_text(size)) for size in (1, 1000)] == [text] * 2
