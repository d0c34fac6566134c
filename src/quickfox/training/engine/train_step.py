"""The compiled half of training: optimizer steps and validation windows as TensorFlow graphs, each traced once.

A step is cut into lanes, equal shares of a replica's rows that run side by side, one a processor thread (see
`tensorflow_runtime.start_tensorflow`); the losses of all lanes of all replicas (see `cluster.py`) are averaged, so that
neither changes anything but rounding. Any number of consecutive steps runs in one call, so that Python's share of the
time is negligible.
"""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from quickfox.config.training import TrainingConfig
from quickfox.data.batching import IGNORED
from quickfox.training.distributed.strategy import Cluster
from quickfox.training.engine.optimizer import Optimizer
from quickfox.training.networks.registry import Network
from quickfox.training.tensorflow_runtime import has_gpu

Tensor = Any

STATE_RESET_WINDOWS = 32
"""Each stream starts from the initial state again every so many windows, one stream after the other.

A state that is carried for ever takes the model where no text starts: measured, a model trained so had not learnt to
read from the initial state on, and on one start in 64 never found its way (14 nats per token).
"""


class CompiledTraining:
    """Compiled steps and validation of one network.

    Args:
        network: what is trained.
        optimizer: updates the network's parameters, or those that are not frozen.
        config: batch, window, dropout, random seed, threads.
        cluster: the replicas.
        has_ignored: whether there are targets that are IGNORED (see batching).
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
        self._cluster = cluster
        self._threads = 1 if has_gpu() else max(1, config.threads // cluster.size)
        self._lanes = _largest_divisor(config.batch_size // cluster.replicas, self._threads)  # of a replica
        self._all_lanes = self._lanes * cluster.replicas
        self._lane = tf.function(self._microbatch_gradients, autograph=False)  # traced once for all lanes
        self.steps = tf.function(self._steps, input_signature=self._steps_signature(), autograph=False)
        self.validation_window = tf.function(self._validation_window, autograph=False)

    def _steps_signature(self) -> list[Any]:
        """Any number of steps, so that one trace serves all calls."""
        rows = self._config.batch_size // self._cluster.size
        batches = tf.TensorSpec([None, rows, self._config.window], tf.int32)
        whole_state = self._network.initial_state(self._config.batch_size)
        state = tf.nest.map_structure(tf.type_spec_from_value, self._cluster.scatter(whole_state))
        return [batches, batches, tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int64), state]

    def _steps(self, xs: Tensor, ys: Tensor, rates: Tensor, first_step: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Consecutive optimizer steps: this worker's rows xs, ys (K, B, T) int32, rates (K,) float32 -> losses (K,),
        which are those of the whole batch, and the new state."""
        count = tf.shape(xs)[0]
        strategy = self._cluster.strategy

        def body(k: Tensor, losses: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
            step = first_step + tf.cast(k, tf.int64)
            loss, state = strategy.run(self._one_step, (xs[k], ys[k], rates[k], step, state))
            return k + 1, losses.write(k, strategy.experimental_local_results(loss)[0]), state

        start = (tf.constant(0), tf.TensorArray(tf.float32, size=count), state)
        _, losses, state = tf.while_loop(lambda k, *_: k < count, body, start, parallel_iterations=1)
        return losses.stack(), state

    def _one_step(self, x: Tensor, y: Tensor, rate: Tensor, step: Tensor, state: Any) -> tuple[Tensor, Any]:
        """A replica's part of a step: its worker's rows x, y, its own state."""
        losses, gradients, states = [], [], []
        x, y = self._cluster.local_shard(x), self._cluster.local_shard(y)
        count = self._targets_per_microbatch(y)
        state = self._with_resets(state, step)
        first_lane = self._cluster.replica_index() * self._lanes
        for lane, (x_lane, y_lane, state_lane) in enumerate(_split(x, y, state, self._lanes), start=first_lane):
            seed = tf.stack([self._config.random_seed % 2**31, tf.cast(step, tf.int32) * self._all_lanes + lane])
            loss, lane_gradients, new_state = self._lane(x_lane, y_lane, state_lane, seed, count)
            losses.append(loss)
            gradients.append(lane_gradients)
            states.append(new_state)
        shares = [tf.add_n(losses), *(tf.add_n([lane[name] for lane in gradients]) for name in self._parameters)]
        loss, *mean = self._cluster.all_reduce_sum([share / self._all_lanes for share in shares])
        self._optimizer.apply(dict(zip(self._parameters, mean, strict=True)), rate, step)
        return loss, _joined(states)

    def _with_resets(self, state: Any, step: Tensor) -> Any:
        """The state, but the initial one in the rows whose turn it is: row b at step s if b + s + 1 is a multiple."""
        rows = self._config.batch_size // self._cluster.replicas
        numbers = tf.range(rows, dtype=tf.int64) + self._cluster.replica_index() * rows
        return self._network.reset_rows(state, tf.equal((numbers + step + 1) % STATE_RESET_WINDOWS, 0))

    def _targets_per_microbatch(self, y: Tensor) -> Tensor:
        """By what each lane divides its sum of losses, so that the mean over lanes is that over the batch."""
        if not self._has_ignored:
            return tf.constant(y.shape[0] * y.shape[1] / self._lanes, tf.float32)
        [count] = self._cluster.all_reduce_sum([tf.reduce_sum(tf.cast(y != IGNORED, tf.float32))])
        return tf.maximum(count, 1.0) / self._all_lanes

    def _microbatch_gradients(
        self, x: Tensor, y: Tensor, state: Any, seed: Tensor, count: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Any]:
        """Loss of a lane's rows x, y (B / lanes, T) over `count`, its gradients by name, and its new state."""
        with tf.GradientTape() as tape:
            logits, new_state = self._network.forward(x, state, self._config.dropout, seed)
            if self._has_ignored:
                losses = _cross_entropy(logits, tf.maximum(y, 0)) * tf.cast(tf.transpose(y) != IGNORED, tf.float32)
            else:
                losses = _cross_entropy(logits, y)
            loss = tf.reduce_sum(losses) / count
        gradients = tape.gradient(loss, self._parameters)
        return loss, {name: tf.convert_to_tensor(gradient) for name, gradient in gradients.items()}, new_state

    def _validation_window(self, x: Tensor, y: Tensor, weight: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Weighted sum of cross-entropies over one window (L, T), and the state after it."""
        lanes = _largest_divisor(x.shape[0], self._threads)
        totals, states = [], []
        weights = tf.split(weight, lanes)
        for (x_lane, y_lane, state_lane), w_lane in zip(_split(x, y, state, lanes), weights, strict=True):
            logits, new_state = self._network.forward(x_lane, state_lane)
            totals.append(tf.reduce_sum(_cross_entropy(logits, y_lane) * tf.transpose(w_lane)))
            states.append(new_state)
        return tf.add_n(totals), _joined(states)


def _split(x: Tensor, y: Tensor, state: Any, lanes: int) -> Iterator[tuple[Tensor, Tensor, Any]]:
    """Equal shares of the rows of x, y (B, T) and of the state, lane by lane."""
    parts = [tf.split(tensor, lanes) for tensor in tf.nest.flatten(state)]
    for lane, (x_lane, y_lane) in enumerate(zip(tf.split(x, lanes), tf.split(y, lanes), strict=True)):
        yield x_lane, y_lane, tf.nest.pack_sequence_as(state, [part[lane] for part in parts])


def _joined(states: list[Any]) -> Any:
    """The lanes' states as one: each tensor (B/lanes, ...) -> (B, ...)."""
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *states)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target: logits (T, B, V) float32, targets (B, T) int32 -> (T, B)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.transpose(targets), logits=logits)


def _largest_divisor(number: int, at_most: int) -> int:
    return max(candidate for candidate in range(1, min(number, at_most) + 1) if number % candidate == 0)
