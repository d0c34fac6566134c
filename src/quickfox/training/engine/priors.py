"""What the n-gram gate of a network reads in training: the distributions of n-gram models without the target's block.

They are computed ahead on a thread while TensorFlow makes the steps before. Those of a step are a pure function of the
step, so which are computed ahead does not change the result of a run.
"""

import threading
from collections import deque
from concurrent.futures import Future

import numpy as np

from quickfox.data.batching import StreamBatches
from quickfox.data.dataset import Tokens
from quickfox.data.token_file import gather
from quickfox.models.language_model import Prior
from quickfox.models.ngram.leave_out import LeaveOutModel, block_bounds

MIN_STEPS_AHEAD = 8

MAX_BYTES_AHEAD = 2**26
"""Memory of the distributions that are computed ahead, unless those of one step are larger."""


class PriorBatches:
    """The n-gram distributions for the batches of a run.

    Those of the next steps are computed ahead: of 8, or of as many as were requested at a time. A thread runs as long
    as there are any to compute.

    Args:
        tokens: n of them, of the training text, from which `batches` reads.
        batches: the batches.
        leave_out: the n-gram models of the text in its counting order (see `Tokens.in_counting_order`). If they count
            only a part of it, the text of each of their blocks is in the block of the whole with the same number.
    """

    def __init__(self, tokens: Tokens, batches: StreamBatches, leave_out: LeaveOutModel) -> None:
        self._tokens = tokens
        self._batches = batches
        self._leave_out = leave_out
        self._last_bounds = block_bounds(len(tokens))[1:-1]
        self._max_steps_ahead = max(1, MAX_BYTES_AHEAD // self._step_bytes())
        self._pending: dict[int, Future[Prior]] = {}  # by step
        self._lock = threading.Lock()
        self._queue: deque[tuple[int, Future[Prior]]] = deque()
        self._has_thread = False

    def batch(self, step: int) -> Prior:
        """The distributions for a step.

        Args:
            step: number of optimizer steps before this one, >= 0.

        Returns:
            log_probs (B, T, V) float32 after each token of x of `StreamBatches.batch`, without the block of the token
            that follows; lengths (B, T) int32.

        Raises:
            StorageError: the text cannot be read.
        """
        return self._take(step, 1)[0]

    def batches(self, first_step: int, count: int) -> Prior:
        """The distributions for several steps, (count, B, T, V) and (count, B, T); otherwise as `batch`."""
        log_probs, lengths = zip(*self._take(first_step, count), strict=True)
        return Prior(np.stack(log_probs), np.stack(lengths))

    def _take(self, first_step: int, count: int) -> list[Prior]:
        """The distributions for `count` steps; those of the following steps are computed from now on."""
        steps = range(first_step, first_step + count)
        ahead = min(max(MIN_STEPS_AHEAD, count), self._max_steps_ahead)
        requested = range(first_step, steps.stop + ahead)
        with self._lock:
            self._queue.clear()
            kept = {step: future for step, future in self._pending.items() if step in requested}
            self._pending = {step: kept.get(step) or Future() for step in requested}
            self._queue.extend(item for item in self._pending.items() if not item[1].running() and not item[1].done())
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._run, daemon=True).start()  # a daemon: a signal need not wait for it
        return [self._pending.pop(step).result() for step in steps]

    def _run(self) -> None:
        """Computes what is in the queue."""
        while True:
            with self._lock:
                if not self._queue:
                    self._has_thread = False
                    return
                step, future = self._queue.popleft()
                future.set_running_or_notify_cancel()
            try:
                future.set_result(self._compute(step))
            except BaseException as error:  # raised in the thread that asks for the step
                future.set_exception(error)

    def _compute(self, step: int) -> Prior:
        window, num_context = self._batches.window, self._leave_out.context
        positions = self._batches.positions(step, num_context)  # (B, C + T + 1)
        tokens = gather(self._tokens.ids, positions[:, :-1])  # (B, C + T)
        targets = self._tokens.counting_positions(positions[:, -window:])  # (B, T)
        blocks = np.searchsorted(self._last_bounds, targets, side="right")
        return self._leave_out.prior(tokens.astype(np.int64), blocks)

    def _step_bytes(self) -> int:
        return 4 * self._batches.num_rows * self._batches.window * self._leave_out.vocabulary_size
