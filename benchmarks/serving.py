"""Measures `llm serve` on the loopback interface: start, memory, latency, rate, and behavior under load and bad input.

usage: python benchmarks/serving.py MODEL [--only start|latency|rate|load|fuzz] [--requests N]
MODEL is a run or model directory. `start` measures whole processes, `latency` the first token of a stream, `rate` 32
clients at once against `llm generate --num-samples 32`, `load` 16 clients of which some send nonsense or leave.
"""

import argparse
import http.client
import json
import random
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import report

LLM = [sys.executable, "-P", "-c", "from quickfox.cli.app import main; main()"]
BASELINE = [sys.executable, "-c", "import numpy, typer"]
TIMEOUT = 120
LENGTH = 200


class Server:
    """A process of `llm serve`."""

    def __init__(self, model: str, *arguments: str) -> None:
        started = time.perf_counter()
        command = [*LLM, "serve", model, "--port", "0", "--quiet", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rstrip().rstrip("/").rpartition(":")[2])
        self.start_seconds = time.perf_counter() - started
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        self.start_processor_seconds = sum(int(each.read_text("ascii").split()[0]) for each in threads) / 1e9

    def status(self, name: str) -> int:
        """A number of its /proc/PID/status: VmRSS or VmHWM in KiB, Threads."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def open_files(self) -> int:
        """Number of its open descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def stop(self) -> tuple[int, str]:
        """Ends it; returns its status and standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, errors


@contextmanager
def serving(model: str, *arguments: str) -> Iterator[Server]:
    server = Server(model, *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def complete(connection: http.client.HTTPConnection, **body: Any) -> dict[str, Any]:
    """The response to a request for a completion."""
    connection.request("POST", "/v1/completions", json.dumps(body))
    response = connection.getresponse()
    value: dict[str, Any] = json.loads(response.read())
    if response.status != 200:
        sys.exit(f"status {response.status}: {value}")
    return value


def measure_start(model: str, rounds: int = 15) -> None:
    baseline, starts, processor_ratios, memory = [], [], [], 0
    for _ in range(rounds):
        started, used = time.perf_counter(), _processor_seconds_of_children()
        subprocess.run(BASELINE, check=True)
        baseline.append(time.perf_counter() - started)
        used = _processor_seconds_of_children() - used
        with serving(model) as server:
            starts.append(server.start_seconds)
            processor_ratios.append(server.start_processor_seconds / used)
            connection = server.connect()
            complete(connection, prompt="The ", max_tokens=LENGTH)
            connection.close()
            memory = server.status("VmHWM")
    report(
        benchmark="serving start", rounds=rounds, seconds=round(statistics.median(starts), 3),
        baseline_seconds=round(statistics.median(baseline), 3),
        ratio=round(statistics.median(a / b for a, b in zip(starts, baseline, strict=True)), 2),
        processor_ratio=round(statistics.median(processor_ratios), 2), peak_memory_mb=round(memory / 1024, 1),
    )  # fmt: skip


def _processor_seconds_of_children() -> float:
    """Of all child processes that have ended; it hardly depends on what else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_latency(model: str, rounds: int = 200) -> None:
    with serving(model) as server:
        connection = server.connect()
        complete(connection, prompt="The ", max_tokens=LENGTH)
        seconds = []
        for seed in range(rounds):
            started = time.perf_counter()
            body = {"prompt": "The quick brown fox ", "max_tokens": 8, "stream": True, "seed": seed}
            connection.request("POST", "/v1/completions", json.dumps(body))
            response = connection.getresponse()
            response.readline()
            seconds.append(time.perf_counter() - started)
            response.read()
    report(
        benchmark="serving latency", rounds=rounds, median_ms=round(1000 * statistics.median(seconds), 2),
        p95_ms=round(1000 * sorted(seconds)[int(0.95 * rounds)], 2),
    )  # fmt: skip


def measure_rate(model: str, clients: int = 32, rounds: int = 5) -> None:
    length = 2 * LENGTH
    for stream in (False, True):
        rates, generated = [], []
        with serving(model) as server, ThreadPoolExecutor(clients) as pool:

            def run(seed: int, server: Server = server, stream: bool = stream) -> None:
                connection = server.connect()
                body = {"prompt": "The ", "max_tokens": length, "seed": seed, "stream": stream}
                connection.request("POST", "/v1/completions", json.dumps(body))
                connection.getresponse().read()
                connection.close()

            for _ in range(1 + rounds):
                started = time.perf_counter()
                list(pool.map(run, range(clients)))
                rates.append(clients * length / (time.perf_counter() - started))
        for _ in range(1 + rounds):
            generated.append(clients * length / _seconds_of_generation(model, clients, length))
        report(
            benchmark="serving rate", clients=clients, stream=stream,
            tokens_per_second=round(statistics.median(rates[1:])),
            generate_tokens_per_second=round(statistics.median(generated[1:])),
            ratio=round(statistics.median(rates[1:]) / statistics.median(generated[1:]), 2),
        )  # fmt: skip


def _seconds_of_generation(model: str, samples: int, length: int) -> float:
    """Seconds of `llm generate --num-samples` without its start."""
    seconds = []
    for new_tokens in (1, length):
        command = [*LLM, "generate", "--model", model, "--seed", "The ", "--num-samples", str(samples),
                   "--random-seed", "1", "--length", str(new_tokens)]  # fmt: skip
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return seconds[1] - seconds[0]


