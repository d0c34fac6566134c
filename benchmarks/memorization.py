"""Measures how much of a corpus the samples of models copy.

usage: python benchmarks/memorization.py CORPUS --models RUN [RUN ...] [--samples N] [--length N] [--temperature T]
For each model: the longest copy in its samples, and the share of their 30-character windows that occur in CORPUS, with
its 95 % interval by a bootstrap over the samples. A few copies decide about that share: take thousands of samples.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from measuring import report

WINDOW = 30  # characters
BATCH = 64  # samples at a time


def count_windows(sample: str, windows: set[str]) -> tuple[int, int]:
    """The windows of a sample that are copies, and all."""
    is_copied = [sample[start : start + WINDOW] in windows for start in range(len(sample) - WINDOW + 1)]
    return sum(is_copied), len(is_copied)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--models", nargs="+", required=True, help="runs or model directories")
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--length", type=int, default=1000, help="tokens of each sample")
    parser.add_argument("--temperature", type=float, default=0.8)
    options = parser.parse_args()
    from quickfox.system.threads import pin_numpy_threads

    pin_numpy_threads(1)
    import quickfox
    from quickfox.evaluation.bootstrap import estimate
    from quickfox.evaluation.memorization import longest_copies

    text = options.corpus.read_text(encoding="utf-8")
    windows = {text[start : start + WINDOW] for start in range(len(text) - WINDOW + 1)}
    for path in options.models:
        model = quickfox.load(path)
        started = time.perf_counter()
        samples: list[str] = []
        while len(samples) < options.samples:
            samples += model.generate(
                "\n", num_samples=min(BATCH, options.samples - len(samples)), echo=False, random_seed=len(samples),
                length=options.length, temperature=options.temperature,
            )  # fmt: skip
        seconds = time.perf_counter() - started
        counts = np.array([count_windows(sample, windows) for sample in samples])
        percent = estimate(counts, lambda sums: {"copied": 100 * sums[..., 0] / sums[..., 1]})["copied"]
        lengths = [len(copy.text) for copy in longest_copies(samples, [text])]
        report(
            benchmark="memorization", model=path, samples=options.samples, length=options.length,
            temperature=options.temperature, longest_copy=max(lengths),
            mean_longest_copy=round(statistics.mean(lengths), 2),
            percent_of_windows_copied=round(percent.value, 4), interval=[round(end, 4) for end in percent.interval],
            seconds=round(seconds, 2),
        )  # fmt: skip


if __name__ == "__main__":
    main()
