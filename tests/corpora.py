"""Create and read corpora in tests."""

import io
from pathlib import Path

import pytest

from quickfox.errors import QuickfoxError
from quickfox.text.corpus import open_corpus

BOM = b"\xef\xbb\xbf"


def make_file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read_text(*sources: object, stdin: io.BytesIO | None = None) -> str:
    """The whole text of sources; fails if there is a notice."""
    return "".join(open_corpus([str(source) for source in sources], pytest.fail, stdin).iter_text())


def reading_error(kind: type[QuickfoxError], *sources: object, stdin: io.BytesIO | None = None) -> str:
    """The one-line error message of opening or reading the sources."""
    with pytest.raises(kind) as failure:
        read_text(*sources, stdin=stdin)
    message = str(failure.value)
    assert len(message.splitlines()) == 1
    return message
