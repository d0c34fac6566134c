"""Plain text of HTML and of EPUB books.

Block elements begin a line, white space is collapsed except in `pre`, scripts and styles are left out (HTML Living
Standard, section 15.3, rendering of flow content). Independent of where files come from.
"""

import codecs
import posixpath
import re
import zipfile
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import IO
from urllib.parse import unquote
from xml.etree import ElementTree

from quickfox.config.corpus import is_text_encoding
from quickfox.errors import DataError
from quickfox.files.json import MAX_JSON_BYTES
from quickfox.text.sources import translate_damage

_HIDDEN = frozenset(("head", "script", "style", "template", "noscript", "svg", "math", "iframe", "object"))

_IN_HEAD = frozenset(("head", "title", "meta", "link", "base", "style", "script", "template", "noscript"))
"""Elements that do not end a head."""

_WITH_ELEMENTS = ("template", "noscript")
"""Elements of a head that have any others."""

_PARAGRAPHS = frozenset(
    (
        *("p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "dl", "table", "figure", "section"),
        *("article", "header", "footer", "main", "nav", "aside", "hr", "address", "form", "fieldset", "details"),
    )
)
"""Elements with an empty line before and after them."""

_LINES = frozenset(("br", "div", "li", "tr", "dt", "dd", "caption", "figcaption", "option", "summary", "body", "title"))
"""Elements that begin a line."""

_SPACE = re.compile(r"[ \t\n\r\f]+")

_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?([A-Za-z0-9_.:-]+)""")

_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_PACKAGE = "{http://www.idpf.org/2007/opf}"


def declared_encoding(head: bytes) -> str | None:
    """The encoding that the first bytes of an HTML file declare; None: none, or none of text, as `hex`."""
    match = _CHARSET.search(head)
    if match is None or head.startswith(codecs.BOM_UTF8):
        return None
    name = match[1].decode()
    return codecs.lookup(name).name if is_text_encoding(name) else None


def read_html(chunks: Iterable[str]) -> Iterator[str]:
    """The text of an HTML document, in chunks; it ends with a line feed."""
    parser = _TextParser()
    for chunk in chunks:
        parser.feed(chunk)
        if len(parser.rawdata) > MAX_JSON_BYTES:
            raise DataError("an HTML element does not end")
        yield parser.take()
    parser.close()
    yield parser.take()
    if parser.has_text:
        yield "\n"


class _TextParser(HTMLParser):
    """Collects the text between the tags.

    Attributes:
        has_text: whether there is any text so far.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.has_text = False
        self._parts: list[str] = []
        self._line_feeds = 0  # to write before the next text
        self._has_space = False  # a space is to be written before the next text on the line
        self._hidden: str | None = None  # the outermost hidden element
        self._hidden_depth = 0
        self._depth_in_head = 0  # of elements with others
        self._pre_depth = 0

    def take(self) -> str:
        """The text since the last call."""
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """The end of `<![CDATA[...]]>`, or of `<![...>`, which is a comment in HTML and an error in Python's parser."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if self._hidden == "head" and tag not in _IN_HEAD and not self._depth_in_head:  # its end tag may be left out
            self._hidden, self._hidden_depth = None, 0
        self._depth_in_head += self._hidden == "head" and tag in _WITH_ELEMENTS
        if self._hidden is None and tag in _HIDDEN:
            self._hidden = tag
        self._hidden_depth += tag == self._hidden
        self._begin_block(tag)
        self._pre_depth += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if self._hidden is None:
            self._begin_block(tag)  # <br/>, or <title/> and <script/> of XHTML, which are empty

    def handle_endtag(self, tag: str) -> None:
        self._depth_in_head -= self._depth_in_head > 0 and tag in _WITH_ELEMENTS
        self._hidden_depth -= tag == self._hidden
        if self._hidden_depth == 0 or tag == "head":
            self._hidden, self._hidden_depth = None, 0
        if tag != "br":
            self._begin_block(tag)
        self._pre_depth = max(0, self._pre_depth - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if self._hidden is not None:
            return
        if not self._pre_depth:
            has_space_before, has_space_after = data[:1].isspace(), data[-1:].isspace()
            data = _SPACE.sub(" ", data).strip(" ")
            self._has_space = self._has_space or has_space_before
            if not data:
                return
            self._write(data)
            self._has_space = has_space_after
        elif data:
            self._write(data)

    def _write(self, text: str) -> None:
        if self.has_text:
            self._parts.append("\n" * self._line_feeds or " " * self._has_space)
        self._parts.append(text)
        self._line_feeds, self._has_space, self.has_text = 0, False, True

    def _begin_block(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._line_feeds = max(self._line_feeds, 2)
        elif tag == "br":
            self._line_feeds += 1
        elif tag in _LINES:
            self._line_feeds = max(self._line_feeds, 1)
        elif tag in ("td", "th"):
            self._has_space = True


def read_epub(file: IO[bytes], name: str) -> Iterator[str]:
    """The text of an EPUB book (EPUB 3.3, sections 4 and 5), chapter by chapter in reading order.

    Raises:
        DataError: the book is damaged or encrypted; the message begins with `name`.
    """
    with translate_damage(name, "EPUB"), zipfile.ZipFile(file) as archive:
        chapters = _list_chapters(archive, name)
        encrypted = _encrypted_members(archive, name)
        for chapter in chapters:
            if chapter in encrypted:
                raise DataError(f"{name}: {chapter:.100} is encrypted, so the book cannot be read")
            data = _read_member(archive, chapter, name)
            text = data.decode(declared_encoding(data[:1024]) or "utf-8", errors="strict")
            yield from read_html([text.removeprefix("\ufeff")])
            yield "\n"


def _list_chapters(archive: zipfile.ZipFile, name: str) -> list[str]:
    """The members of the book's text, in reading order."""
    container = _parse_xml(archive, "META-INF/container.xml", name)
    root = container.find(f".//{_CONTAINER}rootfile")
    package_path = "" if root is None else root.get("full-path", "")
    package = _parse_xml(archive, package_path, name)
    folder = posixpath.dirname(package_path)
    items = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        for item in package.iter(f"{_PACKAGE}item")
        if item.get("media-type") in ("application/xhtml+xml", "text/html")
    }
    return [
        items[reference] for entry in package.iter(f"{_PACKAGE}itemref") if (reference := entry.get("idref")) in items
    ]


def _encrypted_members(archive: zipfile.ZipFile, name: str) -> set[str]:
    """The members that META-INF/encryption.xml lists, which include fonts."""
    if "META-INF/encryption.xml" not in archive.namelist():
        return set()
    data = _read_member(archive, "META-INF/encryption.xml", name).decode(errors="replace")
    return {unquote(uri) for uri in re.findall(r'CipherReference[^>]*\bURI="([^"]*)"', data)}


def _parse_xml(archive: zipfile.ZipFile, member: str, name: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(_read_member(archive, member, name))
    except ElementTree.ParseError as error:
        raise DataError(f"{name}: damaged EPUB: {member:.100}: {error}") from None


def _read_member(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise DataError(f"{name}: damaged EPUB: it has no {member or 'package':.100}") from None
    if info.file_size > MAX_JSON_BYTES:
        raise DataError(f"{name}: {member:.100} is larger than the limit of {MAX_JSON_BYTES} bytes")
    return archive.read(info)
