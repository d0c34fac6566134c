"""`llm check` on planted faults and on sound texts, and its speed and memory on a large text.

usage: python benchmarks/planted_faults.py faults|speed [--megabytes 100]

`faults` plants 17 faults of each of 12 kinds, each alone in a corpus made of pieces of the sample corpora, which is
checked; every other kind found there is a false alarm, as is any in the sample corpora. `speed` measures the command
on lines of the sample corpora in random order.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from measuring import report, watch

SAMPLES = Path(__file__).parent.parent / "sample_corpora"
SOUND = ("pride_and_prejudice.txt", "shakespeare_plays.txt")
"""`chinese_classics.txt` has a character of a private use area, which is not planted."""
FAULTS_OF_A_KIND = 17
FOREIGN = [
    "Überraschung",
    "größer",
    "café",
    "naïve",
    "déjà",
    "señor",
    "mañana",
    "garçon",
    "Œuvre",
    "coeur",
    "“quoted”",
    "it’s",
    "—",
    "dash",
    "…",
    "20",
    "€",
    "½",
    "§7",
    "Straße",
    "Þór",
    "smörgås",
    "žluťoučký",
    "Привет",
    "мир",
    "Ελλάδα",
    "żółw",
    "çok",
    "ümit",
]

Documents = list[str]


def double_encode(text: str) -> str:
    """The text as UTF-8 that was decoded as cp1252, and as latin-1 where cp1252 has no character."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode())


