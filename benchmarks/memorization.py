"""Measures how much of a corpus the samples of models copy.

usage: python benchmarks/memorization.py CORPUS --models RUN [RUN ...] [--samples N] [--length N] [--temperature T]
For each model: the longest copy in its samples, and the share of their 30-character windows that occur in CORPUS.
"""

import argparse
import statistics
import time
from pathlib import Path

from measuring import report

WINDOW = 30  # characters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--models", nargs="+", required=True, help="runs or model directories")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--length", type=int, default=1000, help="tokens of each sample")
    parser.add_argument("--temperature", type=float, default=0.8)
    options = parser.parse_args()
    from quickfox.system.threads import pin_numpy_threads

    pin_numpy_threads(1)
    import quickfox
    from quickfox.evaluation.memorization import longest_copies

    text = options.corpus.read_text(encoding="utf-8")
    windows = {text[start : start + WINDOW] for start in range(len(text) - WINDOW + 1)}
    for path in options.models:
        model = quickfox.load(path)
        started = time.perf_counter()
        samples = model.generate(
            "\n", num_samples=options.samples, echo=False, random_seed=0, length=options.length,
            temperature=options.temperature,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        lengths = [len(copy.text) for copy in longest_copies(samples, [text])]
        copied = [sample[start : start + WINDOW] in windows for sample in samples
                  for start in range(len(sample) - WINDOW + 1)]  # fmt: skip
        report(
            benchmark="memorization", model=path, samples=options.samples, length=options.length,
            temperature=options.temperature, longest_copy=max(lengths),
            mean_longest_copy=round(statistics.mean(lengths), 2),
            percent_of_windows_copied=round(100 * statistics.mean(copied), 4), seconds=round(seconds, 2),
        )  # fmt: skip


if __name__ == "__main__":
    main()
