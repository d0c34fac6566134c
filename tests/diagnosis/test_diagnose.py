"""The check of a corpus: every kind of fault is found where it is, and none in a sound text."""

import random
from pathlib import Path

import pytest

from quickfox.diagnosis import repetition
from quickfox.diagnosis.diagnose import Diagnosis, diagnose
from quickfox.diagnosis.findings import Finding, Kind
from quickfox.errors import NoInputError
from quickfox.text.corpus import ignore_notice, open_corpus

WORDS = [f"{first}{middle}{last}" for first in ("b", "d", "gr", "m") for middle in "aeiou" for last in ("n", "rt", "l")]


def prose(random_seed: int, lines: int = 200) -> str:
    """Lines of random words, none of them repeated."""
    generator = random.Random(random_seed)
    return "".join(" ".join(generator.choices(WORDS, k=12)) + "\n" for _ in range(lines))


def check(directory: Path, *texts: str, against: str | None = None) -> Diagnosis:
    """The diagnosis of texts, each a file of a directory."""
    for number, text in enumerate(texts):
        (directory / f"{number:02}.txt").write_bytes(text.encode())
    held_out = None
    if against is not None:
        (directory / "held_out.md").write_bytes(against.encode())
        held_out = open_corpus([str(directory / "held_out.md")], ignore_notice)
    names = sorted(str(path) for path in directory.glob("*.txt"))
    return diagnose(open_corpus(names, ignore_notice, is_recorded=True), held_out)


def only_finding(diagnosis: Diagnosis) -> Finding:
    (finding,) = diagnosis.findings
    return finding


def test_a_sound_text_has_no_faults_and_its_measures(tmp_path: Path) -> None:
    diagnosis = check(tmp_path, prose(1), "№ " + prose(2))
    assert diagnosis.findings == []
    assert diagnosis.documents == 2
    assert diagnosis.characters == len(prose(1)) + len(prose(2)) + 2
    assert diagnosis.scripts == {"latin": 1.0}
    assert [(rare.character, rare.where) for rare in diagnosis.rare_characters] == [("№", f"{tmp_path}/01.txt, line 1")]
    assert 2 < diagnosis.entropy_order_0 < 4.3
    assert 0 < diagnosis.sample["entropy_order_5"] < diagnosis.entropy_order_0
    assert diagnosis.advice[0].startswith("--tokenizer char")


