"""The n-gram tables of a run, estimated on a thread of their own while TensorFlow starts and the first steps are made.

The tables depend on the training text only, so the time at which they are ready does not change the result of a run.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import numpy as np

from quickfox.config.model import ngram_config
from quickfox.data.dataset import Tokens
from quickfox.data.token_file import TokenSource
from quickfox.evaluation.baselines import measure_ngram_loss
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.leave_out import LeaveOutModel
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.training.engine.events import NgramsEstimated
from quickfox.training.planning.ngrams import MAX_COUNTED_TOKENS, MAX_NGRAMS

_SEGMENTS = 64


@dataclass(frozen=True, eq=False)
class NgramTables:
    """The n-gram tables of a model.

    Attributes:
        ngrams: number of n-grams of each order, `ModelConfig.ngrams`.
        tensors: name -> array, as `parameters.ngram_specs` lists them.
    """

    ngrams: tuple[int, ...]
    tensors: dict[str, np.ndarray]

    @cached_property
    def model(self) -> NgramLanguageModel:
        """The n-gram model of the tables."""
        return NgramLanguageModel(ngram_config(self.ngrams[0], self.ngrams), self.tensors)


class NgramEstimation:
    """The tables of a run, known or still being estimated.

    Attributes:
        is_reported: whether the event of the estimation was taken, or there is none. From then on the tables are part
            of the model, so that no checkpoint has tables of which no event was yielded.
    """

    def __init__(self, estimate: Callable[[], tuple[NgramTables, NgramsEstimated | None]]) -> None:
        self._result: Future[tuple[NgramTables, NgramsEstimated | None]] = Future()
        self._leave_out: Future[LeaveOutModel] = Future()
        self._estimate = estimate
        self.is_reported = False

    @classmethod
    def start(
        cls,
        order: int,
        vocabulary_size: int,
        training_tokens: Tokens,
        validation_tokens: Tokens,
        threads: int = 1,
        *,
        has_gate: bool = False,
    ) -> Self:
        """Starts to estimate tables on a thread.

        Args:
            order: number of tokens of the longest n-grams.
            vocabulary_size: V.
            training_tokens: the training text.
            validation_tokens: the validation text, on which the n-gram model alone is evaluated; may be empty.
            threads: that count; 1 while TensorFlow uses the processors too.
            has_gate: whether a network with an n-gram gate is trained, which needs `leave_out`.
        """
        estimation = cls(partial(_estimate, order, vocabulary_size, training_tokens.ids, validation_tokens, threads))
        estimation._start(training_tokens.ids if has_gate else None)
        return estimation

    @classmethod
    def restore(cls, tables: NgramTables, training_tokens: Tokens, *, has_gate: bool = False) -> Self:
        """The tables of a checkpoint; arguments as for `start`."""
        estimation = cls(lambda: (tables, None))
        estimation.is_reported = True
        estimation._start(training_tokens.ids if has_gate else None)
        return estimation

    def _start(self, gate_tokens: TokenSource | None) -> None:
        def run() -> None:
            try:
                tables, report = self._estimate()
                self._result.set_result((tables, report))
                if gate_tokens is not None:
                    self._leave_out.set_result(LeaveOutModel(_read_tokens(gate_tokens), tables.ngrams, tables.tensors))
            except BaseException as error:  # raised in the thread that asks for the result
                future = self._leave_out if self._result.done() else self._result
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()  # a daemon: a signal need not wait for it

    @property
    def is_ready(self) -> bool:
        """Whether `tables` returns at once."""
        return self._result.done()

    def wait(self, seconds: float) -> bool:
        """Waits until the tables are estimated, at most `seconds`; returns `is_ready`."""
        concurrent.futures.wait([self._result], seconds)
        return self.is_ready

    @property
    def tables(self) -> NgramTables:
        """The tables; waits until they are estimated. Raises the errors of reading the text."""
        return self._result.result()[0]

    @property
    def leave_out(self) -> LeaveOutModel:
        """The tables without each block of the training text; waits for them. Only of an estimation for a gate."""
        self._result.result()  # raises the error if there are no tables
        return self._leave_out.result()

    def take_report(self) -> NgramsEstimated | None:
        """The event of the estimation, once; waits until it is finished. None: it was taken, or there is none.

        Raises the errors of reading the text.
        """
        _, report = self._result.result()
        if self.is_reported:
            return None
        self.is_reported = True
        return report


def _estimate(
    order: int, vocabulary_size: int, training_tokens: TokenSource, validation_tokens: Tokens, threads: int
) -> tuple[NgramTables, NgramsEstimated]:
    started = time.perf_counter()
    ids = _read_tokens(training_tokens)
    estimate = estimate_ngrams(ids, vocabulary_size, order, MAX_NGRAMS, threads)
    tables = NgramTables(estimate.ngrams, estimate.tensors)
    return tables, NgramsEstimated(
        ngrams=estimate.ngrams,
        min_counts=estimate.min_counts,
        counted_tokens=len(ids),
        training_tokens=len(training_tokens),
        loss=measure_ngram_loss(tables.model, validation_tokens),
        seconds=time.perf_counter() - started,
    )


def _read_tokens(source: TokenSource) -> np.ndarray:
    """All tokens, or MAX_COUNTED_TOKENS of them in segments at equal distances."""
    if len(source) <= MAX_COUNTED_TOKENS:
        return source[0 : len(source)]
    starts = [segment * len(source) // _SEGMENTS for segment in range(_SEGMENTS)]
    return np.concatenate([source[start : start + MAX_COUNTED_TOKENS // _SEGMENTS] for start in starts])
