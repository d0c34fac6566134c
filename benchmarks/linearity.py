"""Whether the time of every command is linear in the size of its input, whatever the input's shape.

usage: python benchmarks/linearity.py [--size 500000] [--only COMMAND]

Each command reads inputs of n and of 4 n characters: one line of words, of equal letters, of base64, of DNA; and lines
of a letter each. Reported are the processor seconds of the whole process beyond those for an input of 1,000
characters, and how many times more the large input takes: 4 is linear, 16 quadratic. Less than 0.2 seconds are not
compared.
"""

import argparse
import base64
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import report, watch

LLM = ["llm"]
MODEL = ["--hidden-dim", "16", "--tokenizer", "byte", "--random-seed", "1", "--quiet", "--output", "model"]

Shape = Callable[[int, random.Random], str]
SHAPES: dict[str, Shape] = {
    "words": lambda size, generator: " ".join(generator.choices(["one", "two", "three", "four"], k=size // 4))[:size],
    "equal letters": lambda size, _: "a" * size,
    "base64": lambda size, generator: base64.b64encode(generator.randbytes(size)).decode()[:size],
    "DNA": lambda size, generator: "".join(generator.choices("ACGT", k=size)),
    "short lines": lambda size, generator: "\n".join(generator.choices("ab", k=size // 2)),
}
COMMANDS: dict[str, list[str]] = {
    "train --dry-run": ["train", "x.txt", "--dry-run"],
    "train --dry-run --lines": ["train", "x.txt", "--lines", "--validation-split", "0", "--dry-run"],
    **{
        f"build-vocab {kind}": ["build-vocab", "x.txt", "--tokenizer", kind, "-o", "vocab.json"]
        for kind in ("char", "word", "bpe")
    },
    "train, n-gram model": [
        "train",
        "x.txt",
        "--architecture",
        "ngram",
        "--ngram",
        "5",
        "--output",
        "ngram",
        "--quiet",
    ],
    "check": ["check", "x.txt"],
    "evaluate": ["evaluate", "x.txt", "--model", "model"],
    "score": ["score", "x.txt", "--model", "model", "--json"],
    "generate --prompts": [
        "generate",
        "--prompts",
        "x.jsonl",
        "--model",
        "model",
        "--length",
        "1",
        "--random-seed",
        "1",
    ],
}


def processor_seconds(name: str, text: str, folder: Path) -> float:
    """Processor seconds of a command for a text."""
    (folder / "x.txt").write_text(text, encoding="utf-8")
    (folder / "x.jsonl").write_text(json.dumps({"prompt": text}) + "\n", encoding="utf-8")
    in_folder = ["sh", "-c", 'cd "$0" && rm -rf ngram vocab.json && exec "$@"', str(folder)]
    return watch([*in_folder, *LLM, *COMMANDS[name]]).processor_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=500_000)
    parser.add_argument("--only", choices=COMMANDS, action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "small.txt").write_text("one two three four\n" * 200)
        watch(["sh", "-c", 'cd "$0" && exec "$@"', name, *LLM, "train", "small.txt", "--steps", "1", *MODEL])
        for command in options.only or COMMANDS:
            for shape, make in SHAPES.items():
                least, first, second = (
                    processor_seconds(command, make(size, random.Random(1)), folder)
                    for size in (1000, options.size, 4 * options.size)
                )
                first, second = first - least, second - least
                ratio = round(second / first, 1) if min(first, second) >= 0.2 else None
                report(command=command, shape=shape, seconds=[round(first, 2), round(second, 2)], ratio=ratio)


if __name__ == "__main__":
    main()