def measure_load(model: str, requests: int, clients: int = 16, seed: int = 1) -> None:
    """Requests of which 10 % leave in the middle and 5 % are malformed; every answer is compared with the right one."""
    with serving(model, "--queue", "64") as server:
        connection = server.connect()
        expected = {
            number: complete(connection, prompt="The ", max_tokens=20 + number, seed=number)["choices"][0]["text"]
            for number in range(20)
        }
        connection.close()
        with ThreadPoolExecutor(clients) as pool:  # warm up: threads and caches
            list(pool.map(lambda number: _send_one(server, random.Random(-number), expected), range(200)))
        time.sleep(1)
        before = server.status("VmRSS"), server.status("Threads"), server.open_files()
        generator = random.Random(seed)
        generators = [random.Random(generator.random()) for _ in range(requests)]
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            outcomes = Counter(pool.map(lambda each: _send_one(server, each, expected), generators))
        seconds = time.perf_counter() - started
        time.sleep(1)
        after = server.status("VmRSS"), server.status("Threads"), server.open_files()
        status, errors = server.stop()
    report(
        benchmark="serving load", requests=requests, seconds=round(seconds, 1), outcomes=dict(outcomes), seed=seed,
        memory_growth_mb=round((after[0] - before[0]) / 1024, 2), threads=[before[1], after[1]],
        descriptors=[before[2], after[2]], exit_status=status, standard_error=errors[:500],
    )  # fmt: skip


def _send_one(server: Server, generator: random.Random, expected: dict[int, str]) -> str:
    kind = generator.random()
    if kind < 0.05:
        return _send_malformed(server, generator)
    number = generator.randrange(20)
    is_leaving = kind < 0.15
    stream = is_leaving or generator.random() < 0.5
    body = {"prompt": "The ", "max_tokens": 2000 if is_leaving else 20 + number, "seed": number, "stream": stream}
    connection = server.connect()
    try:
        connection.request("POST", "/v1/completions", json.dumps(body))
        response = connection.getresponse()
        if is_leaving:
            response.read(generator.randrange(1, 2000))
            return "left"
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        return f"status {response.status}"
    if not stream:
        return "right" if json.loads(content)["choices"][0]["text"] == expected[number] else "wrong"
    parts = content.decode().split("\n\n")
    texts = [json.loads(part.removeprefix("data: "))["choices"][0]["text"] for part in parts[:-2]]
    return "right" if "".join(texts) == expected[number] and parts[-2] == "data: [DONE]" else "wrong"


def _send_malformed(server: Server, generator: random.Random) -> str:
    data = fuzzed_body(generator)
    connection = server.connect()
    try:
        connection.request("POST", "/v1/completions", data)
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    return "refused" if 400 <= response.status < 500 else f"malformed: status {response.status}"


VALID = {"prompt": "The ", "max_tokens": 3, "temperature": 0.5, "n": 1, "stop": ["x"], "logit_bias": {"1": 1}}
NONSENSE: list[Any] = [
    None, True, -1, 10**30, 1e308, -0.5, "", "\ud800", "x" * 5000, [], [[]], {}, {"a": 1}, [None], ["x"] * 10_000,
]  # fmt: skip


def fuzzed_body(generator: random.Random) -> bytes:
    """A body that no server should accept."""
    kind = generator.randrange(4)
    if kind == 0:
        return generator.randbytes(generator.randrange(1, 200)) + b"\xff"
    if kind == 1:
        text = json.dumps(VALID)
        return text[: generator.randrange(1, len(text) - 1)].encode()
    body = dict(VALID)
    if kind == 2:
        body[generator.choice("abcdefgh") * generator.randrange(1, 9)] = generator.choice(NONSENSE)
    else:
        name = generator.choice(["max_tokens", "n", "seed", "temperature"])
        body[name] = generator.choice([-1, "", "x", [], {}, [1], 10**30, {"a": None}, False, "\ud800"])
    return json.dumps(body).encode()


def measure_fuzz(model: str, requests: int, clients: int = 8, seed: int = 1) -> None:
    with serving(model) as server, ThreadPoolExecutor(clients) as pool:
        generators = [random.Random(f"{seed} {number}") for number in range(requests)]
        outcomes = Counter(pool.map(lambda each: _send_malformed(server, each), generators))
        connection = server.connect()
        complete(connection, prompt="The ", max_tokens=5)
        connection.close()
        status, errors = server.stop()
    report(
        benchmark="serving fuzz", requests=requests, outcomes=dict(outcomes), seed=seed, exit_status=status,
        standard_error=errors[:500],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--only", choices=("start", "latency", "rate", "load", "fuzz"))
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    measurements: dict[str, Callable[[], None]] = {
        "start": lambda: measure_start(options.model),
        "latency": lambda: measure_latency(options.model),
        "rate": lambda: measure_rate(options.model),
        "load": lambda: measure_load(options.model, options.requests),
        "fuzz": lambda: measure_fuzz(options.model, options.requests),
    }
    for name, measure in measurements.items():
        if options.only in (None, name):
            measure()


if __name__ == "__main__":
    main()
