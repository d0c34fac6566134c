"""A network that processes the texts of a batch on several threads.

Each thread processes a part of the texts with single-threaded NumPy, and the threads meet once per call, not at each
matrix product as those of OpenBLAS do: on a processor that other programs use too, threads that wait actively for each
other at each product made sampling ten times slower (benchmarks/LOG.md).
"""

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from quickfox.models.language_model import NetworkLanguageModel, Prior, State, concatenate_states, select_rows

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

MIN_TEXTS = 8
"""Texts for each thread below which one thread is faster."""


class ParallelNetwork:
    """A `NetworkLanguageModel` with the results of `model`, computed on up to `threads` threads.

    Only networks are worth it: the n-gram model and the mixture are many short operations, which wait for each other in
    the interpreter.
    """

    def __init__(self, model: NetworkLanguageModel, threads: int) -> None:
        self.context = model.context
        self._model = model
        self._threads = threads

    @cached_property
    def _pool(self) -> "ThreadPoolExecutor":
        """The threads for all parts but the first, which the caller's thread processes."""
        from concurrent.futures import ThreadPoolExecutor  # slow to import, and a single text needs no threads

        return ThreadPoolExecutor(self._threads - 1)

    def initial_state(self, batch_size: int) -> State:
        return self._model.initial_state(batch_size)

    def forward(self, token_ids: np.ndarray, state: State, prior: Prior | None = None) -> tuple[np.ndarray, State]:
        parts = min(self._threads, len(token_ids) // MIN_TEXTS)
        if parts < 2:
            return self._model.forward(token_ids, state, prior)

        def process(rows: slice) -> tuple[np.ndarray, State]:
            part = None if prior is None else Prior(prior.log_probs[rows], prior.lengths[rows])
            return self._model.forward(token_ids[rows], select_rows(state, rows), part)

        edges = [part * len(token_ids) // parts for part in range(parts + 1)]
        first, *others = (slice(start, stop) for start, stop in pairwise(edges))
        pending = [self._pool.submit(process, rows) for rows in others]
        results = [process(first)]
        results += [future.result() for future in pending]
        logits = np.concatenate([part_logits for part_logits, _ in results])
        return logits, concatenate_states([part_state for _, part_state in results])
