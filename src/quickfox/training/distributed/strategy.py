"""Synchronous data-parallel training on several devices and machines with `tf.distribute`.

Each device is a replica: it holds all weights and takes an equal part of the rows of a batch, and the gradients of all
replicas are summed before each makes the same update. A process has one replica, or one for each of its GPUs
(`MirroredStrategy`); several processes are workers (`MultiWorkerMirroredStrategy`). TensorFlow's coordination service
connects the workers and makes the collective operations of all of them fail when it loses one.
"""

import hashlib
import json
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context as eager_context

from quickfox.errors import PeerLostError, QuickfoxError, UnavailableError
from quickfox.training.distributed.cluster_spec import SINGLE_PROCESS, ClusterSpec
from quickfox.training.tensorflow_runtime import num_gpus

Tensor = Any
Nest = Any

HEARTBEAT_SECONDS = 20  # without a heartbeat a worker is lost
REGISTER_SECONDS = 30  # until all TensorFlow servers are connected, once all workers are there

_COLLECTIVE_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
"""Errors of collective operations when a worker does not respond."""

_ERRORS = {kind.exit_status: kind for kind in QuickfoxError.__subclasses__()}
_ROW_SIZE = 6  # of `Cluster.exchange`: whether a stop is requested, the length of a failure's description, four values


