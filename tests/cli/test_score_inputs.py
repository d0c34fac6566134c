"""Texts of `llm score`, which are read in chunks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.cli.score_inputs import InputText, iter_batches, open_sources
from quickfox.errors import NoInputError

CHUNKS = st.lists(st.text(st.sampled_from("ab\r\n"), max_size=4), max_size=12)


@given(CHUNKS)
def test_lines_do_not_depend_on_the_chunks_in_which_they_are_read(chunks: list[str]) -> None:
    text = "".join(chunks)
    lines = [line for batch in iter_batches([("a", iter(chunks))], "line") for line in batch]
    assert "".join(line.text + line.end for line in lines) == text
    assert lines == [line for batch in iter_batches([("a", iter([text]))], "line") for line in batch]
    assert [line.line for line in lines] == list(range(1, len(lines) + 1))


def test_line_ends_are_not_part_of_a_line() -> None:
    batches = list(iter_batches([("a", iter(["x", "y\r", "\n\nz"]))], "line"))
    assert batches == [[InputText("a", 1, "xy", "\r\n"), InputText("a", 2, "", "\n"), InputText("a", 3, "z", "")]]


def test_a_document_is_one_text() -> None:
    assert list(iter_batches([("a", iter(["x\n", "y"]))], "document")) == [[InputText("a", None, "x\ny")]]


def test_an_empty_file_has_no_lines_and_a_missing_one_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(iter_batches(open_sources([str(tmp_path / "empty")]), "line")) == []
    with pytest.raises(NoInputError):
        open_sources([str(tmp_path / "missing")])
