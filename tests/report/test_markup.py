"""Markup: everything is escaped once, unless it is markup already."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from quickfox.report.markup import Markup, element, escape, join, table


def test_texts_and_attributes_are_escaped_and_markup_is_not() -> None:
    inner = element("b", "<&>", title='"x"')
    assert inner == '<b title="&quot;x&quot;">&lt;&amp;&gt;</b>'
    assert element("p", inner, " & ", None) == f"<p>{inner} &amp; </p>"
    assert escape(inner) is inner
    assert isinstance(join(["a", inner]), Markup)


def test_attributes_are_named_as_in_html() -> None:
    assert element("input", type="radio", checked=True, for_=None) == '<input type="radio" checked>'
    assert element("i", class_="a", aria_label="b") == '<i class="a" aria-label="b"></i>'


def test_a_table_names_its_rows_and_columns() -> None:
    html = table("A & B", ["x", "y"], [["<1>", 2]])
    assert '<th scope="col">x</th>' in html
    assert '<th scope="row">&lt;1&gt;</th><td>2</td>' in html
    assert "<caption>A &amp; B</caption>" in html


@given(st.text())
def test_any_text_is_one_text_and_no_tag(text: str) -> None:
    class Reader(HTMLParser):
        tags = 0
        data = ""

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags += 1

        def handle_data(self, data: str) -> None:
            self.data += data

    reader = Reader()
    reader.feed(element("p", text.encode(errors="replace").decode()))
    reader.close()
    assert reader.tags == 1
    assert len(reader.data) == len(text)
