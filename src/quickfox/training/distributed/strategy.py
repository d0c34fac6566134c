"""Training on several devices and machines at once: TensorFlow's distribution engine, as the training loop sees it.

Each device is a replica: it holds all weights, takes an equal share of a batch's rows, and its gradients are summed
with those of the others before each makes the same update (data parallelism). One process has one replica, or as many
as it has GPUs (`MirroredStrategy`); several processes are workers (`MultiWorkerMirroredStrategy`) that are equal but
for the chief, which tells the others by `control.py` what to do.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context as eager_context

from quickfox.errors import QuickfoxError, UnavailableError
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.distributed.messaging import Control
from quickfox.training.tensorflow_runtime import num_gpus

Tensor = Any
Nest = Any

MEETING_SECONDS = 20.0
"""How long TensorFlow's servers may take to find each other; all have just said that they are ready to start."""

_BROKEN = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
"""What is raised by operations that all workers do together, where a peer does not answer."""


class Cluster:
    """The replicas, of which this process has some, and the other workers.

    Args:
        strategy: of tf.distribute.
        control: the connections to the other workers.
        rank, size: of this worker, and how many there are.
    """

    def __init__(self, strategy: Any, control: Control, rank: int = 0, size: int = 1) -> None:
        self.strategy = strategy
        self.control = control
        self.rank = rank
        self.size = size
        self.replicas: int = strategy.num_replicas_in_sync
        self._compiled_gather = tf.function(self._gather, autograph=False)

    # What this worker has ---------------------------------------------------------------------------------

    def local_rows(self, batch_size: int) -> slice:
        """This worker's rows of a batch; `batch_size` is a multiple of the number of replicas."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def scatter(self, whole: Nest) -> Nest:
        """Tensors (B, ...) -> on each replica its share of the rows (B / replicas, ...)."""
        return tf.nest.map_structure(self._scatter, whole)

    def gather(self, spread: Nest) -> Nest:
        """The opposite of `spread`; all workers must call it."""
        with self.collective():
            return self._compiled_gather(spread)

    def _gather(self, spread: Nest) -> Nest:
        return tf.nest.map_structure(lambda rows: self.strategy.gather(rows, axis=0), spread)

    def _scatter(self, whole: Tensor) -> Tensor:
        share = whole.shape[0] // self.replicas

        def rows(context: Any) -> Tensor:
            first = context.replica_id_in_sync_group * share
            return whole[first : first + share]

        spread = self.strategy.experimental_distribute_values_from_function(rows)
        local = self.strategy.experimental_local_results(spread)
        return spread if len(local) > 1 else local[0]  # as `strategy.run` returns what a single replica computes

    # Within a step, on each replica -----------------------------------------------------------------------

    def replica_index(self) -> int:
        """The number of the replica that is being traced, among all."""
        number = tf.distribute.get_replica_context().replica_id_in_sync_group  # without a strategy, a tensor
        return int(tf.get_static_value(number))

    def local_shard(self, rows: Tensor) -> Tensor:
        """This replica's rows of those of its worker."""
        local = self.replicas // self.size
        share = rows.shape[0] // local
        first = self.replica_index() % local * share
        return rows[first : first + share]

    def all_reduce_sum(self, tensors: list[Tensor]) -> list[Tensor]:
        """The sum of each float32 tensor over all replicas.

        They go as one vector: a reduction of their sum costs less than one of each.
        """
        if self.replicas == 1:
            return tensors
        vector = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        vector = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, vector)
        parts = tf.split(vector, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    # Between steps ----------------------------------------------------------------------------------------

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The chief's tensor, on every worker; all must call it, with tensors of one shape and type."""
        if self.size == 1:
            return tensor

        def chiefs_or_zeros(context: Any) -> Tensor:
            return tensor if context.replica_id_in_sync_group == 0 else tf.zeros_like(tensor)

        with self.collective():
            replicas = self.strategy.experimental_distribute_values_from_function(chiefs_or_zeros)
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, replicas, axis=None)

    @contextmanager
    def collective(self, seconds: float = math.inf) -> Iterator[None]:
        """For a block that all workers must execute: who does not, within so many seconds, is lost.

        Raises:
            PeerLostError: a worker is lost, or cannot be reached.
            QuickfoxError: a worker has failed.
        """
        try:
            with self.control.response_deadline(seconds):
                yield
        except _BROKEN as error:
            self.control.raise_failure(error)

    def compare_digests(self, digest: str, step: int) -> None:
        """Makes sure, as the chief, that all workers have weights of this digest.

        Raises:
            QuickfoxError: one has not.
        """
        self.control.send(do="digest")
        for rank, answer in enumerate(self.control.receive(), start=1):
            if answer != {"digest": digest}:
                raise QuickfoxError(
                    f"the weights of worker {rank} are not those of the chief at step {step:,}: memory or the network "
                    f"is at fault, or the machines differ; go on from the last checkpoint with --resume"
                )


def open_cluster(spec: ClusterSpec | None, control: Control) -> Cluster:
    """All devices: of this machine, or of the workers, which must all call it, before anything is computed.

    Raises:
        UnavailableError: TensorFlow's server cannot start.
        PeerLostError: another worker is lost, or cannot be reached.
        QuickfoxError: another worker has failed.
    """
    if spec is None:
        several = len(tf.config.list_logical_devices("GPU")) > 1
        return Cluster(tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy(), control)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(spec.addresses)}),
        task_type="worker",
        task_id=spec.rank,
        rpc_layer="grpc",
        num_accelerators={"GPU": num_gpus()},
    )
    _start_without_waiting()
    try:
        with control.response_deadline(MEETING_SECONDS):
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except _BROKEN as error:
        control.raise_failure(error)
    except (tf.errors.OpError, RuntimeError) as error:
        control.check()
        raise UnavailableError(
            f"{spec.describe(spec.rank)}: TensorFlow's server cannot start: {error!s:.200}"
        ) from None
    strategy.extended._check_health_thread_should_stop.set()  # control.py notices a lost peer sooner, and says so
    return Cluster(strategy, control, spec.rank, len(spec.addresses))


def _start_without_waiting() -> None:
    """Keeps TensorFlow from starting its coordination service, which a strategy otherwise does.

    That waits up to an hour for all peers, in a call in which no Python runs in the whole process: it would not notice
    that one was lost, nor take SIGTERM, whose handler the service replaces. What it is for, `control.py` does. Without
    it the strategy begins with a reduction over all workers, during which Python runs. No public function can say so.
    """
    eager_context.context().configure_coordination_service(service_type="")


def single_process() -> Cluster:
    """This process by itself, with its first device."""
    return Cluster(tf.distribute.get_strategy(), Control([]))


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """The sha256 of arrays, in hexadecimal."""
    sha256 = hashlib.sha256()
    for array in tensors.values():
        sha256.update(array.tobytes())
    return sha256.hexdigest()
