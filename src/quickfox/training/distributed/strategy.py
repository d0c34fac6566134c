"""Synchronous data-parallel training on several devices and machines with `tf.distribute`.

Each device is a replica: it holds all weights and takes an equal part of the rows of a batch, and the gradients of all
replicas are summed before each makes the same update. A process has one replica, or one for each of its GPUs
(`MirroredStrategy`); several processes are workers (`MultiWorkerMirroredStrategy`), all alike except that the chief's
decisions are broadcast by `messaging.py`.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context as eager_context

from quickfox.errors import QuickfoxError, UnavailableError
from quickfox.training.distributed.cluster_spec import SINGLE_PROCESS, ClusterSpec
from quickfox.training.distributed.messaging import Control
from quickfox.training.tensorflow_runtime import num_gpus

Tensor = Any
Nest = Any

SERVER_START_SECONDS = 20.0
"""Time for TensorFlow's servers to connect to each other once all workers are ready."""

_COLLECTIVE_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
"""Errors of collective operations when a peer does not respond."""


class Cluster:
    """The replicas of a `tf.distribute.Strategy`, some of which belong to this process, and the other workers."""

    def __init__(self, strategy: Any, control: Control, spec: ClusterSpec = SINGLE_PROCESS) -> None:
        self.strategy = strategy
        self.control = control
        self.rank = spec.rank
        self.size = spec.size  # number of workers
        self.replicas: int = strategy.num_replicas_in_sync
        self._compiled_gather = tf.function(self._gather, autograph=False)

    def local_rows(self, batch_size: int) -> slice:
        """The rows of this worker in a batch; `batch_size` is a multiple of the number of replicas."""
        rows = batch_size // self.size
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def scatter(self, whole: Nest) -> Nest:
        """Distributes the rows of tensors (B, ...) to the replicas: (B / replicas, ...) each."""

        def scatter_rows(tensor: Tensor) -> Tensor:
            count = tensor.shape[0] // self.replicas

            def replica_rows(context: Any) -> Tensor:
                first = context.replica_id_in_sync_group * count
                return tensor[first : first + count]

            scattered = self.strategy.experimental_distribute_values_from_function(replica_rows)
            local = self.strategy.experimental_local_results(scattered)
            return scattered if len(local) > 1 else local[0]  # as `strategy.run` returns the value of a single replica

        return tf.nest.map_structure(scatter_rows, whole)

    def gather(self, scattered: Nest) -> Nest:
        """The inverse of `scatter`; a collective operation."""
        with self.collective():
            return self._compiled_gather(scattered)

    def _gather(self, scattered: Nest) -> Nest:
        return tf.nest.map_structure(lambda rows: self.strategy.gather(rows, axis=0), scattered)

    def replica_index(self) -> int:
        """The index, among all replicas, of the replica that is being traced."""
        index = tf.distribute.get_replica_context().replica_id_in_sync_group  # a tensor in the default strategy
        return int(tf.get_static_value(index))

    def local_shard(self, rows: Tensor) -> Tensor:
        """The rows of the replica that is being traced, among the rows of its worker."""
        local_replicas = self.replicas // self.size
        count = rows.shape[0] // local_replicas
        first = self.replica_index() % local_replicas * count
        return rows[first : first + count]

    def all_reduce_sum(self, tensors: list[Tensor]) -> list[Tensor]:
        """The sum of each float32 tensor over all replicas.

        They are concatenated: one all-reduce costs less than one for each tensor.
        """
        if self.replicas == 1:
            return tensors
        vector = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        vector = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, vector)
        parts = tf.split(vector, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The chief's tensor, on every worker; a collective operation on tensors of one shape and dtype."""
        if self.size == 1:
            return tensor

        def tensor_or_zeros(context: Any) -> Tensor:
            return tensor if context.replica_id_in_sync_group == 0 else tf.zeros_like(tensor)

        with self.collective():
            replicas = self.strategy.experimental_distribute_values_from_function(tensor_or_zeros)
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, replicas, axis=None)

    @contextmanager
    def collective(self, seconds: float = math.inf) -> Iterator[None]:
        """Context manager for code that all workers execute; a worker that takes longer than `seconds` is lost.

        Raises:
            PeerLostError: a worker is lost, or cannot be reached.
            QuickfoxError: a worker has failed.
        """
        try:
            with self.control.response_deadline(seconds):
                yield
        except _COLLECTIVE_ERRORS as error:
            self.control.raise_failure(error)

    def compare_digests(self, digest: str, step: int) -> None:
        """Checks, in the chief, that the weights of all workers have this digest.

        Raises:
            QuickfoxError: those of a worker differ.
        """
        self.control.send(do="digest")
        for rank, answer in enumerate(self.control.receive(), start=1):
            if answer != {"digest": digest}:
                raise QuickfoxError(
                    f"the weights of worker {rank} differ from those of the chief at step {step:,}: faulty memory or "
                    f"network, or different machines; resume from the last checkpoint"
                )


def open_cluster(spec: ClusterSpec, control: Control) -> Cluster:
    """Returns all devices: of this machine, or of all workers, which must call this before any computation.

    Raises:
        UnavailableError: TensorFlow's server cannot start.
        PeerLostError: another worker is lost, or cannot be reached.
        QuickfoxError: another worker has failed.
    """
    if spec.size == 1:
        several = len(tf.config.list_logical_devices("GPU")) > 1
        return Cluster(tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy(), control)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(spec.addresses)}),
        task_type="worker",
        task_id=spec.rank,
        rpc_layer="grpc",
        num_accelerators={"GPU": num_gpus()},
    )
    # The strategy must not start TensorFlow's coordination service, and no public function prevents it: it waits for a
    # lost peer up to an hour in a call during which no Python runs, and replaces the handler of SIGTERM. Without it the
    # strategy starts with an all-reduce, during which Python runs, and `messaging.py` detects lost peers.
    eager_context.context().configure_coordination_service(service_type="")
    try:
        with control.response_deadline(SERVER_START_SECONDS):
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except _COLLECTIVE_ERRORS as error:
        control.raise_failure(error)
    except (tf.errors.OpError, RuntimeError) as error:
        control.check()
        raise UnavailableError(
            f"{spec.describe(spec.rank)}: TensorFlow's server cannot start: {error!s:.200}"
        ) from None
    strategy.extended._check_health_thread_should_stop.set()  # messaging.py is faster, and names the peer
    return Cluster(strategy, control, spec)


def single_process() -> Cluster:
    """A cluster of this process only, with its first device."""
    return Cluster(tf.distribute.get_strategy(), Control([]))


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """The sha256 of the bytes of arrays, in hexadecimal."""
    sha256 = hashlib.sha256()
    for array in tensors.values():
        sha256.update(array.tobytes())
    return sha256.hexdigest()
