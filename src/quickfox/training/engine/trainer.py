"""The training loop: batches in, events out. Independent of files and of the terminal.

One TensorFlow call makes several steps, in about half a second: signals are handled only between calls.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.data.batching import StreamBatches, open_batches
from quickfox.data.dataset import Tokens
from quickfox.errors import DataError
from quickfox.models.parameters import parameter_shapes
from quickfox.training.distributed.strategy import Cluster, single_process, tensors_sha256
from quickfox.training.engine.events import CompletedStep, Event, Replanned, StepsCompleted, Validated, WaitingForNgrams
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.engine.optimizer import build_optimizer, learning_rate
from quickfox.training.engine.priors import PriorBatches
from quickfox.training.engine.progress import CallTimer, Progress, check_finite
from quickfox.training.engine.train_step import TrainStep, name_state, threads_of_process
from quickfox.training.engine.validation import Validation
from quickfox.training.networks.registry import build_network
from quickfox.training.planning.time_budget import StepPlan, make_budget
from quickfox.training.tensorflow_runtime import paused_garbage_collection

Array = np.ndarray[Any, Any]

STEPS, SAVE, END = 1, 2, 3  # decisions of the chief
POLLING_SECONDS = 0.25  # between two events while the n-gram tables are waited for


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
        stop_requested: polled during a validation, and by workers before each call.
        cluster: the devices and machines; None: this process and one device. The chief calls `run`, then `end`, the
            other workers `run_as_worker`.
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
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config = training
        self.model = model
        self.cluster = cluster or single_process()
        self.batches = open_batches(training_tokens, training, self.cluster.local_rows(training.batch_size))
        self.started = started
        self.budget = make_budget(budget_seconds, started, model, training, len(validation_tokens))
        self._plan = StepPlan(training, checkpoint_steps, self.budget)
        self.progress = Progress(total_steps=training.steps)
        self.cluster.exchange()  # raises the error of a worker that has failed before
        with self.cluster.collective(), self.cluster.strategy.scope():
            self.network = build_network(model, training.random_seed, training.precision)
            self.parameters = self.network.parameters()
            self.optimizer = build_optimizer(self.network, training)
        self.train_step = TrainStep(
            self.network, self.optimizer, training, self.cluster, has_ignored=training_tokens.loss_mask is not None
        )
        self.ngrams = ngrams
        self._stop_requested = stop_requested
        if model.ngram_gate:
            with paused_garbage_collection():
                self.train_step.trace()  # while the n-gram tables are still estimated
        self._training_tokens = training_tokens
        self.priors: PriorBatches | None = None  # of the n-gram gate, once its tables are estimated
        threads = threads_of_process(training, self.cluster)
        self.validation = Validation(self.network, validation_tokens, self.batches.windows, threads, ngrams)
        self._start_state = self.train_step.initial_state()
        self.state = self.cluster.scatter(self._start_state)
        self.last_steps: list[CompletedStep] = []  # of the last TensorFlow call
        self._timer = CallTimer()

    def run(self) -> Iterator[Event]:
        """Trains to the end and yields events; at each of them the trainer's attributes are consistent.

        A `StepsCompleted` event is the last of its step. A `Validated` event has no samples.

        Raises:
            DivergedError: a loss is NaN or infinite; the weights are then useless.
            ValidationStoppedError: a stop was requested during a validation, with which a resumed run begins.
        """
        self._broadcast_start()
        progress = self.progress
        if self.ngrams and self.model.ngram_gate:
            while not self.ngrams.wait_for_leave_out(POLLING_SECONDS):
                yield WaitingForNgrams(progress.step)
            assert isinstance(self.batches, StreamBatches)
            self.priors = PriorBatches(self._training_tokens, self.batches, self.ngrams.leave_out)
        while not self.is_finished:
            if not self._is_validation_due:  # it is due in a run that was stopped while it waited for its tables
                yield from self._make_call()
            if self.ngrams:
                while self._is_validation_due and not self.ngrams.wait(POLLING_SECONDS):
                    yield WaitingForNgrams(progress.step)
                if self.ngrams.is_ready and (report := self.ngrams.take_report()):
                    yield report
            if self._is_validation_due:
                started = time.perf_counter()
                yield self._validate()
                if self.budget:  # includes the caller's saving of a checkpoint
                    self.budget.validation_seconds = time.perf_counter() - started
            yield self._steps_completed()

    def _make_call(self) -> Iterator[Event]:
        """Makes the steps of one TensorFlow call, and corrects the plan if a correction is due."""
        progress = self.progress
        count = min(self._timer.steps_per_call, self._plan.steps_to_next_stop(progress.step, progress.total_steps))
        self._decide(STEPS, count)
        self._make_steps(count)
        if self.budget and self.budget.is_validation_unmeasured and (self.ngrams is None or self.ngrams.is_ready):
            self.budget.validation_seconds = self.validation.estimate_seconds()
        total = self._plan.replan(progress.step, progress.total_steps, self._timer.seconds_per_step)
        if total is not None:
            progress.total_steps = total
            yield Replanned(progress.step, total)

    def end(self, *, is_interrupted: bool) -> None:
        """Ends the `run_as_worker` of all other workers."""
        self._decide(END, is_interrupted)
        self.cluster.barrier()

    def run_as_worker(self) -> bool:
        """Does what the chief decides until its run ends; returns whether it was interrupted.

        Raises PeerLostError if another worker is lost, and the error of one that has failed.
        """
        self._broadcast_start()
        while (decided := self._decide())[0] != END:
            if decided[0] == STEPS:
                self._make_steps(decided[1])
            else:
                self._gather_tensors()
        self.cluster.barrier()
        return bool(decided[1])

    def _decide(self, decision: int = 0, value: int = 0) -> tuple[int, int]:
        """The chief's next decision and its number: STEPS to make, SAVE, or END; on the other workers, waits for it."""
        progress, is_stopping = self.progress, self._stop_requested()
        chief, *_ = self.cluster.exchange(decision, value, progress.step, progress.total_steps, stop=is_stopping)
        decision, value, progress.step, progress.total_steps = chief
        return decision, value

    @property
    def replans(self) -> dict[int, int]:
        """The changes of the plan so far: step -> total number of steps from there on."""
        return self._plan.replans

    @property
    def is_finished(self) -> bool:
        """Whether all steps are made and validated, or early stopping applies."""
        return self.progress.is_finished(self.config.patience)

    @property
    def _is_validation_due(self) -> bool:
        return self.progress.is_validation_due(self.config.validation_interval)

    def _make_steps(self, count: int) -> None:
        """Makes `count` steps, in one TensorFlow call if all their windows are of the same length."""
        started, steps, self.last_steps = time.perf_counter(), 0, []
        with self.cluster.other_operations():
            batches = [self.batches.batch(self.progress.step + k) for k in range(count)]
            for window, consecutive in itertools.groupby(batches, lambda batch: batch[0].shape[1]):
                arrays = [np.stack(each) for each in zip(*consecutive, strict=True)]  # (count, B, T), (count, B, T, F)
                if window in self._timer.compiled:
                    self._call(*arrays)
                    steps += len(arrays[0])
                    continue
                before = time.perf_counter()
                with paused_garbage_collection():  # the first call traces and compiles
                    self._call(*arrays)
                self._timer.compiled.add(window)
                started += time.perf_counter() - before
        for completed in self.last_steps:
            check_finite(completed.train_loss, completed.step, self.config.learning_rate)
        if steps:
            seconds = time.perf_counter() - started
            self.progress.record_speed(steps, seconds)
            self._timer.record(steps, seconds)

    def _call(self, xs: Array, ys: Array, *frames: Array) -> None:
        """Makes steps in one TensorFlow call: xs, ys (count, B, T), frames (count, B, T, F)."""
        progress, count = self.progress, len(xs)
        priors = self.priors.batches(progress.step, count) if self.priors else ()
        rates = [learning_rate(progress.step + k, progress.total_steps, self.config) for k in range(count)]
        with self.cluster.collective():
            losses, self.state = self.train_step.run(xs, ys, rates, progress.step, self.state, priors, frames)
            values: list[float] = losses.numpy().tolist()
        self.last_steps += map(CompletedStep, range(progress.step + 1, progress.step + count + 1), values, rates)
        progress.record_losses(values)

    def _validate(self) -> Validated:
        progress = self.progress
        measured = self.validation.loss(self._stop_requested)
        if measured is not None:
            check_finite(measured.network_loss, progress.step, self.config.learning_rate)
            progress.exponents = measured.exponents
        is_best = progress.record_validation(measured.loss if measured else None)
        return Validated(
            **self._status(),
            tokens=progress.step * self.config.tokens_per_step,
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
            "tokens_per_second": progress.timed_steps_per_second * self.config.tokens_per_step,
            "learning_rate": learning_rate(progress.step, progress.total_steps, self.config),
            "seconds": time.monotonic() - self.started,
        }

    def model_tensors(self) -> dict[str, Array]:
        """The weights, by parameter name."""
        return {name: self.parameters[name].numpy() for name in parameter_shapes(self.model)}

    def training_tensors(self) -> dict[str, Array]:
        """The other tensors of a checkpoint: slots and carried state. QuickfoxError: weights of workers differ."""
        self._decide(SAVE)
        return self._gather_tensors()

    def _gather_tensors(self) -> dict[str, Array]:
        if self.cluster.size > 1:
            self.cluster.compare_digests(tensors_sha256(self.model_tensors()), self.progress.step)
        tensors = {**self.optimizer.slots, **name_state(self.cluster.gather(self.state))}
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        """Replaces the weights by those given, by parameter name."""
        for name, variable in self.parameters.items():
            variable.assign(weights[name])

    def restore(self, model: Mapping[str, Array], training: Mapping[str, Array], progress: Progress) -> None:
        """Continues from a checkpoint of a trainer with the same settings.

        Args:
            model, training, progress: what its `model_tensors` and `training_tensors` returned, and its `progress`.

        Raises DataError if the tensors do not match the settings.
        """
        state = name_state(self._start_state)
        expected = {**self.optimizer.slots, **state}
        for name in sorted(expected.keys() | training.keys()):
            if name not in expected or name not in training or training[name].shape != tuple(expected[name].shape):
                raise DataError(f"the training state does not match the run's settings: {name}")
        self.load_weights(model)
        for name, slot in self.optimizer.slots.items():
            slot.assign(training[name])
        self._start_state = tf.nest.pack_sequence_as(self._start_state, [tf.constant(training[name]) for name in state])
        self.state = self.cluster.scatter(self._start_state)
        self.progress = progress

    def _broadcast_start(self) -> None:
        """Gives every worker the weights, slots and state of the chief, which may be those of a checkpoint."""
        if self.cluster.size > 1:
            self.cluster.exchange()  # raises the error of a chief that could not restore them
            for variable in (*self.parameters.values(), *self.optimizer.slots.values()):
                variable.assign(self.cluster.broadcast(tf.convert_to_tensor(variable)))
            self.state = self.cluster.scatter(tf.nest.map_structure(self.cluster.broadcast, self._start_state))
