"""The n-gram tables of a run, estimated while TensorFlow starts and the first steps are made.

A process of their own counts: TensorFlow's import and tracing are Python code, with which a thread would contend.

The tables depend on the training text only, so the time at which they are ready does not change the result of a run.
"""

import concurrent.futures
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from quickfox.config.model import ngram_config
from quickfox.config.training import MAX_COUNTED_TOKENS
from quickfox.data.dataset import Tokens
from quickfox.data.token_file import TokenSource
from quickfox.evaluation.baselines import measure_ngram_loss
from quickfox.models.ngram.counting import sort_text
from quickfox.models.ngram.kneser_ney import estimate_sorted
from quickfox.models.ngram.leave_out import LeaveOutModel, estimate_leave_out
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.tokenizers.base import UnknownToken
from quickfox.training.engine.events import NgramsEstimated
from quickfox.training.engine.ngram_process import EstimationProcess
from quickfox.training.planning.ngrams import MAX_NGRAMS

_SEGMENTS = 64
_CHUNK_TOKENS = 2**22  # read at a time


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


@dataclass(frozen=True)
class EstimationJob:
    """What is estimated of a training text.

    Attributes:
        order: number of tokens of the longest n-grams.
        vocabulary_size: V.
        training_tokens: length of the whole training text, of which a part may be counted.
        threads: that count.
        has_gate: whether a network with an n-gram gate is trained, which needs the tables without each block too.
        max_tokens: maximum number of tokens that are counted.
        tables: the tables, if they are known.
        unknown_token: of the validation text, see `Tokens`.
    """

    order: int
    vocabulary_size: int
    training_tokens: int
    threads: int = 1
    has_gate: bool = False
    max_tokens: int = MAX_COUNTED_TOKENS
    tables: NgramTables | None = None
    unknown_token: UnknownToken | None = None

    def results(self, ids: np.ndarray, validation_tokens: Tokens) -> Iterator[Any]:
        """Estimates from the counted part of the text.

        Yields:
            The tables and the event of their estimation, None if they were known; with a gate, a LeaveOutTables.
        """
        tables, report = self.tables, None
        validation_tokens = replace(validation_tokens, unknown_token=self.unknown_token)
        started = time.perf_counter()
        text = sort_text(ids, self.vocabulary_size, self.order, self.threads)
        if tables is None:
            estimate = estimate_sorted(text, MAX_NGRAMS, self.threads)
            tables = NgramTables(estimate.ngrams, estimate.tensors)  # without its model, which is not sent
            report = NgramsEstimated(
                ngrams=estimate.ngrams,
                min_counts=estimate.min_counts,
                counted_tokens=len(ids),
                training_tokens=self.training_tokens,
                loss=measure_ngram_loss(NgramTables(tables.ngrams, tables.tensors).model, validation_tokens),
                seconds=time.perf_counter() - started,
            )
        yield tables, report
        if self.has_gate:
            yield estimate_leave_out(text, tables.ngrams, tables.tensors)


class NgramEstimation:
    """The tables of a run, known or still being estimated.

    A context manager, at whose end an unfinished estimation in a process of its own is ended.

    Args:
        job: what is estimated.
        training_tokens: the training text.
        validation_tokens: the validation text, on which the n-gram model alone is evaluated; may be empty.
        in_own_process: whether a process of its own counts, so that this one can run other Python code meanwhile.

    Attributes:
        is_reported: whether the event of the estimation was taken, or there is none. From then on the tables are part
            of the model, so that no checkpoint has tables of which no event was yielded.
    """

    def __init__(
        self, job: EstimationJob, training_tokens: Tokens, validation_tokens: Tokens, *, in_own_process: bool = False
    ) -> None:
        self._result: Future[tuple[NgramTables, NgramsEstimated | None]] = Future()
        self._leave_out: Future[LeaveOutModel] = Future()
        self._job = job
        self._training_ids = training_tokens.in_counting_order
        self._validation_tokens = validation_tokens
        self.is_reported = job.tables is not None
        self._process: EstimationProcess | None = None
        if job.tables is not None and not job.has_gate:
            self._result.set_result((job.tables, None))
            return
        if in_own_process:
            self._process = EstimationProcess()
        threading.Thread(target=self._run, daemon=True).start()  # a daemon: a signal need not wait for it

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
        in_own_process: bool = False,
        max_tokens: int = MAX_COUNTED_TOKENS,
    ) -> Self:
        """Starts to estimate tables; for the arguments see NgramEstimation and EstimationJob.

        A process of its own counts with one thread, whatever `threads` is: the network is trained beside it.
        """
        job = EstimationJob(
            order,
            vocabulary_size,
            len(training_tokens.ids),
            1 if in_own_process else threads,
            has_gate,
            max_tokens,
            unknown_token=validation_tokens.unknown_token,
        )
        return cls(job, training_tokens, validation_tokens, in_own_process=in_own_process)

    @classmethod
    def restore(
        cls, tables: NgramTables, training_tokens: Tokens, *, has_gate: bool = False, in_own_process: bool = False
    ) -> Self:
        """The tables of a checkpoint; arguments as for `start`."""
        order, vocabulary_size = len(tables.ngrams), tables.ngrams[0]
        job = EstimationJob(order, vocabulary_size, len(training_tokens.ids), has_gate=has_gate, tables=tables)
        return cls(job, training_tokens, Tokens(training_tokens.ids[:0]), in_own_process=in_own_process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process is not None:
            self._process.kill()

    def _run(self) -> None:
        try:
            results = self._results()
            self._result.set_result(next(results))
            for leave_out in results:
                tables = self._result.result()[0]
                self._leave_out.set_result(LeaveOutModel(tables.ngrams, tables.tensors, leave_out))
        except BaseException as error:  # raised in the thread that asks for the result
            future = self._leave_out if self._result.done() else self._result
            future.set_exception(error)

    def _results(self) -> Iterator[Any]:
        chunks = _counted_chunks(self._training_ids, self._job.max_tokens)
        if self._process is None:
            return self._job.results(np.concatenate(list(chunks)), self._validation_tokens)
        return self._process.results(self._job, chunks, self._validation_tokens)

    @property
    def is_ready(self) -> bool:
        """Whether `tables` returns at once."""
        return self._result.done()

    def wait(self, seconds: float) -> bool:
        """Waits until the tables are estimated, at most `seconds`; returns `is_ready`."""
        concurrent.futures.wait([self._result], seconds)
        return self.is_ready

    def wait_for_leave_out(self, seconds: float) -> bool:
        """As `wait`, for `leave_out`."""
        started = time.perf_counter()
        if not self.wait(seconds) or self._result.exception() is not None:
            return self.is_ready
        concurrent.futures.wait([self._leave_out], max(0.0, seconds - (time.perf_counter() - started)))
        return self._leave_out.done()

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


def _counted_chunks(source: TokenSource, max_tokens: int) -> Iterator[np.ndarray]:
    """All tokens, or `max_tokens` of them in segments at equal distances; at least one chunk."""
    if len(source) <= max_tokens:
        segments = [(0, len(source))]
    else:
        starts = [segment * len(source) // _SEGMENTS for segment in range(_SEGMENTS)]
        segments = [(start, start + max_tokens // _SEGMENTS) for start in starts]
    for start, end in segments:
        for first in range(start, max(end, start + 1), _CHUNK_TOKENS):
            yield source[first : min(first + _CHUNK_TOKENS, end)]
