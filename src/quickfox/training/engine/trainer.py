"""The training loop: batches in, events out. Independent of files and of the terminal.

One TensorFlow call makes several steps in at most about half a second: signals are handled only between calls.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.data.batching import StreamBatches
from quickfox.data.dataset import Tokens
from quickfox.errors import DataError, DivergedError
from quickfox.models.parameters import EMBEDDING, hidden_kernels, parameter_shapes
from quickfox.training.distributed.messaging import LOST_SECONDS
from quickfox.training.distributed.strategy import Cluster, single_process, tensors_sha256
from quickfox.training.engine.events import CompletedStep, Event, Replanned, StepsCompleted, Validated
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.engine.optimizer import Optimizer, learning_rate
from quickfox.training.engine.priors import PriorBatches
from quickfox.training.engine.progress import CallTimer, Progress
from quickfox.training.engine.train_step import TrainStep, name_state, threads_of_process
from quickfox.training.engine.validation import Validation
from quickfox.training.networks.network import Network
from quickfox.training.networks.registry import build_network
from quickfox.training.planning.time_budget import StepPlan, make_budget

Array = np.ndarray[Any, Any]

CALL_SECONDS = 0.25  # target duration of one TensorFlow call
MAX_STEPS_PER_CALL = 64
HANGING_CALLS = 20  # a call hangs if it takes this many times as long as the longest recent call


class Trainer:
    """Trains one model on one text.

    Args:
        model: the model's configuration.
        training: the settings; a time budget may replan `training.steps` after the last of `training.replans`.
        training_tokens: the training text.
        validation_tokens: the validation text; empty: none.
        started: start of the run's clock, by `time.monotonic`; in a resumed run, earlier by the time already used.
        budget_seconds: wall time of the run from `started` on; None: the recorded plan is final.
        checkpoint_steps: each multiple of it ends a TensorFlow call, so that a checkpoint can be made; None: no limit.
        ngrams: the n-gram tables of the model; None: it has none.
        cluster: the devices and machines; None: this process and one device. The chief calls `run`, the other workers
            `run_as_worker`.
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
        ngrams: NgramEstimation | None = None,
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
        self.started = started
        self.budget = make_budget(budget_seconds, started, model, training, len(validation_tokens))
        self._plan = StepPlan(training, checkpoint_steps, self.budget)
        self.progress = Progress(total_steps=training.steps)
        with self.cluster.collective(), self.cluster.strategy.scope():
            self.network = build_network(model, training.random_seed, training.precision)
            self.parameters = self.network.parameters()
            self.optimizer = _build_optimizer(self.network, training)
        self.train_step = TrainStep(
            self.network, self.optimizer, training, self.cluster, has_ignored=training_tokens.loss_mask is not None
        )
        self.ngrams = ngrams
        if model.ngram_gate:
            self.train_step.trace()  # while the n-gram tables are still estimated
        leave_out = ngrams.leave_out if ngrams and model.ngram_gate else None
        self.priors = PriorBatches(training_tokens.ids, self.batches, leave_out) if leave_out else None
        threads = threads_of_process(training, self.cluster)
        self.validation = Validation(self.network, validation_tokens, training.window, threads, ngrams)
        self._start_state = self.network.initial_state(training.batch_size)
        self.state = self.cluster.scatter(self._start_state)
        self.last_steps: list[CompletedStep] = []  # of the last TensorFlow call
        self._timer = CallTimer()
        self._is_compiled = False

    def run(self) -> Iterator[Event]:
        """Trains to the end and yields events; at each of them the trainer's attributes are consistent.

        A `StepsCompleted` event is the last of its step. A `Validated` event has no samples.

        Raises:
            DivergedError: a loss is NaN or infinite; the weights are then useless.
        """
        self._broadcast_start()
        progress, steps_per_call = self.progress, 1
        while not self.is_finished:
            count = min(steps_per_call, self._plan.steps_to_next_stop(progress.step, progress.total_steps))
            self.cluster.control.send(do="steps", first=progress.step, count=count, total_steps=progress.total_steps)
            seconds = self._make_steps(count)
            steps_per_call = max(1, min(MAX_STEPS_PER_CALL, round(CALL_SECONDS * count / seconds)))
            total = self._plan.replan(progress.step, progress.total_steps, self._timer.seconds_per_step)
            if total is not None:
                progress.total_steps = total
                yield Replanned(progress.step, total)
            is_validation_due = progress.step % self.config.validation_interval == 0 or self.is_finished
            if self.ngrams and (is_validation_due or self.ngrams.is_ready) and (report := self.ngrams.take_report()):
                yield report
            if is_validation_due:
                started = time.perf_counter()
                yield self._validate()
                if self.budget:  # includes the caller's saving of a checkpoint
                    self.budget.validation_seconds = time.perf_counter() - started
            yield self._steps_completed()

    def run_as_worker(self, on_idle: Callable[[], None]) -> bool:
        """Makes the steps that the chief's trainer makes until its run ends; returns whether it was interrupted.

        Args:
            on_idle: called a few times a second while waiting for the chief, and after each TensorFlow call.

        Raises:
            PeerLostError: another worker is lost.
            QuickfoxError: another worker has failed.
        """
        self._broadcast_start()
        control = self.cluster.control
        while True:
            [message] = control.receive(on_idle)
            match message["do"]:
                case "steps":
                    self.progress.step, self.progress.total_steps = message["first"], message["total_steps"]
                    self._make_steps(message["count"])
                    on_idle()
                case "gather":
                    self.cluster.gather(self.state)
                case "digest":
                    control.send(digest=tensors_sha256(self.model_tensors()))
                case "end":
                    return bool(message["interrupted"])
                case unknown:
                    raise AssertionError(f"unknown message from the chief: {unknown}")

    @property
    def replans(self) -> dict[int, int]:
        """The changes of the plan so far: step -> total number of steps from there on."""
        return self._plan.replans

    @property
    def is_finished(self) -> bool:
        """Whether all steps are made, or early stopping applies."""
        return self.progress.is_finished(self.config.patience)

    def _make_steps(self, count: int) -> float:
        """Makes `count` steps in one TensorFlow call; returns its duration in seconds."""
        progress = self.progress
        batches = [self.batches.batch(progress.step + k) for k in range(count)]
        xs, ys = (np.stack(arrays) for arrays in zip(*batches, strict=True))  # (count, B, T) each
        priors = tuple(map(tf.constant, self.priors.batches(progress.step, count))) if self.priors else ()
        rates = [learning_rate(progress.step + k, progress.total_steps, self.config) for k in range(count)]
        started = time.perf_counter()
        with self.cluster.collective(self._call_deadline()):
            losses, self.state = self.train_step.run(
                *map(tf.constant, (xs, ys, rates)), tf.constant(progress.step, tf.int64), self.state, priors
            )
            values: list[float] = losses.numpy().tolist()
        seconds = time.perf_counter() - started
        self.last_steps = list(map(CompletedStep, range(progress.step + 1, progress.step + count + 1), values, rates))
        for completed in self.last_steps:
            self._check_finite(completed.train_loss, completed.step)
        if self._is_compiled:
            progress.record_speed(count, seconds)
            self._timer.record(count, seconds)
        self._is_compiled = True
        progress.record_losses(values)
        return seconds

    def _call_deadline(self) -> float:
        """Seconds after which a TensorFlow call must be blocked by a worker that does not respond."""
        if not self._is_compiled:
            return math.inf  # tracing and compilation take any time
        return max(LOST_SECONDS, HANGING_CALLS * self._timer.longest_call)

    def _check_finite(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"training diverged: the loss is {loss} at step {step}; "
                f"try a learning rate below {self.config.learning_rate:g}"
            )

    def _validate(self) -> Validated:
        progress = self.progress
        measured = self.validation.loss()
        if measured is not None:
            self._check_finite(measured.network_loss, progress.step)
        is_best = progress.record_validation(measured.loss if measured else None)
        return Validated(
            **self._status(),
            tokens=progress.step * self.config.batch_size * self.config.window,
            train_loss=progress.train_loss,
            validation_loss=progress.validation_loss,
            network_loss=measured.network_loss if measured and self.ngrams else None,
            best_validation_loss=progress.best_validation_loss,
            is_best=is_best,
        )

    def _steps_completed(self) -> StepsCompleted:
        progress = self.progress
        planned_seconds = (progress.total_steps - progress.step) * self._timer.seconds_per_step
        return StepsCompleted(
            **self._status(),
            train_loss=progress.running_loss,
            seconds_left=self.budget.seconds_left() if self.budget else planned_seconds,
        )

    def _status(self) -> dict[str, Any]:
        """The fields that `Validated` and `StepsCompleted` have in common."""
        progress = self.progress
        return {
            "step": progress.step,
            "total_steps": progress.total_steps,
            "epoch": progress.step / self.batches.steps_per_epoch,
            "tokens_per_second": progress.timed_steps_per_second * self.config.batch_size * self.config.window,
            "learning_rate": learning_rate(progress.step, progress.total_steps, self.config),
            "seconds": time.monotonic() - self.started,
        }

    def model_tensors(self) -> dict[str, Array]:
        """The weights, by parameter name."""
        return {name: self.parameters[name].numpy() for name in parameter_shapes(self.model)}

    def training_tensors(self) -> dict[str, Array]:
        """The other tensors of a checkpoint: optimizer slots and the carried state."""
        self.cluster.control.send(do="gather")
        tensors = {**self.optimizer.slots, **name_state(self.cluster.gather(self.state))}
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def compare_weights(self) -> None:
        """Raises QuickfoxError unless all workers have the same weights."""
        if self.cluster.size > 1:
            self.cluster.compare_digests(tensors_sha256(self.model_tensors()), self.progress.step)

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        """Replaces the weights by those given, by parameter name."""
        for name, variable in self.parameters.items():
            variable.assign(weights[name])

    def restore(self, model: Mapping[str, Array], training: Mapping[str, Array], progress: Progress) -> None:
        """Continues from a checkpoint of a trainer with the same settings.

        Args:
            model, training: what its `model_tensors` and `training_tensors` returned.
            progress: its `progress`.

        Raises:
            DataError: the tensors do not match the settings.
        """
        state = name_state(self._start_state)
        expected = {**self.optimizer.slots, **state}
        for name in sorted(expected.keys() | training.keys()):
            if name not in expected or name not in training or training[name].shape != tuple(expected[name].shape):
                raise DataError(f"the training state does not match the run's settings: {name}")
        self.load_weights(model)
        for name, slot in self.optimizer.slots.items():
            slot.assign(training[name])
        carried = [tf.constant(training[name]) for name in state]
        self._start_state = tf.nest.pack_sequence_as(self._start_state, carried)
        self.state = self.cluster.scatter(self._start_state)
        self.progress = progress

    def _broadcast_start(self) -> None:
        """Gives every worker the weights, slots and state of the chief, which may be those of a checkpoint."""
        if self.cluster.size > 1:
            for variable in (*self.parameters.values(), *self.optimizer.slots.values()):
                variable.assign(self.cluster.broadcast(tf.convert_to_tensor(variable)))
            self.state = self.cluster.scatter(tf.nest.map_structure(self.cluster.broadcast, self._start_state))


def _build_optimizer(network: Network, training: TrainingConfig) -> Optimizer:
    parameters = network.parameters()
    if training.freeze_embeddings:
        del parameters[EMBEDDING]
    kernels = hidden_kernels(network.config)
    return Optimizer(parameters, kernels, training.weight_decay, training.clip_norm, network.compute_dtype)
