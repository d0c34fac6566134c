"""Measures validation loss over time: `llm train --budget` and, if torch is installed, the PyTorch peer.

usage: python benchmarks/time_to_loss.py TEXT [--budgets 30,60,150] [--seeds 1,2,3] [--torch-python PYTHON]
       [--plot FILE.svg]
Quickfox is timed as a whole command, from its start to its end, with and without n-grams. The peer's clock starts after
its imports and stops during validation, which favors the peer. Both hold out the last tenth of the text. The plot needs
matplotlib.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import machine, report, run_json

PEER = Path(__file__).parent / "peers" / "torch_time_to_loss.py"
PEER_SETTINGS = {"hidden": 512, "layers": 1, "batch": 32, "window": 64, "learning_rate": 6e-3}
PEER_EMBEDDING, PEER_DROPOUT = 64, 0.1


def train_ours(text: str, budget: float, seed: int, ngram: str) -> dict[str, Any]:
    """Runs the command once with `--ngram NGRAM`; returns its figures and the measured wall time."""
    llm = str(Path(sys.executable).with_name("llm"))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = run_json(
            [llm, "train", text, "--budget", f"{budget:g}s", "--random-seed", str(seed), "--ngram", ngram, "--json",
             "--quiet", "--output", str(Path(folder, "run"))]
        )  # fmt: skip
        seconds = time.perf_counter() - started
    kept = ("best_validation_loss", "train_loss", "epochs", "tokens_per_second", "parameters")
    contestant = "quickfox" if ngram == "auto" else f"quickfox --ngram {ngram}"
    return {"contestant": contestant, "seconds": round(seconds, 1), **{name: result[name] for name in kept}}


def train_peer(python: str, text: str, budget: float) -> dict[str, Any]:
    """Runs the PyTorch peer once."""
    settings = [str(value) for value in PEER_SETTINGS.values()]
    result = run_json([python, str(PEER), text, *settings, str(budget), str(PEER_EMBEDDING), str(PEER_DROPOUT)])
    kept = ("tokens_per_second", "parameters")
    return {
        "contestant": "torch LSTM 512",
        "seconds": budget,
        "best_validation_loss": result["validation_loss"],
        **{name: result[name] for name in kept},
    }


def plot(results: list[dict[str, Any]], text: str, path: str) -> None:
    """Plots the loss over seconds, one line per contestant."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for contestant in dict.fromkeys(result["contestant"] for result in results):
        points = sorted((r["seconds"], r["best_validation_loss"]) for r in results if r["contestant"] == contestant)
        axes.plot(*zip(*points, strict=True), marker="o", label=contestant)
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("validation loss, nats per character")
    axes.set_title(f"{Path(text).name}, {results[0]['cores']} cores")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("text")
    parser.add_argument("--budgets", default="30,60,150", help="seconds, separated by commas")
    parser.add_argument("--seeds", default="1", help="random seeds of our runs, separated by commas")
    parser.add_argument("--torch-python", help="an interpreter that can import torch")
    parser.add_argument("--plot", help="write a plot of all results to this SVG file")
    options = parser.parse_args()
    if not Path(options.text).exists():
        print(f"skipped: {options.text} does not exist", file=sys.stderr)
        return
    results: list[dict[str, Any]] = []
    for budget in map(float, options.budgets.split(",")):
        seeds = [int(seed) for seed in options.seeds.split(",")]
        runs = [train_ours(options.text, budget, seed, ngram) for seed in seeds for ngram in ("auto", "off")]
        if options.torch_python:
            runs.append(train_peer(options.torch_python, options.text, budget))
        for run in runs:
            report(benchmark="time_to_loss", text=Path(options.text).name, budget=budget, **run)
            results.append({**run, "cores": machine()["cores"]})
    if options.plot:
        plot(results, options.text, options.plot)


if __name__ == "__main__":
    main()
