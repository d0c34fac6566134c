"""Counts of requests and tokens, in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from quickfox.serving.models import ServedModel

BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds of the latency histogram, in seconds."""


class Metrics:
    """Counts the requests; counts of tokens are those of the engines."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._durations: dict[str, list[int]] = {}  # endpoint -> number of requests in each bucket
        self._seconds: Counter[str] = Counter()

    def record(self, endpoint: str, status: int, seconds: float) -> None:
        """Counts a finished request.

        Args:
            endpoint: path of a route, or "other": not the path of the request, of which there could be any number.
            status: of HTTP; 499: the client closed the connection.
            seconds: from its headers to the end of its response.
        """
        self._requests[endpoint, status] += 1
        self._durations.setdefault(endpoint, [0] * (len(BUCKETS) + 1))[bisect_left(BUCKETS, seconds)] += 1
        self._seconds[endpoint] += seconds  # type: ignore[assignment]  # a Counter of floats

    def format(self, models: Iterable[ServedModel]) -> str:
        """All metrics, one a line."""
        return "\n".join([*self._iter_requests(), *_iter_models(list(models)), ""])

    def _iter_requests(self) -> Iterator[str]:
        yield "# TYPE quickfox_requests_total counter"
        for (endpoint, status), count in sorted(self._requests.items()):
            yield f'quickfox_requests_total{{endpoint="{endpoint}",status="{status}"}} {count}'
        name = "quickfox_request_duration_seconds"
        yield f"# TYPE {name} histogram"
        for endpoint, counts in sorted(self._durations.items()):
            for bound, count in zip((*BUCKETS, "+Inf"), accumulate(counts), strict=True):
                yield f'{name}_bucket{{endpoint="{endpoint}",le="{bound}"}} {count}'
            yield f'{name}_sum{{endpoint="{endpoint}"}} {self._seconds[endpoint]:.6f}'
            yield f'{name}_count{{endpoint="{endpoint}"}} {sum(counts)}'


def _iter_models(models: list[ServedModel]) -> Iterator[str]:
    families: dict[str, Callable[[ServedModel], int]] = {
        "quickfox_prompt_tokens_total counter": lambda model: model.token_counts.prompt,
        "quickfox_generated_tokens_total counter": lambda model: model.token_counts.generated,
        "quickfox_requests_in_hand gauge": lambda model: model.num_requests,
        "quickfox_texts_in_batch gauge": lambda model: model.loaded.engine.num_texts,
        "quickfox_texts_waiting gauge": lambda model: model.loaded.engine.num_waiting,
    }
    for family, value in families.items():
        yield f"# TYPE {family}"
        for model in models:
            yield f'{family.split()[0]}{{model="{_escape(model.name)}"}} {value(model)}'


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