class Cluster:
    """The replicas of a `tf.distribute.Strategy`, some of which belong to this process, and the other workers.

    Attributes:
        rank, size: of this worker, from 0, and number of workers.
        replicas: number of devices of all workers.
        stop_requested: whether a worker has requested to stop.
        advice: what to do when a worker is lost.
    """

    def __init__(self, strategy: Any, spec: ClusterSpec = SINGLE_PROCESS) -> None:
        self.strategy = strategy
        self.spec = spec
        self.rank = spec.rank
        self.size = spec.size
        self.replicas: int = strategy.num_replicas_in_sync
        self.stop_requested = False
        self.advice = "start all workers again"
        self._can_report = True
        self._compiled_gather = tf.function(self._gather, autograph=False)
        self._compiled_sum = tf.function(self._sum, autograph=False)

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

    def broadcast(self, tensor: Tensor, rank: int = 0) -> Tensor:
        """A worker's tensor, on every worker; a collective operation on tensors of one dtype and shape, not empty."""
        if self.size == 1:
            return tensor
        source = rank * (self.replicas // self.size)  # its first replica

        def tensor_or_zeros(context: Any) -> Tensor:
            return tensor if context.replica_id_in_sync_group == source else tf.zeros_like(tensor)

        with self.collective():
            replicas = self.strategy.experimental_distribute_values_from_function(tensor_or_zeros)
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, replicas, axis=None)

    def broadcast_bytes(self, data: bytes = b"", rank: int = 0, length: int | None = None) -> bytes:
        """The data of a worker, on every worker; `length` is that of its data, if all know it."""
        if length is None:
            length = self.exchange(len(data))[rank][0]
        padded = np.frombuffer(data[:length].ljust(length + 1), np.uint8)
        return bytes(self.broadcast(tf.constant(padded, tf.int32), rank).numpy().astype(np.uint8)[:length])

    def exchange(self, *values: int, stop: bool = False, failure: bytes = b"") -> list[list[int]]:
        """Tells all workers up to four numbers of each; returns them by rank. A collective operation.

        Args:
            values: of this worker.
            stop: whether this worker requests that the run is saved and stopped.
            failure: why this worker ends; all then raise that error.

        Raises:
            PeerLostError: a worker is lost.
            QuickfoxError: a worker has failed.
        """
        rows = np.zeros((self.size, _ROW_SIZE), np.int64)
        rows[self.rank, : 2 + len(values)] = stop, len(failure), *values
        if self.size > 1:
            with self.collective():
                rows = self._compiled_sum(tf.constant(rows)).numpy()
        self.stop_requested = self.stop_requested or bool(rows[:, 0].any())
        if rows[:, 1].any():
            self._can_report = False
            failed = int(np.flatnonzero(rows[:, 1])[0])
            status, message, *settings = json.loads(self.broadcast_bytes(failure, failed, int(rows[failed, 1])))
            self.barrier()
            raise _ERRORS.get(status, QuickfoxError)(f"{self.spec.describe(failed)}: {message}", *settings)
        return [[int(value) for value in row] for row in rows[:, 2:]]

    def _sum(self, rows: Tensor) -> Tensor:
        """The sum of the tensors of all workers, of which the first replica of each takes part."""

        def add() -> Tensor:
            is_first = self.replica_index() % (self.replicas // self.size) == 0
            part = tf.multiply(rows, int(is_first))  # an operation on the replica's device, which an argument has not
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, part)

        return self.strategy.experimental_local_results(self.strategy.run(add))[0]

    def report_failure(self, error: QuickfoxError) -> None:
        """Makes the next `exchange` of all other workers raise this error.

        Not if it comes from one of them, or if they are in another operation: then they lose this worker.
        """
        if self._can_report:
            failure = json.dumps([error.exit_status, str(error), *error.settings]).encode()
            with suppress(QuickfoxError):  # which this process raises itself
                self.exchange(failure=failure)

    @contextmanager
    def other_operations(self) -> Iterator[None]:
        """Context manager in which the other workers wait for collective operations other than `exchange`."""
        self._can_report = False
        yield
        self._can_report = True

    def barrier(self) -> None:
        """Waits until no other worker needs data from this one any more; called before this process ends."""
        with suppress(PeerLostError):
            self.exchange()

    def compare_digests(self, digest: str, step: int) -> None:
        """Raises QuickfoxError, on all workers, unless their weights have the same digest."""
        first, *others = self.exchange(int(digest[:15], 16))
        if different := [rank for rank, row in enumerate(others, start=1) if row != first]:
            raise QuickfoxError(
                f"the weights of worker {different[0]} differ from those of the chief at step {step:,}: faulty memory "
                f"or network, or different machines; resume from the last checkpoint"
            )

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Context manager for operations that all workers execute; raises PeerLostError if one of them is lost."""
        try:
            yield
        except _COLLECTIVE_ERRORS as error:
            if self.size == 1:
                raise
            raise PeerLostError(f"{_lost_worker(error, self.spec)} is lost; {self.advice}") from error


def _lost_worker(error: Exception, spec: ClusterSpec) -> str:
    """The name of the worker that an error of TensorFlow is about."""
    ranks = {int(rank) for rank in re.findall(r"/task:([0-9]+)", str(error))} - {spec.rank}
    return spec.describe(ranks.pop()) if len(ranks) == 1 else "a worker"


def open_cluster(spec: ClusterSpec) -> Cluster:
    """Returns all devices: of this machine, or of all workers, which must call this before any computation.

    Raises:
        UnavailableError: TensorFlow's server cannot start.
        PeerLostError: another worker is lost, or cannot be reached.
    """
    if spec.size == 1:
        several = len(tf.config.list_logical_devices("GPU")) > 1
        return Cluster(tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy())
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(spec.addresses)}),
        task_type="worker",
        task_id=spec.rank,
        rpc_layer="grpc",
        num_accelerators={"GPU": num_gpus()},
    )
    context = eager_context.context()
    context.configure_coordination_service(
        "standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=REGISTER_SECONDS * 1000,
        heartbeat_timeout_in_ms=HEARTBEAT_SECONDS * 1000,
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=spec.size)],
    )
    # Without it, the wait for a worker that is lost while it connects has no limit; no public function sets it.
    context.coordination_service.cluster_register_with_barrier = True
    try:
        cluster = Cluster(tf.distribute.MultiWorkerMirroredStrategy(resolver), spec)
    except _COLLECTIVE_ERRORS as error:
        raise PeerLostError(f"{_lost_worker(error, spec)} is lost; start all workers again") from error
    except (tf.errors.OpError, RuntimeError) as error:
        name = spec.describe(spec.rank)
        raise UnavailableError(f"{name}: TensorFlow's server cannot start: {error!s:.200}") from None
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # TensorFlow has replaced the handler
    return cluster


def single_process() -> Cluster:
    """A cluster of this process only, with its first device."""
    return Cluster(tf.distribute.get_strategy())


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """The sha256 of the bytes of arrays, in hexadecimal."""
    sha256 = hashlib.sha256()
    for array in tensors.values():
        sha256.update(array.tobytes())
    return sha256.hexdigest()
