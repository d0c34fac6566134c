"""Measures what the n-gram tables of a model cost in sampling: one text, and loading, against the network alone.

usage: python benchmarks/ngram_sampling.py RUN [--length N] [--rounds N]
Both models alternate for N rounds in this process, on one thread, with another random seed in each; times are medians
of processor time. RUN is compared with the network of the same model, without its tables and its n-gram gate term.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measuring import report


def seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="run or model directory")
    parser.add_argument("--length", type=int, default=4000, help="tokens of the text")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    from quickfox.system.threads import pin_numpy_threads

    pin_numpy_threads(1)
    import quickfox
    from quickfox.checkpoints.checkpoint import save_checkpoint
    from quickfox.models.parameters import ngram_specs

    bundle = quickfox.load(options.model).bundle
    network = dataclasses.replace(
        bundle,
        config=dataclasses.replace(bundle.config, ngrams=()),
        parameters={
            name: tensor for name, tensor in bundle.parameters.items() if name not in ngram_specs(bundle.config)
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("mixture", "network")]
        for path, each in zip(paths, (bundle, network), strict=True):
            save_checkpoint(path, each, None)
        models = [quickfox.load(path) for path in paths]

        def sample(model: quickfox.Model, random_seed: int) -> object:
            config = model.sampling_config(random_seed=random_seed, length=options.length, temperature=0.8)
            return sum(1 for _ in model.stream(model.read_prompt("The "), config))

        def load(path: Path) -> object:
            return quickfox.load(path).language_model

        rounds = [
            [seconds(partial(sample, model, random_seed)) for model in models]
            + [seconds(partial(load, path)) for path in paths]
            for random_seed in range(options.rounds + 1)
        ][1:]  # the first warms the caches
    mixed, alone, load_mixed, load_alone = zip(*rounds, strict=True)
    report(
        benchmark="ngram_sampling", model=options.model, length=options.length, rounds=options.rounds,
        microseconds_per_token=round(1e6 * statistics.median(mixed) / options.length, 1),
        microseconds_per_token_network=round(1e6 * statistics.median(alone) / options.length, 1),
        speed_ratio=round(statistics.median(b / a for a, b in zip(mixed, alone, strict=True)), 3),
        load_milliseconds=round(1e3 * statistics.median(load_mixed), 1),
        load_milliseconds_network=round(1e3 * statistics.median(load_alone), 1),
    )  # fmt: skip


if __name__ == "__main__":
    main()
