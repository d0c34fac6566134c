"""The engine: a thread that generates the texts of all requests to a model.

Between two tokens the thread reads about PREFILL_TOKENS tokens of new prompts, so that a long prompt does not delay
the other texts for long, and lets new texts join the batch. If more texts wait than the batch has places, a text that
has had its place for TURN_STEPS tokens gives it up to one that waits and then waits itself; the generations take turns,
so that one with many or long texts delays the others for a bounded time only. Independent of HTTP.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from quickfox.generation.completion import MAX_BATCH_SIZE
from quickfox.generation.sampler import PREFILL_TOKENS
from quickfox.models.language_model import LanguageModel
from quickfox.serving.batch import Text, TextBatch
from quickfox.serving.generation import Event, Failure, Generation, RunningGeneration
from quickfox.tokenizers.base import Tokenizer

TURN_STEPS = 64


Deliver = Callable[[list[tuple[Generation, list[Event]]]], object]
"""Receives the events after each step, in the engine's thread; each generation's are to be given to its listener."""


def deliver_directly(events: list[tuple[Generation, list[Event]]]) -> None:
    """Calls the listeners in the engine's thread."""
    for generation, its_events in events:
        generation.listener(its_events)


@dataclass
class TokenCounts:
    """Numbers of tokens: read of prompts, and generated."""

    prompt: int = 0
    generated: int = 0


class Engine:
    """Generates the texts of all requests to a model, in a thread of its own, until it is closed.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        deliver: receives the events.
        report_failure: called with the exception that ended a generation, in the engine's thread.
        counts: incremented by the tokens of this engine; None: not counted.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        deliver: Deliver = deliver_directly,
        report_failure: Callable[[Exception], None] = lambda _: None,
        counts: TokenCounts | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._deliver = deliver
        self._report_failure = report_failure
        self._counts = counts or TokenCounts()
        self._condition = threading.Condition()
        self._submitted: deque[Generation] = deque()
        self._is_closing = False  # after the last generation
        self._is_aborting = False  # at the next token
        self._reading: deque[RunningGeneration] = deque()  # their prompts are being read
        self._waiting: deque[RunningGeneration] = deque()  # with texts that wait for a place in the batch
        self._batch = TextBatch(model)
        self._owners: dict[Text, RunningGeneration] = {}  # of the texts in the batch
        self._thread = threading.Thread(target=self._run, name="quickfox-engine", daemon=True)
        self._thread.start()

    @property
    def num_texts(self) -> int:
        """Number of texts in the batch."""
        return len(self._batch.texts)

    @property
    def num_waiting(self) -> int:
        """Number of texts that wait for a place in the batch, and of prompts that are not read yet."""
        return len(self._submitted) + len(self._reading) + sum(len(running.ready) for running in list(self._waiting))

    def submit(self, generation: Generation) -> None:
        """Start a generation; called by any thread."""
        with self._condition:
            self._submitted.append(generation)
            self._condition.notify()

    def close(self, *, when_idle: bool = False) -> None:
        """End the thread at the next token or, `when_idle`, without waiting for it, after the last generation."""
        with self._condition:
            self._is_closing = True
            self._is_aborting = not when_idle
            self._condition.notify()
        if not when_idle:
            self._thread.join()

    def _run(self) -> None:
        while self._take_submitted():
            try:
                self._discard_cancelled()
                self._read_prompts()
                self._fill_batch()
                self._step()
            except Exception as error:
                self._fail_all(error)

    def _take_submitted(self) -> bool:
        """Wait for work; returns whether there is some, and the engine is to do it."""
        with self._condition:
            while not (self._submitted or self._reading or self._waiting or self._owners):
                if self._is_closing:
                    return False
                self._condition.wait()
            if self._is_aborting:
                return False
            while self._submitted:
                self._reading.append(RunningGeneration(self._submitted.popleft(), self._model, self._tokenizer))
        return True

    def _discard_cancelled(self) -> None:
        self._reading = deque(each for each in self._reading if not each.generation.is_cancelled)
        self._waiting = deque(each for each in self._waiting if not each.generation.is_cancelled)
        cancelled = [text for text, running in self._owners.items() if running.generation.is_cancelled]
        for text in cancelled:
            del self._owners[text]
        self._batch.rearrange(cancelled, [])

    def _read_prompts(self) -> None:
        """Read parts of the prompts in turn, each of at most PREFILL_TOKENS tokens, until they are as many together."""
        tokens_read = 0
        while self._reading and tokens_read < PREFILL_TOKENS:
            running = self._reading.popleft()
            try:
                count = running.read_prompt_part()
                if running.is_prompt_read:
                    self._counts.generated += running.start_texts()
            except Exception as error:
                self._fail([running], error)
                continue
            tokens_read += count
            self._counts.prompt += count
            if not running.is_prompt_read:
                self._reading.append(running)
            elif running.ready:
                self._waiting.append(running)
            self._send([running])

    def _fill_batch(self) -> None:
        """Let waiting texts join the batch, in place of those whose turn is over."""
        num_waiting = sum(len(running.ready) for running in self._waiting)
        excess = self.num_texts + num_waiting - MAX_BATCH_SIZE
        if excess > 0:
            over = [text for text in self._owners if text.steps_in_batch >= TURN_STEPS][:excess]  # the oldest first
            self._batch.suspend(over)
            for text in over:
                running = self._owners.pop(text)
                running.ready.append(text)
                if running not in self._waiting:
                    self._waiting.append(running)
        joining: list[Text] = []
        while self._waiting and self.num_texts + len(joining) < MAX_BATCH_SIZE:
            running = self._waiting.popleft()
            text = running.ready.popleft()
            joining.append(text)
            self._owners[text] = running
            if running.ready:
                self._waiting.append(running)
        self._batch.rearrange([], joining)

    def _step(self) -> None:
        texts = list(self._batch.texts)
        finished = self._batch.step()
        self._counts.generated += len(texts)
        changed: dict[RunningGeneration, None] = {}
        for text in texts:
            running = self._owners[text]
            running.collect(text)
            changed[running] = None
        for text in finished:
            del self._owners[text]
        self._send(changed)

    def _send(self, changed: Iterable[RunningGeneration]) -> None:
        """Deliver the events of generations."""
        events = [(each.generation, each.events) for each in changed if each.events]
        for each in changed:
            each.events = []
        if events:
            self._deliver(events)

    def _fail_all(self, error: Exception) -> None:
        running = list(dict.fromkeys([*self._reading, *self._waiting, *self._owners.values()]))
        self._reading.clear()
        self._waiting.clear()
        self._owners.clear()
        self._batch = TextBatch(self._model)
        self._fail(running, error)

    def _fail(self, running: list[RunningGeneration], error: Exception) -> None:
        self._report_failure(error)
        for each in running:
            each.events = [Failure(error)]
        self._send(running)
