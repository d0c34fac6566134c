"""Measures a model of lines: how many samples are one plausible line, and how many of them are new.

usage: python benchmarks/line_corpus.py [TEXT] [--budget 30s] [--samples 1000]
The lines are the distinct words of the texts, by default of the plays and the novel in sample_corpora/, in lower case.
A plausible line is not empty, has no line end and is at most 1.5 times as long as the longest line of training.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import report

CORPORA = Path(__file__).parent.parent / "sample_corpora"
WORD = re.compile(r"[A-Za-z]{3,}")


def find_words(texts: list[Path]) -> list[str]:
    """The distinct words of the texts in lower case, sorted."""
    words = {word.lower() for path in texts for word in WORD.findall(path.read_text(encoding="utf-8"))}
    return sorted(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("texts", nargs="*", type=Path, metavar="TEXT")
    parser.add_argument("--budget", default="30s")
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    words = find_words(options.texts or [CORPORA / "shakespeare_plays.txt", CORPORA / "pride_and_prejudice.txt"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "words.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        llm = [sys.executable, "-m", "quickfox"]
        train = ["train", "words.txt", "--lines", "--budget", options.budget, "--random-seed", "1", "--quiet", "--json"]
        result = subprocess.run([*llm, *train], cwd=folder, check=True, capture_output=True, encoding="utf-8")
        generate = ["generate", "--num-samples", str(options.samples), "--random-seed", "1", "--json"]
        samples = subprocess.run([*llm, *generate], cwd=folder, check=True, capture_output=True, encoding="utf-8")
    lines = [json.loads(line)["text"] for line in samples.stdout.splitlines()]
    longest = max(map(len, words))
    plausible = [line for line in lines if line and "\n" not in line and len(line) <= 1.5 * longest]
    known = set(words)
    report(
        benchmark="line_corpus", lines=len(words), budget=options.budget, samples=len(lines),
        plausible=round(len(plausible) / len(lines), 3),
        new=round(sum(line not in known for line in lines) / len(lines), 3),
        validation_loss=round(json.loads(result.stdout)["validation_loss"], 3),
        examples=" ".join(line for line in plausible if line not in known)[:200],
    )  # fmt: skip


if __name__ == "__main__":
    main()
