"""Compares the estimates of `llm train --dry-run` with short runs: memory and speed.

usage: python benchmarks/cost_model.py TEXT [--architectures A,B] [--sizes S,T] [--tokenizers K,L] [--rounds N] [...]
All other options, such as --batch-size 8, are passed to `llm train`. The first step of a run is compiled and not timed.
Memory is the peak of the whole process, including a validation and a checkpoint. Of several rounds, the median speed
and the highest memory are reported. Each ratio is the estimate divided by the measurement.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import report, run_json, watch

STEPS = {"tiny": 16, "small": 8, "medium": 5, "large": 3}
ARCHITECTURES = "lstm,gru,rnn,attention-rnn,transformer"


def measure(text: str, options: list[str], rounds: int) -> dict[str, Any]:
    """The estimate for one model shape, the measurement, and their ratios."""
    train = [str(Path(sys.executable).with_name("llm")), "train", text, "--random-seed", "1", *options, "--json"]
    estimate = run_json([*train, "--dry-run"])
    memory, speeds = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            process = watch([*train, "--quiet", "--output", str(Path(folder, "run"))])
        memory.append(process.peak_memory)
        speeds.append(json.loads(process.output)["tokens_per_second"])
    model, training = estimate["model"], estimate["training"]
    return {
        "layers": model["num_layers"],
        "hidden_dim": model["hidden_dim"],
        "vocabulary_size": model["vocabulary_size"],
        "parameters": estimate["parameters"],
        "batch": f"{training['batch_size']} x {training['window']}",
        "threads": training["threads"],
        "memory_mb": round(max(memory) / 1e6),
        "estimated_memory_mb": round(estimate["memory_bytes"] / 1e6),
        "memory_ratio": round(estimate["memory_bytes"] / max(memory), 2),
        "tokens_per_second": round(statistics.median(speeds)),
        "estimated_tokens_per_second": round(estimate["tokens_per_second"]),
        "speed_ratio": round(estimate["tokens_per_second"] / statistics.median(speeds), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("text")
    parser.add_argument("--architectures", default=ARCHITECTURES, metavar="A,B")
    parser.add_argument("--sizes", default=",".join(STEPS), metavar="S,T")
    parser.add_argument("--tokenizers", default="char,word", metavar="K,L")
    parser.add_argument("--rounds", type=int, default=1)
    own, passed_on = parser.parse_known_args()
    ratios: dict[str, list[float]] = {"memory_ratio": [], "speed_ratio": []}
    for size in own.sizes.split(","):
        for tokenizer in own.tokenizers.split(","):
            for architecture in own.architectures.split(","):
                shape = ["--architecture", architecture, "--size", size, "--tokenizer", tokenizer]
                result = measure(own.text, [*shape, "--steps", str(STEPS[size]), *passed_on], own.rounds)
                for name, values in ratios.items():
                    values.append(result[name])
                report(benchmark="cost_model", architecture=architecture, size=size, tokenizer=tokenizer, **result)
    report(
        benchmark="cost_model", shapes=len(ratios["memory_ratio"]), **{name: _summary(ratios[name]) for name in ratios}
    )


def _summary(ratios: list[float]) -> dict[str, float]:
    return {"lowest": min(ratios), "median": statistics.median(ratios), "highest": max(ratios)}


if __name__ == "__main__":
    main()
