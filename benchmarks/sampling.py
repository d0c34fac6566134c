"""Measures sampling and scoring: start-up, speed, memory, and whether all interfaces generate the same text.

usage: python benchmarks/sampling.py --model RUN [--text FILE] [--torch-python PYTHON] [--rounds N] [--only NAMES]
RUN is a model of the peers' shape: an LSTM of 512 units, embedding 64, vocabulary 65. FILE is the text for `llm score`,
PYTHON an interpreter that can import torch. Measurements that need a missing FILE, PYTHON or TensorFlow are skipped.
NAMES are some of start, stream, batch, processors, score, memory, same, separated by commas. Contestants alternate for
N rounds; times are medians, and ratios are medians of the ratios of each round. Measure a plain `pip install`, not an
editable one.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from measuring import FinishedProcess, Worker, alternate, installed_version, median_ratio, report, watch

# This process must not import NumPy: see measuring.watch.

HERE = Path(__file__).parent
LLM = str(Path(sys.executable).with_name("llm"))
BASELINE = [sys.executable, "-c", "import numpy, typer"]
KERAS = [sys.executable, str(HERE / "peers" / "keras_sampling.py")]
TORCH = str(HERE / "peers" / "torch_sampling.py")

PROCESSORS = {
    "repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1, "no_repeat_ngram": 6,
    "logit_bias": [[" ", 0.5]], "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.95,
}  # fmt: skip
STREAM_LENGTH = 8_000
PEER_LENGTHS = {"torch": 500, "keras": 100}
COMMAND_LENGTH = 20_000
BATCHES = (2, 4, 8, 16, 32, 64)
BATCH_TOKENS, BATCH_STEPS = 4_000, 300  # at least
SCORED_BYTES = 1_000_000
SAME_LENGTH, SAME_SAMPLES = 20_000, (0, 1, 7, 31, 63)


def generate(model: str, *options: str) -> list[str]:
    """The command `llm generate` at temperature 1; its first output byte is a generated character."""
    fixed = ["--seed", "The ", "--no-echo", "--temperature", "1", "--random-seed", "0"]
    return [LLM, "generate", "--model", model, *fixed, *options]


def worker(model: str, threads: int) -> Worker:
    """A process that samples with Quickfox."""
    return Worker([sys.executable, str(HERE / "sampling_worker.py"), model, str(threads)])


def rate(sampler: Worker, length: int, **settings: Any) -> float:
    """Tokens per second of a worker."""
    tokens_per_second: float = sampler.ask(length=length, **settings)["tokens_per_second"]
    return tokens_per_second


def thread_counts() -> list[int]:
    """1, 2 and the number of processors, as far as available."""
    processors = len(os.sched_getaffinity(0))
    return sorted({1, min(2, processors), processors})


def measure_start(options: argparse.Namespace) -> None:
    """Measures new processes: seconds to the first character and to the end."""
    length = "200"
    commands = {"quickfox": generate(options.model, "--length", length), "baseline": BASELINE}
    if installed_version("tensorflow"):
        commands["keras"] = [*KERAS, length]
    results = alternate({name: partial(watch, command) for name, command in commands.items()}, options.rounds)
    ends = {name: [process.seconds for process in values] for name, values in results.items()}
    firsts = {name: [process.first_byte for process in values] for name, values in results.items()}
    for until, times, ours in (("first character", firsts, firsts["quickfox"]), ("end", ends, ends["quickfox"])):
        report(
            benchmark="sampling", result=f"start of llm generate --length {length}, until the {until}",
            rounds=options.rounds,
            seconds={name: round(statistics.median(values), 4) for name, values in times.items()},
            ours_over={"import numpy, typer": round(median_ratio(ours, ends["baseline"]), 3)}
            | ({"keras": round(median_ratio(ours, times["keras"]), 4)} if "keras" in times else {}),
            at_most={"import numpy, typer": 1.6, "keras": 0.15},
        )  # fmt: skip


def measure_stream(options: argparse.Namespace) -> None:
    """Measures one text, in a warm process and as a whole command, and the loops of the peers."""
    long, short = (generate(options.model, "--length", str(length)) for length in (COMMAND_LENGTH, 1))
    with ExitStack() as stack:
        ours = stack.enter_context(worker(options.model, 1))
        contestants: dict[str, Callable[[], float]] = {
            "quickfox": partial(rate, ours, STREAM_LENGTH, temperature=1.0),
            "long command": lambda: watch(long).seconds,
            "short command": lambda: watch(short).seconds,
        }
        peers = {"torch": [options.torch_python, TORCH]} if options.torch_python else {}
        peers |= {"keras": KERAS} if installed_version("tensorflow") else {}
        for name, command in peers.items():
            contestants[name] = partial(rate, stack.enter_context(Worker(command)), PEER_LENGTHS[name])
        results = alternate(contestants, options.rounds)
    ours_by_command = [
        (COMMAND_LENGTH - 1) / (end - start)
        for end, start in zip(results["long command"], results["short command"], strict=True)
    ]
    for interface, speeds in (("Python API", results["quickfox"]), ("command without start-up", ours_by_command)):
        rates = {"quickfox": speeds} | {name: results[name] for name in peers}
        report(
            benchmark="sampling", result=f"one text, {interface}", rounds=options.rounds,
            tokens_per_second={name: round(statistics.median(values)) for name, values in rates.items()},
            ours_over={name: round(median_ratio(speeds, rates[name]), 2) for name in peers},
            at_least={"torch": 8, "keras": 50},
        )  # fmt: skip


def measure_batch(options: argparse.Namespace) -> None:
    """Measures batches of samples on one and more threads, as a multiple of one text on one thread."""
    threads = thread_counts()
    with ExitStack() as stack:
        workers = {count: stack.enter_context(worker(options.model, count)) for count in threads}
        contestants = {(1, 1): partial(rate, workers[1], BATCH_TOKENS, temperature=1.0)}
        for rows in BATCHES:
            length = max(BATCH_TOKENS // rows, BATCH_STEPS)
            for count in threads:
                contestants[rows, count] = partial(
                    rate, workers[count], length, temperature=1.0, num_samples=rows
                )  # fmt: skip
        rates = alternate(contestants, options.rounds)
    for rows in (1, *BATCHES):
        measured = {count: rates[rows, count] for count in threads if (rows, count) in rates}
        report(
            benchmark="sampling", result=f"batch of {rows}, by threads", rounds=options.rounds,
            tokens_per_second={count: round(statistics.median(values)) for count, values in measured.items()},
            over_one_text={
                count: round(median_ratio(values, rates[1, 1]), 2) for count, values in measured.items()
            },
            **({"at_least": 3, "aim": 5} if rows == 64 else {}),
        )  # fmt: skip


def measure_processors(options: argparse.Namespace) -> None:
    """Measures the cost of all logits processors, in time per token."""
    with worker(options.model, 1) as ours:
        contestants = {
            (rows, name): partial(
                rate, ours, max(BATCH_TOKENS // rows, BATCH_STEPS), num_samples=rows, **settings
            )
            for rows in (1, 64)
            for name, settings in (("none", {"temperature": 1.0}), ("all", PROCESSORS))
        }  # fmt: skip
        rates = alternate(contestants, options.rounds)
    for rows in (1, 64):
        by_setting = {name: rates[rows, name] for name in ("none", "all")}
        report(
            benchmark="sampling", result=f"logits processors, batch of {rows}", rounds=options.rounds,
            tokens_per_second={name: round(statistics.median(values)) for name, values in by_setting.items()},
            cost_percent=round(100 * (median_ratio(by_setting["none"], by_setting["all"]) - 1), 1),
            **({"at_most": 25} if rows == 1 else {}),
        )  # fmt: skip


def measure_score(options: argparse.Namespace) -> None:
    """Measures `llm score` of 1 MB, with and without start-up."""
    if options.text is None:
        print("skipped: score, which needs --text FILE", file=sys.stderr)
        return
    megabyte = Path(options.text).read_bytes()[:SCORED_BYTES]
    text = (megabyte * -(-SCORED_BYTES // len(megabyte)))[:SCORED_BYTES].decode("utf-8", "ignore")
    with tempfile.TemporaryDirectory() as folder:
        commands = {}
        for name, content in (("whole", text), ("start", "a\n")):
            file = Path(folder, name)
            file.write_text(content, encoding="utf-8", newline="")
            commands[name] = partial(watch, [LLM, "score", "--model", options.model, str(file)])
        results = alternate(commands, options.rounds)
    seconds = {name: [process.seconds for process in values] for name, values in results.items()}
    net = [whole - start for whole, start in zip(seconds["whole"], seconds["start"], strict=True)]
    report(
        benchmark="sampling", result="llm score over 1 MB", rounds=options.rounds, text=Path(options.text).name,
        characters=len(text),
        characters_per_second={
            "whole command": round(len(text) / statistics.median(seconds["whole"])),
            "without start-up": round(len(text) / statistics.median(net)),
        },
        at_least=60_000,
    )  # fmt: skip


def measure_memory(options: argparse.Namespace) -> None:
    """Measures the peak resident memory of `llm generate`."""
    commands = {
        "llm generate": generate(options.model),
        "llm generate --num-samples 64": generate(options.model, "--num-samples", "64"),
    }
    results = alternate({name: partial(watch, command) for name, command in commands.items()}, options.rounds)
    for name, values in results.items():
        megabytes = [process.peak_memory / 1e6 for process in values]
        report(
            benchmark="sampling", result=f"memory of {name}", rounds=options.rounds,
            megabytes=round(statistics.median(megabytes), 1), maximum=round(max(megabytes), 1),
            **({"at_most": 120} if name == "llm generate" else {}),
        )  # fmt: skip


def measure_same(options: argparse.Namespace) -> None:
    """Compares texts of the same random seed and sample: generated one by one, in a batch, and by the command."""
    length = ["--length", str(SAME_LENGTH)]
    settings = {"length": SAME_LENGTH, "temperature": 1.0}
    texts_by_interface: dict[str, dict[int, str]] = {}  # sample -> text
    for threads in thread_counts():
        with worker(options.model, threads) as ours:
            if threads == 1:
                single = {k: ours.ask(samples=[k], **settings)["texts"][0] for k in SAME_SAMPLES}
            batch = ours.ask(num_samples=64, **settings)["texts"]
        texts_by_interface[f"batch of 64, threads: {threads}"] = {k: batch[k] for k in SAME_SAMPLES}
    texts_by_interface["llm generate"] = {0: watch(generate(options.model, *length)).output.decode().removesuffix("\n")}
    texts_by_interface["llm generate --json"] = texts_of(watch(generate(options.model, *length, "--json")), (0,))
    many = watch(generate(options.model, *length, "--json", "--num-samples", "64"))
    texts_by_interface["llm generate --json --num-samples 64"] = texts_of(many, SAME_SAMPLES)
    for interface, texts in texts_by_interface.items():
        differences = {k: first_difference(single[k], text) for k, text in texts.items()}
        report(
            benchmark="sampling", result="same text as generated one by one", interface=interface, length=SAME_LENGTH,
            equal=all(place is None for place in differences.values()), first_difference_of_sample=differences,
        )  # fmt: skip


def texts_of(process: FinishedProcess, samples: tuple[int, ...]) -> dict[int, str]:
    """The texts of these samples in the output of `llm generate --json`."""
    texts = {result["sample"]: result["text"] for result in map(json.loads, process.output.splitlines())}
    return {k: texts[k] for k in samples}


def first_difference(a: str, b: str) -> int | None:
    """The index of the first character that differs; None if the texts are equal."""
    if a == b:
        return None
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "start": measure_start,
    "stream": measure_stream,
    "batch": measure_batch,
    "processors": measure_processors,
    "score": measure_score,
    "memory": measure_memory,
    "same": measure_same,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True, help="a run or model directory: LSTM, 512 units, vocabulary 65")
    parser.add_argument("--text", help="the text to score; its first MB is used, repeated if it is shorter")
    parser.add_argument("--torch-python", help="an interpreter that can import torch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help="names, separated by commas")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - MEASUREMENTS.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))} is not one of {', '.join(MEASUREMENTS)}")
    for name in names:
        MEASUREMENTS[name](options)


if __name__ == "__main__":
    main()
