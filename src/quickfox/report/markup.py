"""HTML and SVG elements as text in which everything is escaped unless it is an element itself.

All markup of a report is made by `element`, so that no text of a corpus, file name or prompt can become markup.
"""

import html
from collections.abc import Iterable, Sequence

_VOID = {"meta", "input", "br", "hr"}
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
"""Control characters, which HTML cannot contain -> their pictures."""


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """A value as text in markup; markup is returned unchanged."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value).translate(_CONTROLS)))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element of HTML or SVG.

    Args:
        tag: its name.
        children: markup or texts, which are escaped; None is left out.
        attributes: by name, with `_` for `-` and a `_` after a keyword of Python; None is left out, True has no value.
    """
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    parts = [
        f" {names[name]}" if value is True else f' {names[name]}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    ]
    start = f"<{tag}{''.join(parts)}>"
    return Markup(start) if tag in _VOID else Markup(f"{start}{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Markup:
    """Several pieces of markup or text, one after the other."""
    return Markup("".join(escape(child) for child in children if child is not None))


def quote(text: object, **attributes: object) -> Markup:
    """A text of the corpus or of the model, whose direction is that of its first letter."""
    return element("span", text, dir="auto", **attributes)


def table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """A table whose first column names the rows; wide tables scroll."""
    head = element("tr", *(element("th", cell, scope="col") for cell in header))
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    content = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption)


def section(title: str, *children: object) -> Markup:
    """A section with a heading."""
    return element("section", element("h2", title), *children)


def paragraph(*children: object, class_: str | None = None) -> Markup:
    """A paragraph."""
    return element("p", *children, class_=class_)
