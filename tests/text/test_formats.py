"""Formats: what each file is recognized as and becomes, and what is wrong with it."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pytest

from quickfox.config.corpus import CorpusOptions
from quickfox.errors import DataError, NoInputError, QuickfoxError
from quickfox.files.json import MAX_JSON_BYTES
from quickfox.text.chat import parse_messages, prompt_parts
from quickfox.text.corpus import Corpus, open_corpus

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="O/book.opf"/></rootfiles></container>'
)
PACKAGE = (
    '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
    '<item id="a" href="one.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="b" href="chapter%20two.xhtml" media-type="application/xhtml+xml"/></manifest>'
    '<spine><itemref idref="b"/><itemref idref="a"/></spine></package>'
)
BOOK = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": CONTAINER,
    "O/book.opf": PACKAGE,
    "O/one.xhtml": "<html><head><title>No</title></head><body><p>The end.</p></body></html>",
    "O/chapter two.xhtml": "<?xml version='1.0'?><html><body><h1>É</h1><p>It <i>be</i>gins.</p></body></html>",
}


def open_file(folder: Path, name: str, content: str | bytes, **options: Any) -> Corpus:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_corpus([str(path)], lambda line: None, options=CorpusOptions(**options))


def documents(corpus: Corpus) -> list[str]:
    """The documents, with their learned parts in brackets."""
    return [
        "".join(f"[{text}]" if is_learned else text for text, is_learned in document.parts)
        for document in corpus.iter_documents()
    ]


def failure(folder: Path, name: str, content: str | bytes, **options: Any) -> str:
    """The message of opening and reading a file, which fails with status 65."""
    with pytest.raises(DataError) as caught:
        "".join(open_file(folder, name, content, **options).iter_text())
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{folder}/")


def zipped(members: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


OBJECTS = [{"text": "a b"}, {"text": "c"}]
JSON_LINES = "".join(json.dumps(value) + "\n" for value in OBJECTS)


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("x.ndjson", JSON_LINES, {}, ["[a b]", "[c]"]),
        ("x.JSONL", JSON_LINES, {}, ["[a b]", "[c]"]),
        ("x.json", JSON_LINES, {}, ["[a b]", "[c]"]),
        ("x.json", json.dumps(OBJECTS, indent=2), {}, ["[a b]", "[c]"]),
        ("x.json", "[]", {}, []),
        ("x", JSON_LINES, {}, ["[a b]", "[c]"]),
        ("x.JSON.BZ2", bz2.compress(JSON_LINES.encode()), {}, ["[a b]", "[c]"]),
        ("x.csv.xz", lzma.compress(b"text\na\nb\n"), {}, ["[a]", "[b]"]),
        ("x.jsonl", '{"body": "a", "text": "b"}', {"column": "body"}, ["[a]"]),
        ("x.jsonl", '{"q": "a", "a": "b"}', {"prompt_column": "q", "completion_column": "a"}, ["a[b]"]),
        (
            "x.csv",
            '\ufeffname;note\r\n"Ann ""x""\r\nB";1\r\n\r\nBob;2\r\n',
            {"column": "name"},
            ['[Ann "x"\r\nB]', "[Bob]"],
        ),
        ("x.csv", "prompt,completion\n1+1=,2\n", {}, ["1+1=[2]"]),
        ("x.csv", "name\nAnn\nBob", {}, ["[Ann]", "[Bob]"]),
        ("x.csv", "text\rold\rMac\r", {}, ["[old]", "[Mac]"]),
        ("x.tsv", "id\ttext\n1\ta, b\n", {}, ["[a, b]"]),
        ("x", "id,text\n1,a\n", {}, ["[a]"]),
        ("x.txt", "a|b\n1|2\n", {"format": "csv", "column": "b"}, ["[2]"]),
        ("x.txt", "one\n\n two\r\nthree", {"lines": True}, ["[one]", "[ two]", "[three]"]),
    ],
)
def test_documents(
    tmp_path: Path, name: str, content: str | bytes, options: dict[str, Any], expected: list[str]
) -> None:
    assert documents(open_file(tmp_path, name, content, **options)) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.txt", JSON_LINES, JSON_LINES),  # as its name says
        ("x.PY", "[1]\n", "[1]\n"),
        ("x", "{ a brace }", "{ a brace }"),
        ("x", '{"a" begins the text', '{"a" begins the text'),
        ("x", "first, second\n", "first, second\n"),
        (
            "x.htm",
            "<p>a<script>no</script> b<br>c&amp;d<ul><li>1<li>2</ul><pre> x\n  y</pre>",
            "a b\nc&d\n\n1\n2\n\n x\n  y\n",
        ),
        ("x", "<!DOCTYPE html><title>no</title><body>yes</body>", "no\nyes\n"),
        ("x.html", "<head><title>no</title><script>if (a<p) b</script><body><p>yes", "yes\n"),  # </head> is optional
        ("x.html", "<head><noscript><p>no</p></noscript><title>no</title><p>yes", "yes\n"),
        ("x.html", b'<meta charset="windows-1252"><p>caf\xe9', "café\n"),
        ("x.html", "<p>a<![if b]>c<![]x>d", "acd\n"),
        ("x.html", b"<meta charset=hex><p>caf\xc3\xa9", "café\n"),
        ("x.epub", zipped(BOOK), "É\n\nIt begins.\n\nThe end.\n\n"),
        ("x.zip", zipped({"only.any": "text"}), "text"),
        ("x.zip", zipped({"b/B.TXT": "b", "a.md": "a", "__MACOSX/a.txt": "no", "c.png": "no"}), "a\nb"),
    ],
)
def test_plain_text(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    assert "".join(open_file(tmp_path, name, content).iter_text()) == expected


def test_each_turn_of_the_assistant_is_learned(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "So long"},
    ]
    corpus = open_file(tmp_path, "x.jsonl", json.dumps({"messages": messages}))
    assert corpus.is_chat
    [document] = corpus.iter_documents()
    assert documents(corpus) == [
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n[Hello<|end|>]\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\n[So long<|end|>]"
    ]
    assert (document.completion, document.is_end_learned) == ("So long<|end|>", True)
    *parts, _ = document.parts
    assert prompt_parts(parse_messages(messages[:-1], "")) == [text for text, _ in parts]


def test_the_format_is_told_in_one_line(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(f"text\n{name}\n")
    lines: list[str] = []
    open_corpus([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], lines.append)
    open_corpus(["-"], lines.append, io.BytesIO(gzip.compress(JSON_LINES.encode())))
    open_corpus([str(tmp_path / "a.csv")], lines.append, options=CorpusOptions(format="text"))
    assert lines == [
        f"{tmp_path}/a.csv and 1 more: read as comma-separated values (--format csv)",
        "standard input: read as JSON (--format jsonl)",
    ]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("x.csv", "a,b\n1,2\n", {}, "x.csv, line 1: 'text' is not among its columns 'a', 'b': name one with column"),
        (
            "x.csv",
            "a,b\n1,2\n",
            {"column": "c"},
            "line 1: 'c' is not among its columns 'a', 'b'",
        ),
        ("x.csv", "a,a\n1,2\n", {"column": "a"}, "x.csv, line 1: 2 columns have the name 'a'"),
        ("x.csv", 'text,b\n"1\n",2\n3\n', {}, "x.csv, line 4: 1 fields, but the header has 2"),
        ("x.csv", 'text,b\n"1,2\n3,4\n', {}, "x.csv, line 3: not a table of separated values: unexpected end of data"),
        ("x.csv", "text,b\n1,2\n,3\n", {}, "x.csv, line 3: the document is empty"),
        ("x.json", '[{"text": "a"},\n{"text": "b"}\n', {}, "x.json, line 3: not valid JSON: the array does not end"),
        ("x.json", '[{"text": "a"},\n', {}, "x.json, line 2: not valid JSON: the array does not end"),
        ("x.json", '[{"text": "a"}\n{"text": "b"}]', {}, "x.json, line 2: not valid JSON: expected ',' or ']'"),
        ("x.json", '[{"text": "a"}] and more', {}, "x.json, line 1: not valid JSON: text after the end"),
        ("x.json", '[{"text": "a"},\n\n{"text": 1}]', {}, "x.json, line 3: 'text' must be a string"),
        (
            "x.json",
            '[{"text": "a"}, {"text": "' + "b" * 3 * MAX_JSON_BYTES,
            {},
            "line 1: larger than the limit",
        ),
        ("x.json", '{"a": 1,\n"b": 2}', {}, "x.json, line 1: not valid JSON"),
        ("x", JSON_LINES + "plain text\n", {}, "x, line 3: not valid JSON"),
        ("x.jsonl", '{"messages": []}', {}, "x.jsonl, line 1: 'messages' must be a list"),
        (
            "x.jsonl",
            '{"messages": [{"role": "user", "content": "a"}]}',
            {},
            "no message of the role 'assistant'",
        ),
        (
            "x.jsonl",
            '{"messages": [{"role": "user", "content": 1}]}',
            {},
            "message 1: 'content' must be a string",
        ),
        ("x.jsonl", '{"messages": [{"role": "user"}]}', {}, "message 1: expected an object with 'role' and 'content'"),
        ("x.jsonl", '{"messages": [{"role": "<", "content": ""}]}', {}, "message 1: 'role' must be a word"),
        (
            "x.jsonl",
            '{"messages": [{"role": "assistant", "content": "<|end|>"}]}',
            {},
            "message 1: the content has '<|end|>', which marks turns",
        ),
        ("x.epub", zipped(BOOK)[:-40], {}, "damaged zip"),
        (
            "x.epub",
            zipped({**BOOK, "META-INF/container.xml": "<a"}),
            {},
            "damaged EPUB: META-INF/container.xml",
        ),
        ("x.epub", zipped({k: v for k, v in BOOK.items() if k != "O/one.xhtml"}), {}, "damaged EPUB: it has no O/one"),
        (
            "x.epub",
            zipped({**BOOK, "META-INF/encryption.xml": '<CipherReference URI="O/one.xhtml"/>'}),
            {},
            "x.epub: O/one.xhtml is encrypted",
        ),
        ("x.zip", zipped({"a.txt": "a" * 2**24}), {}, "x.zip: unpacks to more than 1,000 times its size"),
        ("x.txt.xz", lzma.compress(b"a" * 2**24), {}, "x.txt.xz: unpacks to more than 1,000 times its size"),
        ("x.txt.bz2", bz2.compress(b"some text")[:-5], {}, "x.txt.bz2: damaged bzip2 data"),
        ("x.docx", zipped({"[Content_Types].xml": ""}), {}, "x.docx: an office document"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str | bytes, options: dict[str, Any], message: str) -> None:
    assert message in failure(tmp_path, name, content, **options)


def test_an_encrypted_member(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.txt": "text", "b.txt": "text"}))
    data[6] |= 1  # the flag in the first member's header, and in the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "a.txt is encrypted" in failure(tmp_path, "x.zip", bytes(data))


def test_a_member_of_an_archive_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zipped({"in/a.txt": "a", "in/b.csv": "text\nb\n"}))
    corpus = open_corpus([str(tmp_path / "x.zip" / "in/b.csv")], lambda line: None)
    assert documents(corpus) == ["[b]"]
    assert corpus.names == (f"{tmp_path}/x.zip/in/b.csv",)
    with pytest.raises(NoInputError, match="no such file"):
        open_corpus([str(tmp_path / "x.zip" / "in/c.csv")], print)


def test_json_arrays_do_not_depend_on_the_chunks(tmp_path: Path) -> None:
    texts = ["a" * 300_000, '"\\u00e9"', "]},{[", ""]
    content = json.dumps([{"text": text, "n": [1.5, None, {"a": True}]} for text in texts[:3]], indent=1)
    assert documents(open_file(tmp_path, "x.json", content)) == [f"[{text}]" for text in texts[:3]]


def test_the_digest_of_documents_is_of_their_files(tmp_path: Path) -> None:
    first, same = (open_file(tmp_path, name, JSON_LINES) for name in ("a.jsonl", "b.json"))
    other = open_file(tmp_path, "c.jsonl", JSON_LINES.replace("}", ', "id": 1}'))
    assert first.digest() == same.digest() != other.digest()


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": [1, 2], "text": ["a", "b"]}), tmp_path / "x.parquet")
    corpus = open_corpus([str(tmp_path / "x.parquet")], lambda line: None)
    assert documents(corpus) == ["[a]", "[b]"]
    corpus = open_corpus([str(tmp_path / "x.parquet")], lambda line: None, options=CorpusOptions(column="id"))
    with pytest.raises(DataError, match=r"x\.parquet, row 1: 'id' must be a text, not int"):
        list(corpus.iter_documents())
    assert "damaged Parquet data" in failure(tmp_path, "y.parquet", b"PAR1 not at all")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lines": True, "format": "csv"}, "lines and format csv exclude each other"),
        ({"column": "a", "prompt_column": "b", "completion_column": "c"}, "exclude each other"),
        ({"prompt_column": "b"}, "prompt_column needs completion_column"),
        ({"format": "html", "column": "a"}, "column is for tables and JSON lines, not for html"),
        ({"encoding": "base64"}, "encoding 'base64' is unknown"),
        ({"encoding": "no such"}, "encoding 'no such' is unknown"),
        ({"format": "pdf"}, "format must be one of"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(QuickfoxError, match=message) as caught:
        CorpusOptions(**options)
    assert caught.value.exit_status == 2
