"""Worker process of `sampling.py`: samples with the Python API and reports the speed.

usage: python benchmarks/sampling_worker.py MODEL THREADS
THREADS is the number of threads of NumPy's matrix products. Each line of standard input is a JSON object with settings
of SamplingConfig and, optionally, `samples`, the indices of the samples to generate. The response is a JSON object.
"""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from quickfox.system.threads import pin_numpy_threads

if TYPE_CHECKING:
    from quickfox.model import Model

SEED = "The "


def measure(model: "Model", request: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second, and the texts in the order of the samples."""
    from quickfox.generation.stopping import Completion

    samples = request.pop("samples", None)
    config = model.override_config(model.sampling_config(random_seed=0), request, "request")
    prompt = model.read_prompt(SEED)
    started = time.perf_counter()
    events = list(model.complete(prompt, config, samples=samples))
    seconds = time.perf_counter() - started
    completions = [event for event in events if isinstance(event, Completion)]
    tokens = sum(completion.token_count for completion in completions)
    return {"tokens_per_second": tokens / seconds, "texts": [completion.text for completion in completions]}


def main() -> None:
    _, path, threads = sys.argv
    pin_numpy_threads(int(threads))
    import quickfox

    model = quickfox.load(path)
    for line in sys.stdin:
        print(json.dumps(measure(model, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
