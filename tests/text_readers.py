"""The readers of texts, sound and pictures, which get mutated contents; see mutations.py."""

import bz2
import gzip
import importlib.util
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from corpora import make_file
from mutations import Reader
from quickfox.config.corpus import CorpusOptions
from quickfox.errors import QuickfoxError
from quickfox.media.pictures import parse_picture
from quickfox.media.sound import parse_sound
from quickfox.text.corpus import ignore_notice, open_corpus
from quickfox.text.documents import Document
from signal_files import picture, tone, wav

TEXT = "The quick brown fox – jumps over\r\nthe lazy «dog».\n"
OBJECTS = [{"text": TEXT}, {"text": "a 😀"}, {"text": "\ud83d\ude00 é"}]
PAIRS = [{"prompt": "1 + 1 = ", "completion": "2"}, {"prompt": "", "completion": TEXT}]
CHAT = [{"messages": [{"role": role, "content": TEXT} for role in ("system", "user", "assistant")]}]
TABLE = 'prompt,completion\n"1,1",a\n"a ""b""\nc",é\n'
PAGE = f"<!DOCTYPE html><html><head><meta charset=utf-8><title>A</title></head><body><p>{TEXT}&eacute;<pre> x</pre>"
BOOK = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="O/book.opf"/></rootfiles></container>',
    "O/book.opf": '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
    '<item id="a" href="a%20b.xhtml" media-type="application/xhtml+xml"/></manifest>'
    '<spine><itemref idref="a"/></spine></package>',
    "O/a b.xhtml": f"<html><body><p>{TEXT}</p></body></html>",
}


def json_lines(values: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return data.getvalue()


def text_readers(folder: Path) -> Iterator[Reader]:
    """The readers of all formats of texts and media; they write their files to `folder`, which exists."""

    def read(name: str) -> Callable[[bytes], object]:
        return lambda data: read_corpus(make_file(folder / name, data))

    contents = {
        "text.txt": TEXT.encode(),
        "utf-16.txt": TEXT.encode("utf-16"),
        "texts.jsonl": json_lines(OBJECTS),
        "pairs.jsonl": json_lines(PAIRS),
        "array.json": json.dumps(PAIRS, indent=1).encode(),
        "chat.jsonl": json_lines(CHAT),
        "table.csv": TABLE.encode(),
        "table.tsv": TABLE.replace(",", "\t").encode(),
        "page.html": PAGE.encode(),
        "book.epub": zipped({name: text.encode() for name, text in BOOK.items()}),
        "texts.zip": zipped({"b.txt": TEXT.encode(), "a/c.txt": b"a"}, zipfile.ZIP_STORED),
        "text.txt.gz": gzip.compress(TEXT.encode(), mtime=0),
        "pairs.jsonl.bz2": bz2.compress(json_lines(PAIRS)),
        "table.csv.xz": lzma.compress(TABLE.encode()),
    }
    if importlib.util.find_spec("pyarrow"):
        contents["table.parquet"] = parquet()
    for name, content in contents.items():
        yield Reader(name, content, read(name))
    for member, content in BOOK.items():
        packed = {name: text.encode() for name, text in BOOK.items()}
        yield Reader(
            f"book.epub, {member}",
            content.encode(),
            lambda data, member=member, packed=packed: read("book.epub")(zipped(packed | {member: data})),
        )
    yield Reader("sound.wav", wav(tone(440, 0.01)), parse_sound)
    yield Reader("sound of floats.wav", wav(tone(440, 0.01), bits=32, is_float=True), parse_sound)
    pixels = np.arange(3 * 5 * 4).reshape(3, 5, 4)
    for kind, mode in (("PNG", "RGBA"), ("GIF", "P"), ("JPEG", "RGB")):
        yield Reader(f"picture.{kind.lower()}", picture(pixels, kind, mode), parse_picture)


def read_corpus(path: Path) -> list[str]:
    """Reads a corpus to its end; returns its documents, which are the same in batches, or its chunks."""
    encoding = path.stem if path.stem == "utf-16" else None
    corpus = open_corpus([str(path)], ignore_notice, options=CorpusOptions(encoding=encoding))
    if not corpus.has_documents:
        return list(corpus.iter_text())
    by_batch = documents_or_error(document for batch in corpus.iter_batches() for document in batch.documents())
    one_by_one = documents_or_error(corpus.iter_documents())
    assert type(by_batch) is type(one_by_one), f"{by_batch} in batches, {one_by_one} one by one"
    if isinstance(one_by_one, QuickfoxError):
        raise one_by_one
    assert by_batch == one_by_one
    return one_by_one


def documents_or_error(documents: Iterable[Document]) -> list[str] | QuickfoxError:
    try:
        return [document.text for document in documents]
    except QuickfoxError as error:
        return error


def parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    data = io.BytesIO()
    parquet.write_table(pyarrow.table({"prompt": ["a", "b"], "completion": ["c", TEXT]}), data)
    return data.getvalue()
