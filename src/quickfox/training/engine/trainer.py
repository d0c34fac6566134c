"""The training loop: batches in, events out. It prints nothing and writes no file.

Several steps run in one TensorFlow call, but never more than half a second's worth: a signal is handled only
between calls.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.data.batching import StreamBatches, iter_validation_windows, validation_segments
from quickfox.data.dataset import Tokens
from quickfox.errors import DataError, DivergedError
from quickfox.models.parameters import EMBEDDING, hidden_kernels, parameter_shapes
from quickfox.training.distributed.messaging import LOST_SECONDS
from quickfox.training.distributed.strategy import Cluster, single_process, tensors_sha256
from quickfox.training.engine.events import Replanned, StepsCompleted, Validated
from quickfox.training.engine.optimizer import Optimizer, learning_rate
from quickfox.training.engine.progress import Progress
from quickfox.training.engine.train_step import CompiledTraining
from quickfox.training.networks.registry import build_network
from quickfox.training.planning.time_budget import Budget

Array = np.ndarray[Any, Any]

CALL_SECONDS = 0.25  # aim for one TensorFlow call
MAX_STEPS_PER_CALL = 64
VALIDATION_SEGMENTS = 64
VALIDATION_WARM_UP = 256  # tokens, at least: what a recurrent state remembers is in practice shorter
RECENT_CALLS = 8
HANGING_CALLS = 20  # a call hangs that takes as long as so many of late


class Trainer:
    """Trains one model on one text.

    Args:
        model: the model's shape.
        training: the settings; a `budget` may correct `training.steps` after the last of `training.replans`.
        training_tokens: the training text.
        validation_tokens: the held-out text; empty: none.
        started: when the run's clock started, by `time.monotonic`; earlier parts of a resumed run moved it back.
        budget_seconds: wall time, from `started` on, to end within; None: the recorded plan is final.
        checkpoint_steps: no call runs past a multiple of it, so that a checkpoint can be made there; None: no matter.
        cluster: the devices and machines; None: this process, with one device. The chief `run`s, the others `follow`.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        training_tokens: Tokens,
        validation_tokens: Tokens,
        started: float,
        budget_seconds: float | None = None,
        checkpoint_steps: int | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.config = training
        self.model = model
        self.cluster = cluster or single_process()
        self.batches = StreamBatches(
            training_tokens.ids,
            training.batch_size,
            training.window,
            training.random_seed,
            training_tokens.loss_mask,
            self.cluster.local_rows(training.batch_size),
        )
        self.validation_tokens = validation_tokens
        self.started = started
        self.checkpoint_steps = checkpoint_steps
        self.budget = budget_seconds and Budget(
            budget_seconds, started, training.validation_interval, len(validation_tokens)
        )
        self.replans = dict(training.replans)  # step -> total steps from there on
        self.progress = Progress(total_steps=training.steps)
        with self.cluster.collective(), self.cluster.strategy.scope():
            self.network = build_network(model, training.random_seed, training.precision)
            self.parameters = self.network.parameters()
            frozen = (EMBEDDING,) if training.freeze_embeddings else ()
            self.optimizer = Optimizer(
                {name: self.parameters[name] for name in self.parameters if name not in frozen},
                hidden_kernels(model),
                training.weight_decay,
                training.clip_norm,
                self.network.compute_dtype,
            )
        self.compiled = CompiledTraining(
            self.network, self.optimizer, training, self.cluster, has_ignored=training_tokens.loss_mask is not None
        )
        self._start_state = self.network.initial_state(training.batch_size)
        self.state = self.cluster.scatter(self._start_state)
        self._recent_calls: deque[tuple[int, float]] = deque(maxlen=RECENT_CALLS)  # steps, seconds
        self._is_compiled = False

    # The loop ---------------------------------------------------------------------------------------------

    def run(self) -> Iterator[StepsCompleted | Replanned | Validated]:
        """Trains to the end, telling what happens; between two events everything about the trainer is consistent.

        The `sample` of a `Validated` event is empty, for the caller to fill. `StepsCompleted` is the last word on the steps
        it speaks of.

        Raises:
            DivergedError: a loss became NaN or infinite; the weights are then worthless.
        """
        self._share_start()
        progress = self.progress
        steps_per_call = 1
        while not self.is_finished:
            count = min(steps_per_call, self._steps_to_next_stop())
            self.cluster.control.send(do="steps", first=progress.step, count=count, total_steps=progress.total_steps)
            seconds = self._call(count)
            steps_per_call = max(1, min(MAX_STEPS_PER_CALL, round(CALL_SECONDS * count / seconds)))
            total = self._replanned_total()
            if total is not None:
                progress.total_steps = total
                self.replans[progress.step] = total
                yield Replanned(progress.step, total)
            if progress.step % self.config.validation_interval == 0 or progress.step >= progress.total_steps:
                started = time.perf_counter()
                yield self._validated()
                if self.budget:  # the caller has saved a checkpoint meanwhile, which takes its time too
                    self.budget.note_validation(time.perf_counter() - started)
            yield self._steps_completed()

    def run_as_worker(self, meanwhile: Callable[[], None]) -> bool:
        """Does as the chief's trainer does, until its run ends; returns whether it was interrupted.

        Args:
            meanwhile: called a few times a second while there is nothing to do, and after each call of TensorFlow.

        Raises:
            PeerLostError: another worker is lost.
            QuickfoxError: another worker has failed.
        """
        self._share_start()
        control = self.cluster.control
        while True:
            [order] = control.receive(meanwhile)
            match order["do"]:
                case "steps":
                    self.progress.step, self.progress.total_steps = order["first"], order["total_steps"]
                    self._call(order["count"])
                    meanwhile()
                case "gather":
                    self.cluster.gather(self.state)
                case "digest":
                    control.send(digest=tensors_sha256(self.model_tensors()))
                case "end":
                    return bool(order["interrupted"])
                case unknown:
                    raise AssertionError(f"the chief orders {unknown}")

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing more to do."""
        return self.progress.is_finished(self.config.patience)

    def _steps_to_next_stop(self) -> int:
        """Steps until something other than a step may be due."""
        step = self.progress.step
        stops = [self.progress.total_steps, *(replan for replan in self.replans if replan > step)]
        for interval in (self.config.validation_interval, self.checkpoint_steps):
            if interval:
                stops.append(step + interval - step % interval)
        return min(stops) - step

    def _replanned_total(self) -> int | None:
        """The new total number of steps if the plan changes at this step: as recorded, or else as measured."""
        step, total = self.progress.step, self.progress.total_steps
        if any(replan >= step for replan in self.replans):
            return self.replans.get(step)
        if not self.budget:
            return None
        tokens_per_step = self.config.batch_size * self.config.window
        return self.budget.replan(step, total, self.seconds_per_step, tokens_per_step)

    def _call(self, count: int) -> float:
        """Runs `count` steps; returns the seconds they took."""
        progress = self.progress
        batches = [self.batches.batch(progress.step + k) for k in range(count)]
        xs, ys = (np.stack(part) for part in zip(*batches, strict=True))
        rates = [learning_rate(progress.step + k, progress.total_steps, self.config) for k in range(count)]
        started = time.perf_counter()
        with self.cluster.collective(self._longest_wait()):
            losses, self.state = self.compiled.steps(
                tf.constant(xs), tf.constant(ys), tf.constant(rates), tf.constant(progress.step, tf.int64), self.state
            )
            values: list[float] = losses.numpy().tolist()
        seconds = time.perf_counter() - started
        for k, loss in enumerate(values):
            if not math.isfinite(loss):
                raise self._diverged(loss, progress.step + k + 1)
        if self._is_compiled:  # the first call traces and compiles
            progress.note_speed(count, seconds)
            self._recent_calls.append((count, seconds))
        self._is_compiled = True
        progress.note_losses(values)
        return seconds

    def _longest_wait(self) -> float:
        """Seconds after which a call of TensorFlow must have hung, for want of an answer from another worker."""
        if not self._is_compiled:
            return math.inf  # the first call traces and compiles, which takes as long as it takes
        return max(LOST_SECONDS, HANGING_CALLS * max((seconds for _, seconds in self._recent_calls), default=0.0))

    def _diverged(self, loss: float, step: int) -> DivergedError:
        return DivergedError(
            f"training diverged: the loss is {loss} at step {step}; "
            f"try a lower --learning-rate than {self.config.learning_rate:g}"
        )

    def _validated(self) -> Validated:
        progress = self.progress
        loss = self.validation_loss()
        if loss is not None and not math.isfinite(loss):  # the last step's weights, whose training loss nobody saw
            raise self._diverged(loss, progress.step)
        is_best = progress.note_validation(loss)
        assert progress.train_loss is not None
        return Validated(
            step=progress.step,
            total_steps=progress.total_steps,
            epoch=self.epoch,
            tokens=self.tokens,
            train_loss=progress.train_loss,
            validation_loss=progress.validation_loss,
            best_validation_loss=progress.best_validation_loss,
            is_best=is_best,
            tokens_per_second=self.tokens_per_second,
            learning_rate=learning_rate(progress.step, progress.total_steps, self.config),
            seconds=time.monotonic() - self.started,
            sample="",
        )

    def validation_loss(self) -> float | None:
        """Mean nats per token over every held-out token to predict but the first; None if there is none.

        The state is zero at the start and then carried: the text is read in lanes side by side, each after a
        warm-up on the tokens before it (see `iter_validation_windows`). With attention, each token of a lane sees a
        whole context, as it would in the carried text, except where the text itself has only begun.
        """
        tokens = self.validation_tokens
        if tokens.num_targets == 0:
            return None
        window = self.config.window
        warm_up = -(-max(VALIDATION_WARM_UP, self.model.context or 0) // window) * window
        lanes = validation_segments(len(tokens), VALIDATION_SEGMENTS, warm_up)
        state, total = self.network.initial_state(lanes), 0.0
        for part in iter_validation_windows(tokens.ids, VALIDATION_SEGMENTS, window, warm_up, tokens.loss_mask):
            if part.reset_first:
                state = self.network.reset_rows(state, tf.range(lanes) == 0)
            window_total, state = self.compiled.validation_window(
                tf.constant(part.x), tf.constant(part.y), tf.constant(part.weight), state
            )
            total += float(window_total)
        mean: float = total / tokens.num_targets
        return mean

    # What others read -------------------------------------------------------------------------------------

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.progress.step * self.config.batch_size * self.config.window

    @property
    def epoch(self) -> float:
        """Passes over the training text so far."""
        return self.progress.step / self.batches.steps_per_epoch

    @property
    def seconds_per_step(self) -> float:
        """Mean duration of a step of late; NaN before one was timed."""
        if not self._recent_calls:
            return math.nan
        return sum(seconds for _, seconds in self._recent_calls) / sum(steps for steps, _ in self._recent_calls)

    @property
    def tokens_per_second(self) -> float:
        """Training throughput: no start-up, validation or saving; 0 before a step was timed."""
        return self.progress.timed_steps_per_second * self.config.batch_size * self.config.window

    def model_tensors(self) -> dict[str, Array]:
        """The weights by the contract's names."""
        return {name: self.parameters[name].numpy() for name in parameter_shapes(self.model)}

    def training_tensors(self) -> dict[str, Array]:
        """What else a resumed run needs: optimizer slots and the carried state."""
        self.cluster.control.send(do="gather")
        tensors = {**self.optimizer.slots, **_named(self.cluster.gather(self.state))}
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def compare_weights(self) -> None:
        """Makes sure that all workers have the same weights.

        Raises:
            QuickfoxError: one has not: its machine, or ours, computes something else.
        """
        if self.cluster.size > 1:
            self.cluster.compare_digests(tensors_sha256(self.model_tensors()), self.progress.step)

    def load_weights(self, model: Mapping[str, Array]) -> None:
        """Begins with these weights, by the contract's names, instead of fresh ones."""
        for name, variable in self.parameters.items():
            variable.assign(model[name])

    def restore(self, model: Mapping[str, Array], training: Mapping[str, Array], progress: Progress) -> None:
        """Goes on from where another trainer of the same settings was.

        Args:
            model, training: what `model_tensors` and `training_tensors` of the other returned.
            progress: its `progress`.

        Raises:
            DataError: the tensors are not those of these settings.
        """
        state = _named(self._start_state)
        expected = {**self.optimizer.slots, **state}
        if {name: array.shape for name, array in training.items()} != {
            name: tuple(tensor.shape) for name, tensor in expected.items()
        }:
            odd = sorted(expected.keys() ^ training.keys()) or ["a shape"]
            raise DataError(f"the training state does not fit the run's settings: {odd[0]}")
        self.load_weights(model)
        for name, slot in self.optimizer.slots.items():
            slot.assign(training[name])
        carried = [tf.constant(training[name]) for name in state]
        self._start_state = tf.nest.pack_sequence_as(self._start_state, carried)
        self.state = self.cluster.scatter(self._start_state)
        self.progress = progress

    def _share_start(self) -> None:
        """Gives every worker the chief's weights, slots and state, which only the chief may have read from a file."""
        if self.cluster.size > 1:
            for variable in (*self.parameters.values(), *self.optimizer.slots.values()):
                variable.assign(self.cluster.broadcast(tf.convert_to_tensor(variable)))
            self.state = self.cluster.scatter(tf.nest.map_structure(self.cluster.broadcast, self._start_state))

    def _steps_completed(self) -> StepsCompleted:
        progress = self.progress
        assert progress.running_loss is not None
        left = (progress.total_steps - progress.step) * self.seconds_per_step
        return StepsCompleted(
            step=progress.step,
            total_steps=progress.total_steps,
            epoch=self.epoch,
            train_loss=progress.running_loss,
            tokens_per_second=self.tokens_per_second,
            learning_rate=learning_rate(progress.step, progress.total_steps, self.config),
            seconds=time.monotonic() - self.started,
            seconds_left=self.budget.seconds_left() if self.budget else left,
        )


def _named(state: Any) -> dict[str, Any]:
    """The tensors of a carried state by the names that they have in a checkpoint."""
    return {f"state.{index}": tensor for index, tensor in enumerate(tf.nest.flatten(state))}
