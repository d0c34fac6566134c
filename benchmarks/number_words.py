"""Writes a small question-answer corpus as JSON lines: numbers below 100,000 in words, and their digits.

usage: python benchmarks/number_words.py TRAINING.jsonl HELD_OUT.jsonl
"""

import argparse
import json
import random
from pathlib import Path

LARGEST = 100_000
TRAINING, HELD_OUT = 20_000, 1_000

TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", *TEENS.split(" ")]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number: int) -> str:
    """The number, 0 <= number < 1,000,000, in words of British English."""
    if number < len(ONES):
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    joint = " and " if 0 < rest < 100 else " "
    return f"{in_words(thousands)} thousand" + (joint + in_words(rest) if rest else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("training", type=Path)
    parser.add_argument("held_out", type=Path)
    arguments = parser.parse_args()
    numbers = random.Random(1).sample(range(LARGEST), TRAINING + HELD_OUT)
    for path, part in ((arguments.training, numbers[:TRAINING]), (arguments.held_out, numbers[TRAINING:])):
        pairs = [{"prompt": f"{in_words(number)} = ", "completion": str(number)} for number in part]
        path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")


if __name__ == "__main__":
    main()
