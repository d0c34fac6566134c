"""From text to the first step, by the corpus's size: counting, encoding, the first step; throughput and peak memory.

usage: python benchmarks/corpus_pipeline.py TEXT... [--rounds N] [--no-training]
Every figure is of whole processes, in turn with `wc -m` and, on the text's first 20 MB, `collections.Counter`. Encoding
is timed inside of its process, from the open corpus to the flushed file of tokens. The files are read once before, so
that they are in memory where there is room.
"""

import argparse
import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from measuring import Watched, in_turn, median_ratio, report, watch

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
from quickfox.data.dataset import encode_corpus
from quickfox.tokenizers.serialization import load_tokenizer
tokenizer = load_tokenizer(Path(sys.argv[2]))
started = time.perf_counter()
encode_corpus(open_corpus([sys.argv[1]], print), tokenizer, Path(sys.argv[3]))
print(json.dumps(time.perf_counter() - started))
"""


def measure(text: Path, rounds: int, folder: Path, *, training: bool) -> None:
    """Reports one text."""
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
    found = in_turn({name: partial(watch, command) for name, command in contestants.items()}, rounds)
    rates = {name: [_rate(name, watched, size) for watched in watched] for name, watched in found.items()}
    first_step: dict[str, float] = {}
    if training:
        run = [
            *llm,
            "train",
            str(text),
            "--steps",
            "1",
            "--hidden-dim",
            "64",
            "--output",
            str(folder / "run"),
            "--quiet",
        ]
        watched = watch(run)
        first_step = {
            "train_one_step_seconds": watched.seconds,
            "train_one_step_peak_mb": watched.peak_memory / 1e6,
        }
    report(
        benchmark="corpus_pipeline", text=text.name, megabytes=round(size / 1e6, 1), rounds=rounds,
        megabytes_per_second={name: round(statistics.median(values), 1) for name, values in rates.items()},
        build_vocab_over_wc=round(median_ratio(rates["build-vocab"], rates["wc -m"]), 2),
        build_vocab_over_counter=round(median_ratio(rates["build-vocab"], rates["Counter"]), 1),
        peak_mb={name: round(max(w.peak_memory for w in watched) / 1e6, 1) for name, watched in found.items()},
        **{name: round(value, 1) for name, value in first_step.items()},
    )  # fmt: skip


def _rate(name: str, watched: Watched, size: int) -> float:
    """Megabytes a second."""
    if name == "encode":
        return size / 1e6 / float(json.loads(watched.output.splitlines()[-1]))
    return (min(size, COUNTER_BYTES) if name == "Counter" else size) / 1e6 / watched.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-training", action="store_true", help="leave out the first step")
    options = parser.parse_args()
    for text in options.texts:
        with tempfile.TemporaryDirectory() as folder:
            measure(text, options.rounds, Path(folder), training=not options.no_training)


if __name__ == "__main__":
    main()
