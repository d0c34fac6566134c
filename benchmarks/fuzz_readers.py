"""Fuzzes the readers with damaged files: counts how many each reader loads, refuses, or fails on.

usage: python benchmarks/fuzz_readers.py [--inputs 10000] [--flips 2000] [--random-seed 0] [--only NAME]
Prints one line per reader, for mutated contents (of a checkpoint, with a manifest that matches them), and one line for
single bits flipped anywhere in a checkpoint, where the manifest does not match. Ends with status 1 after any failure.
The peak of the memory is that of other inputs, a twentieth as many.
"""

import argparse
import random
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from measuring import report
from quickfox.checkpoints.checkpoint import load_model, load_training_state
from quickfox.errors import DataError

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from file_readers import build_run, file_readers  # type: ignore[import-not-found]
from mutations import flip_bit, try_inputs  # type: ignore[import-not-found]
from text_readers import text_readers  # type: ignore[import-not-found]


def fuzz(inputs: int, random_seed: int, folder: Path, only: str) -> int:
    """Fuzzes and reports each reader; returns the number of failures."""
    failures = 0
    (folder / "texts").mkdir()
    for reader in (*file_readers(folder / "fuzzed"), *text_readers(folder / "texts")):
        if only not in reader.name:
            continue
        tracemalloc.start()  # triples the time
        failures += len(try_inputs(reader, inputs // 20, random_seed + 1).failures)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        started = time.perf_counter()
        outcome = try_inputs(reader, inputs, random_seed)
        seconds = time.perf_counter() - started
        failures += len(outcome.failures)
        report(
            benchmark="fuzz_readers", reader=reader.name, inputs=inputs, loaded=outcome.loaded,
            refused=outcome.refused, failures=len(outcome.failures), examples=outcome.failures[:3],
            seconds=round(seconds, 1), slowest_seconds=round(outcome.slowest_seconds, 3),
            peak_megabytes=round(peak / 1e6, 1),
        )  # fmt: skip
    return failures


def flip(flips: int, random_seed: int, folder: Path) -> int:
    """Flips single random bits of all files and reports; returns how many flips were not detected."""
    checkpoint = build_run(folder / "flipped")
    contents = {path: path.read_bytes() for path in sorted(checkpoint.iterdir())}
    randomness = random.Random(random_seed)
    detected = 0
    for path in randomness.choices(list(contents), [len(data) for data in contents.values()], k=flips):
        path.write_bytes(flip_bit(contents[path], randomness.randrange(8 * len(contents[path]))))
        try:
            load_model(checkpoint)
            load_training_state(checkpoint)
        except DataError:
            detected += 1
        path.write_bytes(contents[path])
    report(benchmark="flip_bits", files=len(contents), flips=flips, detected=detected)
    return flips - detected


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--flips", type=int, default=2_000)
    parser.add_argument("--random-seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only the readers with this in their name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failures = fuzz(options.inputs, options.random_seed, Path(folder), options.only)
        failures += flip(options.flips, options.random_seed, Path(folder))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
