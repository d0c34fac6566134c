"""Cleaned copies: what is removed and what is kept, the list of changes, and that the originals are never touched."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.corpus import CorpusOptions
from quickfox.diagnosis.repair import Change, TextCleaner, repair
from quickfox.errors import CannotCreateError, DataError
from quickfox.text.corpus import ignore_notice, open_corpus

BOOK = (
    "The Project Gutenberg eBook of Foxes\n*** START OF THE PROJECT GUTENBERG EBOOK FOXES ***\nA fox.\nTwo foxes.\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK FOXES ***\nLicense\n"
)


def test_files_are_cleaned_and_the_changes_listed(tmp_path: Path) -> None:
    source = tmp_path / "books"
    (source / "old").mkdir(parents=True)
    contents = {
        "a.txt": b"one\r\ntwo\x07\n\xef\xbf\xbd",
        "b.txt": BOOK.encode(),
        "old/c.txt": b"one\r\ntwo\x07\n\xef\xbf\xbd",
    }
    for name, content in contents.items():
        (source / name).write_bytes(content)
    changes = repair(open_corpus([str(source)], ignore_notice, is_recorded=True), tmp_path / "clean")
    assert (tmp_path / "clean/a.txt").read_bytes() == b"one\ntwo\n\xef\xbf\xbd"
    assert (tmp_path / "clean/b.txt").read_text() == "A fox.\nTwo foxes.\n"
    assert not (tmp_path / "clean/old").exists()
    assert {name: (source / name).read_bytes() for name in contents} == contents
    assert changes == [
        Change(f"{source}/a.txt", "mixed-line-ends", 1),
        Change(f"{source}/a.txt", "control-character", 1),
        Change(f"{source}/b.txt", "boilerplate", len(BOOK) - len("A fox.\nTwo foxes.\n")),
        Change(f"{source}/old/c.txt", "duplicate", 1),
    ]
    listed = [json.loads(line) for line in (tmp_path / "clean/changes.log").read_text().splitlines()]
    assert [Change(**values) for values in listed] == changes


def test_documents_become_one_file_of_json_lines(tmp_path: Path) -> None:
    lines = [{"prompt": "a\r\n", "completion": "b"}, {"prompt": "a\n", "completion": "b"}, {"text": "ä\x1b"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    changes = repair(open_corpus([str(tmp_path / "pairs.jsonl")], ignore_notice), tmp_path / "clean")
    written = [json.loads(line) for line in (tmp_path / "clean/documents.jsonl").read_text().splitlines()]
    assert written == [{"prompt": "a\n", "completion": "b"}, {"text": "ä"}]
    assert {change.kind: change.count for change in changes} == {
        "mixed-line-ends": 1,
        "duplicate": 1,
        "control-character": 1,
    }


def test_mojibake_is_repaired_by_ftfy(tmp_path: Path) -> None:
    pytest.importorskip("ftfy")
    (tmp_path / "a.txt").write_text("dÃ©jÃ\xa0 vu â€” itâ€™s\nÄ plain line\n", encoding="utf-8")
    (change,) = repair(open_corpus([str(tmp_path / "a.txt")], ignore_notice), tmp_path / "clean")
    assert (tmp_path / "clean/a.txt").read_text(encoding="utf-8") == "déjà vu — it’s\nÄ plain line\n"
    assert (change.kind, change.count) == ("mojibake", 1)


def test_a_directory_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\r\n")
    with pytest.raises(CannotCreateError):
        repair(open_corpus([str(tmp_path / "a.txt")], ignore_notice), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


TEXTS = st.text(min_size=1)


@given(
    st.lists(
        st.fixed_dictionaries({"text": TEXTS}) | st.fixed_dictionaries({"prompt": st.text(), "completion": TEXTS}),
        min_size=1,
        max_size=3,
    )
)
def test_cleaned_documents_are_read_back(values: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
        repair(open_corpus([str(folder / "a.jsonl")], ignore_notice), folder / "clean")
        cleaned = {tuple(TextCleaner().clean(value[key]) for key in sorted(value, reverse=True)) for value in values}
        cleaned = {texts for texts in cleaned if any(texts)}
        if not cleaned:
            return
        written = open_corpus([str(folder / "clean/documents.jsonl")], ignore_notice).iter_documents()
        assert {tuple(text for text, _ in document.parts) for document in written} == cleaned


def test_documents_with_signals_are_not_repaired(tmp_path: Path) -> None:
    (tmp_path / "pictures.jsonl").write_text('{"image": "a.png", "completion": "cat"}\n')
    with pytest.raises(DataError, match="document 1 has sound or a picture"):
        repair(open_corpus([str(tmp_path / "pictures.jsonl")], ignore_notice), tmp_path / "clean")
    assert not (tmp_path / "clean").exists()


def test_cleaned_documents_are_read_back_from_their_folder(tmp_path: Path) -> None:
    (tmp_path / "documents.jsonl").write_text('{"text": "a\\r\\nb"}\n')
    repair(open_corpus([str(tmp_path / "documents.jsonl")], ignore_notice), tmp_path / "clean")
    cleaned = open_corpus([str(tmp_path / "clean")], ignore_notice, options=CorpusOptions(format="jsonl"))
    assert [document.text for document in cleaned.iter_documents()] == ["a\nb"]