def insert(documents: Documents, text: str, generator: random.Random) -> None:
    """Insert a text after a random space of a random document."""
    number = generator.randrange(len(documents))
    place = documents[number].find(" ", generator.randrange(len(documents[number]) // 2)) + 1
    documents[number] = documents[number][:place] + text + documents[number][place:]


def plant_mojibake(documents: Documents, generator: random.Random) -> None:
    words = generator.sample(FOREIGN, 4)
    insert(documents, double_encode(" ".join(words)) + " ", generator)


def plant_characters(characters: str) -> Callable[[Documents, random.Random], None]:
    return lambda documents, generator: insert(documents, generator.choice(characters), generator)


def plant_line_ends(documents: Documents, generator: random.Random) -> None:
    number = generator.randrange(len(documents))
    lines = documents[number].split("\n")
    end = generator.choice(["\r\n", "\r"])
    for index in generator.sample(range(len(lines) - 1), 3):
        lines[index] += end.removesuffix("\n")
    documents[number] = "\n".join(lines) if end == "\r\n" else "\n".join(lines).replace("\r\n", "\r")


def plant_long_line(documents: Documents, generator: random.Random) -> None:
    number = generator.randrange(len(documents))
    length = generator.randrange(10_500, 20_000)
    documents[number] = documents[number][:length].replace("\n", " ") + documents[number][length:]


def plant_boilerplate(documents: Documents, generator: random.Random) -> None:
    number = generator.randrange(len(documents))
    name = generator.choice(["THIS", "THE"])
    head = f"The Project Gutenberg eBook of Something\n\n*** START OF {name} PROJECT GUTENBERG EBOOK SOMETHING ***\n"
    tail = (
        f"\n*** END OF {name} PROJECT GUTENBERG EBOOK SOMETHING ***\nUpdated editions will replace the previous one.\n"
    )
    documents[number] = generator.choice(
        [head + documents[number] + tail, head + documents[number], documents[number] + tail]
    )


def plant_duplicate(documents: Documents, generator: random.Random) -> None:
    documents.insert(generator.randrange(len(documents)), generator.choice(documents))


def plant_near_duplicate(documents: Documents, generator: random.Random) -> None:
    words = generator.choice(documents).split(" ")
    for index in generator.sample(range(len(words)), len(words) // 100):
        words[index] = generator.choice(words)
    documents.append(" ".join(words))


def plant_passage(documents: Documents, generator: random.Random) -> None:
    source = generator.choice(documents)
    start = generator.randrange(len(source) - 3000)
    insert(documents, source[start : start + generator.randrange(500, 3000)], generator)


PLANTERS: dict[str, Callable[[Documents, random.Random], None]] = {
    "mojibake": plant_mojibake,
    "replacement-character": plant_characters("\ufffd"),
    "control-character": plant_characters("\x01\x07\x08\x0b\x1b\x7f\x85\x92\ufeff"),
    "private-use": plant_characters("\ue000\ue031\uf8ff\U000f0001\U0010fffd"),
    "unassigned": plant_characters("\u0378\u0530\u2fe0\U000e0fff\U0003ffff"),
    "mixed-line-ends": plant_line_ends,
    "long-line": plant_long_line,
    "boilerplate": plant_boilerplate,
    "duplicate": plant_duplicate,
    "near-duplicate": plant_near_duplicate,
    "repeated-passage": plant_passage,
}


def make_documents(texts: list[str], generator: random.Random) -> Documents:
    """Pieces of 15,000 to 25,000 characters of one of the texts, without overlap."""
    text = generator.choice(texts)
    starts = generator.sample(range(0, len(text) - 50_000, 50_000), 6)
    return [text[start : start + generator.randrange(15_000, 25_000)] for start in starts]


def write_corpus(documents: Documents, path: Path, *, as_json: bool) -> str:
    """Writes documents as files, or as JSON lines; returns the name of the corpus."""
    path.mkdir()
    if as_json:
        lines = (json.dumps({"text": document}) + "\n" for document in documents)
        (path / "documents.jsonl").write_text("".join(lines))
        return str(path / "documents.jsonl")
    for number, document in enumerate(documents):
        (path / f"{number}.txt").write_text(document, encoding="utf-8", newline="")
    return str(path)


def check(*sources: str, against: str | None = None) -> set[str]:
    """The kinds of faults found."""
    from quickfox.diagnosis.diagnose import diagnose
    from quickfox.text.corpus import ignore_notice, open_corpus

    corpora = [
        open_corpus([name], ignore_notice, is_recorded=True) for name in (*sources, *([against] if against else []))
    ]
    return {finding.kind for finding in diagnose(*corpora).findings}


def measure_faults() -> None:
    texts = [(SAMPLES / name).read_text(encoding="utf-8") for name in SOUND]
    found: Counter[str] = Counter()
    false_alarms: Counter[str] = Counter()
    for number in range(FAULTS_OF_A_KIND * (len(PLANTERS) + 1)):
        kind = [*PLANTERS, "overlap"][number % (len(PLANTERS) + 1)]
        generator = random.Random(number)
        documents = make_documents(texts, generator)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory)
            held_out = None
            if kind == "overlap":
                copied = generator.choice(documents)
                start, length = generator.randrange(8000), generator.randrange(3000, 7000)
                fresh = [generator.choice(texts)[-8000:]] if generator.random() < 0.5 else []
                held_out = write_corpus([copied[start : start + length], *fresh], path / "held_out", as_json=False)
            else:
                PLANTERS[kind](documents, generator)
            corpus = write_corpus(documents, path / "corpus", as_json=generator.random() < 0.5)
            kinds = check(corpus, against=held_out)
        found[kind] += kind in kinds
        consequences = {"control-character"} if kind == "mojibake" else set()  # bytes that are C1 controls in latin-1
        false_alarms.update(kinds - {kind} - consequences)
    for name in SOUND:
        false_alarms.update(check(str(SAMPLES / name)))
    planted = FAULTS_OF_A_KIND * (len(PLANTERS) + 1)
    report(planted=planted, found=found.total(), by_kind=found, false_alarms=false_alarms)


def measure_speed(megabytes: int) -> None:
    """Runs the command on lines of the sample corpora in random order."""
    lines = [line for name in SOUND for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines(keepends=True)]
    generator = random.Random(1)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "large.txt"
        with path.open("w", encoding="utf-8") as file:
            while file.tell() < megabytes * 10**6:
                file.writelines(generator.choices(lines, k=100_000))
        size = path.stat().st_size
        del lines
        process = watch([sys.executable, "-m", "quickfox", "check", str(path), "--json"])
        report(megabytes=size / 1e6, seconds=process.seconds, peak_memory_mb=process.peak_memory / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["faults", "speed"])
    parser.add_argument("--megabytes", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.what == "faults":
        measure_faults()
    else:
        measure_speed(arguments.megabytes)


if __name__ == "__main__":
    main()
