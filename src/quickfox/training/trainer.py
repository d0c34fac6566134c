"""The training loop: batches in, events out. It prints nothing and writes no file.

A step is cut into lanes, equal shares of the batch that run side by side, one a processor thread (see
`tensorflow_runtime.start_tensorflow`); their losses are averaged, so the lanes change nothing but rounding.
Several steps run in one TensorFlow call, so that Python's share of the time is negligible, but never more
than half a second's worth: a signal is handled only between calls.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from quickfox.config import ModelConfig, TrainingConfig
from quickfox.errors import DivergedError
from quickfox.models.parameters import parameter_shapes
from quickfox.text.batching import StreamBatches, iter_validation_windows, validation_lanes
from quickfox.training.budget import Budget
from quickfox.training.events import Replanned, StepsDone, Validated
from quickfox.training.networks import build_network
from quickfox.training.optimization import AdamW, learning_rate

Tensor = Any

CALL_SECONDS = 0.25  # aim for one TensorFlow call
VALIDATION_LANES = 64
VALIDATION_WARM_UP = 256  # tokens, at least: what an LSTM's state remembers is in practice shorter
RECENT_CALLS = 8
STATE_RESET_WINDOWS = 32
"""Each stream starts from the initial state again every so many windows, one stream after the other.

A state that is carried for ever takes the model where no text starts: measured, a model trained so had not learnt to
read from the initial state on, and on one start in 64 never found its way (14 nats per token).
"""
LOSS_HORIZON = 50  # steps over which the displayed training loss is averaged


class Trainer:
    """Trains one model on one text.

    Args:
        model: the model's shape.
        training: the settings; `training.steps` is the plan that a `budget` may correct.
        training_ids: the training text as token ids, 1-D.
        validation_ids: the held-out text, 1-D; empty: none.
        started: when the run's clock started, by `time.monotonic`.
        budget_seconds: wall time, from `started` on, to end within; None: `training.steps` is final.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        training_ids: np.ndarray[Any, Any],
        validation_ids: np.ndarray[Any, Any],
        started: float,
        budget_seconds: float | None = None,
    ) -> None:
        self.config = training
        self.model = model
        self.batches = StreamBatches(training_ids, training.batch_size, training.window, training.random_seed)
        self.validation_ids = validation_ids
        self.started = started
        self.budget = budget_seconds and Budget(
            budget_seconds, started, training.validation_interval, len(validation_ids)
        )
        self.total_steps = training.steps
        self.step = 0
        self.network = build_network(model, training.random_seed, training.precision)
        self.parameters = self.network.parameters()
        self.optimizer = AdamW(self.parameters, training.weight_decay, training.clip_norm)
        self.state = self.network.initial_state(training.batch_size)
        self.best_validation_loss = math.inf
        self.validations_without_improvement = 0
        self.training_seconds = 0.0  # in steps only: no start-up, tracing, validation or saving
        self._timed_steps = 0
        self._recent_calls: deque[tuple[int, float]] = deque(maxlen=RECENT_CALLS)  # steps, seconds
        self._lanes = _largest_divisor(training.batch_size, training.threads)
        self._lane = tf.function(self._lane_gradients, autograph=False)  # traced once for all lanes
        self.compiled_steps = tf.function(self._steps, input_signature=self._steps_signature(), autograph=False)
        self.compiled_validation = tf.function(self._validation_window, autograph=False)

    def _steps_signature(self) -> list[Any]:
        """Any number of steps, so that one trace serves all calls."""
        batches = tf.TensorSpec([None, self.config.batch_size, self.config.window], tf.int32)
        state = tf.nest.map_structure(lambda rows: tf.TensorSpec(rows.shape, rows.dtype), self.state)
        return [batches, batches, tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int64), state]

    # The compiled part ------------------------------------------------------------------------------------

    def _steps(self, xs: Tensor, ys: Tensor, rates: Tensor, first_step: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Consecutive optimizer steps: xs, ys (K, B, T) int32, rates (K,) float32 -> losses (K,), new state."""
        count = tf.shape(xs)[0]

        def body(k: Tensor, losses: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
            loss, state = self._one_step(xs[k], ys[k], rates[k], first_step + tf.cast(k, tf.int64), state)
            return k + 1, losses.write(k, loss), state

        start = (tf.constant(0), tf.TensorArray(tf.float32, size=count), state)
        _, losses, state = tf.while_loop(lambda k, *_: k < count, body, start, parallel_iterations=1)
        return losses.stack(), state

    def _one_step(self, x: Tensor, y: Tensor, rate: Tensor, step: Tensor, state: Any) -> tuple[Tensor, Any]:
        losses, gradients, states = [], [], []
        state = self._with_resets(state, step)
        for lane, (x_lane, y_lane, state_lane) in enumerate(self._split(x, y, state, self._lanes)):
            seed = tf.stack([self.config.random_seed % 2**31, tf.cast(step, tf.int32) * self._lanes + lane])
            loss, lane_gradients, new_state = self._lane(x_lane, y_lane, state_lane, seed)
            losses.append(loss)
            gradients.append(lane_gradients)
            states.append(new_state)
        mean = {name: tf.add_n([lane[name] for lane in gradients]) / self._lanes for name in self.parameters}
        self.optimizer.apply(mean, rate, step)
        return tf.add_n(losses) / self._lanes, _joined(states)

    def _with_resets(self, state: Any, step: Tensor) -> Any:
        """The state, but the initial one in the rows whose turn it is: row b at step s if b + s is a multiple."""
        rows = tf.range(self.config.batch_size, dtype=tf.int64)
        resets = tf.equal((rows + step + 1) % STATE_RESET_WINDOWS, 0)[:, None]  # (B, 1)
        initial = self.network.initial_state(self.config.batch_size)
        return tf.nest.map_structure(lambda start, carried: tf.where(resets, start, carried), initial, state)

    def _lane_gradients(self, x: Tensor, y: Tensor, state: Any, seed: Tensor) -> tuple[Tensor, dict[str, Tensor], Any]:
        """Mean loss of a lane's rows x, y (B / lanes, T), its gradients by parameter name, and its new state."""
        with tf.GradientTape() as tape:
            logits, new_state = self.network.forward(x, state, self.config.dropout, seed)
            loss = tf.reduce_mean(_cross_entropy(logits, y))
        gradients = tape.gradient(loss, self.parameters)
        return loss, {name: tf.convert_to_tensor(gradient) for name, gradient in gradients.items()}, new_state

    def _validation_window(self, x: Tensor, y: Tensor, weight: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Weighted sum of cross-entropies over one window (L, T), and the state after it."""
        lanes = _largest_divisor(x.shape[0], self.config.threads)
        totals, states = [], []
        weights = tf.split(weight, lanes)
        for (x_lane, y_lane, state_lane), w_lane in zip(self._split(x, y, state, lanes), weights, strict=True):
            logits, new_state = self.network.forward(x_lane, state_lane)
            totals.append(tf.reduce_sum(_cross_entropy(logits, y_lane) * tf.transpose(w_lane)))
            states.append(new_state)
        return tf.add_n(totals), _joined(states)

    @staticmethod
    def _split(x: Tensor, y: Tensor, state: Any, lanes: int) -> Iterator[tuple[Tensor, Tensor, Any]]:
        """Equal shares of the rows of x, y (B, T) and of the state, lane by lane."""
        parts = [tf.split(tensor, lanes) for tensor in tf.nest.flatten(state)]
        for lane, (x_lane, y_lane) in enumerate(zip(tf.split(x, lanes), tf.split(y, lanes), strict=True)):
            yield x_lane, y_lane, tf.nest.pack_sequence_as(state, [part[lane] for part in parts])

    # The loop ---------------------------------------------------------------------------------------------

    def run(self) -> Iterator[StepsDone | Replanned | Validated]:
        """Trains to the end, telling what happens.

        A `Validated` event comes when a checkpoint should be made; its `sample` is empty, for the caller to fill.

        Raises:
            DivergedError: the training loss became NaN or infinite; the weights are then worthless.
        """
        running, since_validation = math.nan, []
        steps_per_call = 1
        while self.step < self.total_steps:
            until_validation = self.config.validation_interval - self.step % self.config.validation_interval
            count = min(steps_per_call, until_validation, self.total_steps - self.step)
            losses, seconds = self._call(count)
            since_validation += losses
            for loss in losses:
                running = loss if math.isnan(running) else running + (loss - running) / LOSS_HORIZON
            steps_per_call = max(1, min(64, round(CALL_SECONDS * count / seconds)))
            yield self._steps_done(running)
            if self.budget:
                total = self.budget.replan(
                    self.step, self.total_steps, self.seconds_per_step, self.config.batch_size * self.config.window
                )
                if total is not None:
                    self.total_steps = total
                    yield Replanned(self.step, self.total_steps)
            if self.step % self.config.validation_interval == 0 or self.step >= self.total_steps:
                started = time.perf_counter()
                yield self._validated(float(np.mean(since_validation)))
                if self.budget:  # the caller has saved a checkpoint meanwhile, which takes its time too
                    self.budget.note_validation(time.perf_counter() - started)
                since_validation = []
                patience = self.config.patience
                if patience and self.validations_without_improvement >= patience:
                    return

    def _call(self, count: int) -> tuple[list[float], float]:
        """Runs `count` steps; returns their losses and the seconds they took."""
        batches = [self.batches.batch(self.step + k) for k in range(count)]
        xs, ys = (np.stack(part) for part in zip(*batches, strict=True))
        rates = [learning_rate(self.step + k, self.total_steps, self.config) for k in range(count)]
        started = time.perf_counter()
        losses, self.state = self.compiled_steps(
            tf.constant(xs), tf.constant(ys), tf.constant(rates), tf.constant(self.step, tf.int64), self.state
        )
        values: list[float] = losses.numpy().tolist()
        seconds = time.perf_counter() - started
        for k, loss in enumerate(values):
            if not math.isfinite(loss):
                raise DivergedError(
                    f"training diverged: the loss is {loss} at step {self.step + k + 1}; "
                    f"try a lower --learning-rate than {self.config.learning_rate:g}"
                )
        if self.step > 0:  # the first call traces and compiles
            self.training_seconds += seconds
            self._timed_steps += count
            self._recent_calls.append((count, seconds))
        self.step += count
        return values, seconds

    def _validated(self, train_loss: float) -> Validated:
        loss = self.validation_loss()
        is_best = loss is None or loss < self.best_validation_loss
        if loss is not None:
            self.best_validation_loss = min(loss, self.best_validation_loss)
            self.validations_without_improvement = 0 if is_best else self.validations_without_improvement + 1
        return Validated(
            step=self.step,
            total_steps=self.total_steps,
            epoch=self.epoch,
            tokens=self.tokens,
            train_loss=train_loss,
            validation_loss=loss,
            best_validation_loss=None if loss is None else self.best_validation_loss,
            is_best=is_best,
            tokens_per_second=self.tokens_per_second,
            learning_rate=learning_rate(self.step, self.total_steps, self.config),
            seconds=time.monotonic() - self.started,
            sample="",
        )

    def validation_loss(self) -> float | None:
        """Mean nats per token over every held-out token but the first; None without a held-out text.

        The state is zero at the start and then carried: the text is read in lanes side by side, each after a
        warm-up on the tokens before it (see `iter_validation_windows`).
        """
        ids = self.validation_ids
        if len(ids) < 2:
            return None
        window = self.config.window
        warm_up = -(-VALIDATION_WARM_UP // window) * window
        lanes = validation_lanes(len(ids), VALIDATION_LANES, warm_up)
        state, total = self.network.initial_state(lanes), 0.0
        for part in iter_validation_windows(ids, VALIDATION_LANES, window, warm_up):
            if part.reset_first:
                state = tf.nest.map_structure(lambda rows: tf.concat([tf.zeros_like(rows[:1]), rows[1:]], 0), state)
            window_total, state = self.compiled_validation(
                tf.constant(part.x), tf.constant(part.y), tf.constant(part.weight), state
            )
            total += float(window_total)
        return total / (len(ids) - 1)

    # What others read -------------------------------------------------------------------------------------

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.step * self.config.batch_size * self.config.window

    @property
    def epoch(self) -> float:
        """Passes over the training text so far."""
        return self.step / self.batches.steps_per_epoch

    @property
    def seconds_per_step(self) -> float:
        """Mean duration of a step of late; NaN before one was timed."""
        if not self._recent_calls:
            return math.nan
        return sum(seconds for _, seconds in self._recent_calls) / sum(steps for steps, _ in self._recent_calls)

    @property
    def tokens_per_second(self) -> float:
        """Training throughput: no start-up, validation or saving; 0 before a step was timed."""
        tokens = self._timed_steps * self.config.batch_size * self.config.window
        return tokens / self.training_seconds if tokens else 0.0

    def model_tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """The weights by the contract's names."""
        return {name: self.parameters[name].numpy() for name in parameter_shapes(self.model)}

    def training_tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """What else a resumed run needs: optimizer slots and the carried state."""
        tensors = {name: slot.numpy() for name, slot in self.optimizer.slots.items()}
        for layer, (h, c) in enumerate(self.state):
            tensors[f"state.{layer}.h"], tensors[f"state.{layer}.c"] = h.numpy(), c.numpy()
        return tensors

    def _steps_done(self, running_loss: float) -> StepsDone:
        left = (self.total_steps - self.step) * self.seconds_per_step
        return StepsDone(
            step=self.step,
            total_steps=self.total_steps,
            epoch=self.epoch,
            train_loss=running_loss,
            tokens_per_second=self.tokens_per_second,
            learning_rate=learning_rate(self.step, self.total_steps, self.config),
            seconds=time.monotonic() - self.started,
            seconds_left=self.budget.seconds_left() if self.budget else left,
        )


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target: logits (T, B, V) float32, targets (B, T) int32 -> (T, B)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.transpose(targets), logits=logits)


def _joined(states: list[Any]) -> Any:
    """The lanes' states as one: each tensor (B/lanes, ...) -> (B, ...)."""
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *states)


def _largest_divisor(number: int, at_most: int) -> int:
    return max(candidate for candidate in range(1, min(number, at_most) + 1) if number % candidate == 0)