@pytest.mark.parametrize(
    ("kind", "fault", "line"),
    [
        ("mojibake", "cafÃ© dÃ©jÃ\xa0 vu", 3),
        ("mojibake", "itâ€™s", 3),
        ("mojibake", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", 3),
        ("mojibake", "ã“ã‚“ã«", 3),
        ("replacement-character", "a\ufffdb", 3),
        ("control-character", "a\x92b", 3),
        ("control-character", "a\ufeffb", 3),
        ("private-use", "\ue031", 3),
        ("unassigned", "\u0378", 3),
        ("mixed-line-ends", "a\r\nb", 3),
        ("long-line", "x " * 5001, 3),
        ("boilerplate", "*** START OF THE PROJECT GUTENBERG EBOOK FOX ***", 3),
    ],
)
def test_a_fault_of_characters_and_lines_is_found_in_its_place(
    tmp_path: Path, kind: Kind, fault: str, line: int
) -> None:
    lines = prose(1).splitlines(keepends=True)
    lines[line - 1] = f"{fault}\n"
    finding = only_finding(check(tmp_path, prose(2), "".join(lines)))
    assert (finding.kind, finding.where) == (kind, f"{tmp_path}/01.txt, line {line}")


@pytest.mark.parametrize(
    "sound",
    [
        "«Là…» né… «THÉÂTRE»",
        "„Fuß“ und „Straße“",
        "LA ESPAÑA “ESPAÑ”",
        "IRMÃ\xa0! IRMÃ” CAFÉ\xa0!",
        "Å\xa0 Ångström",
        "Привет",
    ],
)
def test_correct_text_is_not_mojibake(tmp_path: Path, sound: str) -> None:
    assert check(tmp_path, prose(1) + sound, prose(2)).findings == []


def test_equal_and_nearly_equal_documents_are_found(tmp_path: Path) -> None:
    near = prose(1).replace("\n", " so\n", 3)
    found = {finding.kind: finding for finding in check(tmp_path, prose(1), prose(2), prose(2), near).findings}
    assert set(found) == {"duplicate", "near-duplicate"}
    assert (found["duplicate"].count, found["duplicate"].where) == (1, f"{tmp_path}/02.txt")
    assert (found["near-duplicate"].count, found["near-duplicate"].where) == (1, f"{tmp_path}/03.txt")


def test_a_repeated_passage_is_found_in_both_places(tmp_path: Path) -> None:
    passage = prose(3, lines=10)
    finding = only_finding(check(tmp_path, passage + prose(1), prose(2) + passage))
    assert finding.kind == "repeated-passage"
    assert finding.where == f"{tmp_path}/01.txt, line 201"
    assert f"about {len(passage):,} characters" in finding.message
    assert f"{tmp_path}/00.txt, line 1" in finding.message


def test_fewer_fingerprints_find_long_repetitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repetition, "MAX_FINGERPRINTS", 2000)  # one in 16 substrings
    passage = prose(3, lines=30)
    finding = only_finding(check(tmp_path, passage + prose(1), prose(2) + passage))
    assert finding.kind == "repeated-passage"


def test_periodic_text_is_no_repeated_passage(tmp_path: Path) -> None:
    assert check(tmp_path, prose(1) + "=" * 5000 + "\n", prose(2)).findings == []


def test_held_out_text_in_the_corpus_is_found(tmp_path: Path) -> None:
    held_out = prose(2)[1000:5000]
    diagnosis = check(tmp_path, prose(1), prose(2), against=held_out)
    finding = only_finding(diagnosis)
    assert (finding.kind, finding.where) == ("overlap", f"{tmp_path}/held_out.md")
    assert diagnosis.overlap == pytest.approx(1.0)
    assert check(tmp_path, prose(1), prose(2), against=prose(4)).findings == []


def test_documents_are_named_by_their_number(tmp_path: Path) -> None:
    lines = prose(1, lines=500).splitlines()
    lines[7] += "\ufffd"
    lines[9] = lines[3]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(f'{{"text": "{line}"}}\n' for line in lines), encoding="utf-8")
    diagnosis = diagnose(open_corpus([str(path)], ignore_notice))
    assert {finding.kind: finding.where for finding in diagnosis.findings} == {
        "replacement-character": "document 8",
        "duplicate": "document 10",
    }


def test_little_text_and_one_document_with_most_of_it_are_faults(tmp_path: Path) -> None:
    kinds = [finding.kind for finding in check(tmp_path, *(prose(number, lines=1) for number in range(12))).findings]
    assert kinds == ["too-small"]
    kinds = [finding.kind for finding in check(tmp_path, prose(20, lines=900)).findings]
    assert kinds == ["length-skew"]


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("text,other\n")
    with pytest.raises(NoInputError, match="no text"):
        diagnose(open_corpus([str(tmp_path / "empty.csv")], ignore_notice), None)


def test_findings_name_the_right_file_after_one_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body><script>1</script></body></html>")
    for name in ("b.txt", "c.txt"):
        (tmp_path / name).write_text(prose(1))
    corpus = open_corpus(
        [str(tmp_path / name) for name in ("a.html", "b.txt", "c.txt")], ignore_notice, is_recorded=True
    )
    [duplicate] = [finding for finding in diagnose(corpus, None).findings if finding.kind == "duplicate"]
    assert duplicate.where.endswith("c.txt")
    assert "b.txt" in duplicate.message
