"""Optimizer steps as a TensorFlow graph that is traced once.

The rows of a replica are split into microbatches, one per processor thread, which run concurrently (see
`tensorflow_runtime.start_tensorflow`). Losses and gradients are averaged over all microbatches of all replicas (see
`distributed/strategy.py`), so the numbers of threads and replicas affect rounding only. One call makes any number of
consecutive steps, so the time spent in Python is negligible.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from quickfox.config.training import TrainingConfig
from quickfox.data.dataset import IGNORED
from quickfox.training.distributed.strategy import Cluster
from quickfox.training.engine.optimizer import Optimizer
from quickfox.training.networks.matmul import Tensor
from quickfox.training.networks.network import Dropout, FrameTensors, Network, PriorTensors, State
from quickfox.training.tensorflow_runtime import has_gpu

STATE_RESET_WINDOWS = 32
"""Windows after which the state of a stream is reset to the initial state, at a different step for each stream.

If states are carried without end, training never visits the initial state: measured, such a model failed on one text in
64 when started from it (14 nats per token).
"""

Array = np.ndarray[Any, Any]
_Extra = tuple[PriorTensors, FrameTensors]


class TrainStep:
    """Compiled optimizer steps of one network.

    Args:
        network: the network to train.
        optimizer: updates the network's parameters, or those that are not frozen.
        config: batch size, window, dropout, random seed, threads.
        cluster: the replicas.
        has_ignored: whether there are IGNORED targets (see `data/batching.py`).
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        config: TrainingConfig,
        cluster: Cluster,
        *,
        has_ignored: bool = False,
    ) -> None:
        self._network = network
        self._parameters = optimizer.parameters
        self._optimizer = optimizer
        self._config = config
        self._has_ignored = has_ignored
        self._media = network.config.media
        self._cluster = cluster
        rows = config.batch_size // cluster.replicas
        self._microbatches = num_microbatches(rows, threads_of_process(config, cluster))  # of a replica
        self._all_microbatches = self._microbatches * cluster.replicas
        self._microbatch_step = tf.function(self._microbatch_gradients, autograph=False)  # one trace for all
        self.graph = lru_cache(None)(self._make_graph)  # of windows of one length

    def initial_state(self) -> State:
        """The state before the first step; that of rows with whole documents is not carried from step to step."""
        return () if self._media is not None else self._network.initial_state(self._config.batch_size)

    def trace(self) -> None:
        """Builds the graph of the steps on a text, which its first call would do otherwise."""
        self.graph(self._config.window).get_concrete_function()

    def run(
        self,
        xs: Array,
        ys: Array,
        rates: Sequence[float],
        first_step: int,
        state: Any,
        priors: Sequence[Array] = (),
        frames: Sequence[Array] = (),
    ) -> tuple[Tensor, Any]:
        """K consecutive optimizer steps.

        Args:
            xs, ys: (K, B, T) int32, this worker's rows of the inputs and targets.
            rates: K learning rates.
            first_step: optimizer steps made before.
            state: before the first step, as `Cluster.scatter` returns it.
            priors: of the n-gram gate, (K, B, T, V) and (K, B, T); empty without a gate.
            frames: of signals, (K, B, T, F); empty without signals.

        Returns:
            The losses of the whole batches (K,), nats per token, and the new state.
        """
        inputs = *map(tf.constant, (xs, ys, rates)), tf.constant(first_step, tf.int64)
        extra = tuple(map(tf.constant, priors)), tuple(map(tf.constant, frames))
        losses, state = self.graph(xs.shape[2])(*inputs, state, *extra)
        return losses, state

    def _make_graph(self, window: int) -> Any:
        """`_steps` on windows of this length, and any number of steps, so that one trace serves all calls."""
        return tf.function(self._steps, input_signature=self._signature(window), autograph=False)

    def _signature(self, window: int) -> list[Any]:
        rows = self._config.batch_size // self._cluster.size
        batches = tf.TensorSpec([None, rows, window], tf.int32)
        state = self._cluster.scatter(self.initial_state())
        state_spec = tf.nest.map_structure(tf.type_spec_from_value, state)
        scalars = tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int64)
        priors: tuple[Any, ...] = ()
        if self._network.config.ngram_gate:
            log_probs = [*batches.shape, self._network.config.vocabulary_size]
            priors = tf.TensorSpec(log_probs, tf.float32), tf.TensorSpec(batches.shape, tf.int32)
        frames: tuple[Any, ...] = ()
        if self._media is not None:
            frames = (tf.TensorSpec([*batches.shape, self._media.frame_dim], tf.float32),)
        return [batches, batches, *scalars, state_spec, priors, frames]

    def _steps(
        self,
        xs: Tensor,
        ys: Tensor,
        rates: Tensor,
        first_step: Tensor,
        state: Any,
        priors: PriorTensors,
        frames: FrameTensors,
    ) -> tuple[Tensor, Any]:
        """As `run`."""
        steps = tf.shape(xs)[0]
        strategy = self._cluster.strategy

        def body(k: Tensor, losses: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
            step = first_step + tf.cast(k, tf.int64)
            extra = tuple(tensor[k] for tensor in priors), tuple(tensor[k] for tensor in frames)
            loss, state = strategy.run(self._replica_step, (xs[k], ys[k], rates[k], step, state, extra))
            return k + 1, losses.write(k, strategy.experimental_local_results(loss)[0]), state

        start = (tf.constant(0), tf.TensorArray(tf.float32, size=steps), state)
        _, losses, state = tf.while_loop(lambda k, *_: k < steps, body, start, parallel_iterations=1)
        return losses.stack(), state

    def _replica_step(
        self, x: Tensor, y: Tensor, rate: Tensor, step: Tensor, state: State, extra: _Extra
    ) -> tuple[Tensor, State]:
        """One step on one replica: x, y (B, T) of its worker, its own state -> loss of the whole batch, new state."""
        losses, gradients, states = [], [], []
        x, y = self._cluster.local_shard(x), self._cluster.local_shard(y)
        count = self._targets_per_microbatch(y)
        before = self._reset_state(state, step)
        first = self._cluster.replica_index() * self._microbatches
        extra = tf.nest.map_structure(self._cluster.local_shard, extra)
        for index, (x_part, y_part, state_part, extra_part) in enumerate(
            split_rows((x, y, before, extra), self._microbatches), start=first
        ):
            seed_index = tf.cast(step, tf.int32) * self._all_microbatches + index
            seed = tf.stack([self._config.random_seed % 2**31, seed_index])
            loss, part_gradients, new_state = self._microbatch_step(x_part, y_part, state_part, extra_part, seed, count)
            losses.append(loss)
            gradients.append(part_gradients)
            states.append(new_state)
        sums = [
            tf.add_n(losses),
            *(tf.add_n([part[name] for part in gradients]) for name in self._parameters),
        ]
        loss, *means = self._cluster.all_reduce_sum([total / self._all_microbatches for total in sums])
        self._optimizer.apply(dict(zip(self._parameters, means, strict=True)), rate, step)
        return loss, state if self._media is not None else concatenate_rows(states)

    def _reset_state(self, state: State, step: Tensor) -> State:
        """Resets row b of the batch before step s if b + s + 1 is a multiple of STATE_RESET_WINDOWS.

        Rows with whole documents always begin with the initial state.
        """
        rows = self._config.batch_size // self._cluster.replicas
        if self._media is not None:
            return self._network.initial_state(rows, context=0)
        indices = tf.range(rows, dtype=tf.int64) + self._cluster.replica_index() * rows
        return self._network.reset_rows(state, tf.equal((indices + step + 1) % STATE_RESET_WINDOWS, 0))

    def _targets_per_microbatch(self, y: Tensor) -> Tensor:
        """The divisor of each microbatch's sum of losses; the mean over microbatches is then that of the batch."""
        if not self._has_ignored:
            return tf.constant(y.shape[0] * y.shape[1] / self._microbatches, tf.float32)
        [count] = self._cluster.all_reduce_sum([tf.reduce_sum(tf.cast(y != IGNORED, tf.float32))])
        return tf.maximum(count, 1.0) / self._all_microbatches

    def _microbatch_gradients(
        self, x: Tensor, y: Tensor, state: State, extra: _Extra, seed: Tensor, count: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], State]:
        """x, y (B / microbatches, T) -> sum of losses / count, its gradients by parameter name, and the new state."""
        with tf.GradientTape() as tape:
            logits, new_state = self._network.forward(x, state, Dropout(self._config.dropout, seed), *extra)
            if self._has_ignored:
                losses = cross_entropy(logits, tf.maximum(y, 0)) * tf.cast(tf.transpose(y) != IGNORED, tf.float32)
            else:
                losses = cross_entropy(logits, y)
            loss = tf.reduce_sum(losses) / count
        gradients = tape.gradient(loss, self._parameters)
        return loss, {name: tf.convert_to_tensor(gradient) for name, gradient in gradients.items()}, new_state


def threads_of_process(config: TrainingConfig, cluster: Cluster) -> int:
    """Number of processor threads that this process computes with: 1 if a GPU does the work."""
    return 1 if has_gpu() else max(1, config.threads // cluster.size)


def num_microbatches(rows: int, threads: int) -> int:
    """The largest divisor of `rows` that is at most `threads`."""
    return max(count for count in range(1, min(rows, threads) + 1) if rows % count == 0)


def split_rows(tensors: Any, parts: int) -> list[Any]:
    """Splits a nested structure of tensors (B, ...) into `parts` structures with equal numbers of rows."""
    split = [tf.split(tensor, parts) for tensor in tf.nest.flatten(tensors)]
    return [tf.nest.pack_sequence_as(tensors, rows) for rows in zip(*split, strict=True)]


def concatenate_rows(states: list[State]) -> State:
    """The inverse of `split_rows` for states."""
    state: State = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *states)
    return state


def name_state(state: Any) -> dict[str, Any]:
    """The tensors of a carried state by their names in a checkpoint."""
    return {f"state.{index}": tensor for index, tensor in enumerate(tf.nest.flatten(state))}


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target: logits (T, B, V) float32, targets (B, T) int32 -> (T, B)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.transpose(targets), logits=logits)
