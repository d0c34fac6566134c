"""Measures the path from a text to the first training step: counting, encoding, first step; throughput and peak memory.

usage: python benchmarks/corpus_pipeline.py TEXT... [--rounds N] [--no-training]
           [--format csv|jsonl --row-characters N --megabytes N]
All figures are of whole processes, alternating with `wc -m` and with `collections.Counter` on the first 20 MB of the
text. Encoding is timed inside its process, from the open corpus to the flushed token file. Each file is read once
before the measurements, so that it is in the file system cache if it fits. With --format, the text is first cut into
documents, which are written to a table or JSON lines, again and again up to the size.
"""

import argparse
import csv
import io
import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from measuring import FinishedProcess, alternate, median_ratio, report, watch

COUNTER_BYTES = 20_000_000
COUNTER = """
import collections, sys
with open(sys.argv[1], encoding="utf-8", errors="ignore", newline="") as file:
    counts = collections.Counter()
    for _ in range(int(sys.argv[2]) >> 20):
        counts.update(file.read(1 << 20))
"""
ENCODE = """
import json, sys, time
from pathlib import Path
from quickfox.text.corpus import open_corpus
from quickfox.data.corpus_writer import encode_corpus
from quickfox.tokenizers.serialization import load_tokenizer
tokenizer = load_tokenizer(Path(sys.argv[2]))
corpus = open_corpus([sys.argv[1]], print)
if corpus.has_documents:
    tokenizer = tokenizer.with_end_of_text()
started = time.perf_counter()
encode_corpus(corpus, tokenizer, Path(sys.argv[3]))
print(json.dumps(time.perf_counter() - started))
"""


def write_documents(text: Path, path: Path, row_characters: int, megabytes: float) -> None:
    """Writes documents of so many characters of the text, each on a line, to a CSV or JSON lines file."""
    characters = " ".join(text.read_text(encoding="utf-8").split("\n"))
    rows = [characters[start : start + row_characters] for start in range(0, len(characters), row_characters)]
    block = io.StringIO(newline="")
    if path.suffix == ".csv":
        csv.writer(block).writerows(enumerate(rows))
    else:
        block.writelines(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows)
    data = block.getvalue().encode()
    with path.open("wb") as file:
        file.write(b"id,text\r\n" if path.suffix == ".csv" else b"")
        while file.tell() < megabytes * 1e6:
            file.write(data)


def measure(text: Path, rounds: int, folder: Path, *, training: bool) -> None:
    """Measures and reports one text."""
    size = text.stat().st_size
    vocabulary, tokens = str(folder / "vocab.json"), str(folder / "tokens.bin")
    llm = [str(Path(sys.executable).with_name("llm"))]
    build = [*llm, "build-vocab", str(text), "-o", vocabulary]
    watch(build)
    contestants = {
        "wc -m": ["env", "LC_ALL=C.UTF-8", "wc", "-m", str(text)],
        "Counter": [sys.executable, "-c", COUNTER, str(text), str(min(size, COUNTER_BYTES))],
        "build-vocab": build,
        "encode": [sys.executable, "-c", ENCODE, str(text), vocabulary, tokens],
    }
    results = alternate({name: partial(watch, command) for name, command in contestants.items()}, rounds)
    rates = {name: [_rate(name, process, size) for process in processes] for name, processes in results.items()}
    first_step: dict[str, float] = {}
    if training:
        options = ["--steps", "1", "--hidden-dim", "64", "--output", str(folder / "run"), "--quiet"]
        process = watch([*llm, "train", str(text), *options])
        first_step = {
            "train_one_step_seconds": process.seconds,
            "train_one_step_peak_mb": process.peak_memory / 1e6,
        }
    report(
        benchmark="corpus_pipeline", text=text.name, megabytes=round(size / 1e6, 1), rounds=rounds,
        megabytes_per_second={name: round(statistics.median(values), 1) for name, values in rates.items()},
        build_vocab_over_wc=round(median_ratio(rates["build-vocab"], rates["wc -m"]), 2),
        build_vocab_over_counter=round(median_ratio(rates["build-vocab"], rates["Counter"]), 1),
        peak_mb={name: round(max(p.peak_memory for p in processes) / 1e6, 1) for name, processes in results.items()},
        **{name: round(value, 1) for name, value in first_step.items()},
    )  # fmt: skip


def _rate(name: str, process: FinishedProcess, size: int) -> float:
    """Megabytes per second."""
    if name == "encode":
        return size / 1e6 / float(json.loads(process.output.splitlines()[-1]))
    return (min(size, COUNTER_BYTES) if name == "Counter" else size) / 1e6 / process.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-training", action="store_true", help="skip the first training step")
    parser.add_argument("--format", choices=["csv", "jsonl"])
    parser.add_argument("--row-characters", type=int, default=250)
    parser.add_argument("--megabytes", type=float, default=100)
    options = parser.parse_args()
    for text in options.texts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            measured = text
            if options.format:
                measured = folder / f"{text.stem}-{options.row_characters}.{options.format}"
                write_documents(text, measured, options.row_characters, options.megabytes)
            measure(measured, options.rounds, folder, training=not options.no_training)


if __name__ == "__main__":
    main()
