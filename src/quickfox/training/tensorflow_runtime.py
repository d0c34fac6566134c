"""Import and configure TensorFlow: no banner, a fixed number of threads, the precision that suits the processor.

Independent of models. `start_tensorflow` runs before any other module of `training/` that imports TensorFlow at its
top is imported.
"""

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quickfox.config.training import Precision
from quickfox.errors import UnavailableError, UsageError
from quickfox.system.stderr import quiet_stderr
from quickfox.system.threads import available_threads

CPU_INFORMATION = Path("/proc/cpuinfo")


def start_tensorflow(threads: int, *, is_distributed: bool = False) -> None:
    """Imports TensorFlow without its banner and sets its number of threads; called once per process, first.

    Each operation uses ONE thread, and up to `threads` operations run concurrently: a training step consists of that
    many independent microbatches (see `engine/train_step.py`). With one microbatch per core, each core keeps its
    working set in its own cache, and no core waits for another at the end of a small matrix product: measured on 2
    cores, 1.3 to 1.5 times the tokens per second of two threads per product (benchmarks/LOG.md).

    Args:
        threads: number of concurrent operations.
        is_distributed: whether this process is one of several workers; then `open_cluster` must run before any
            operation.

    Raises:
        UnavailableError: TensorFlow is not installed.
        UsageError: TensorFlow already runs in this process with another number of threads.
    """
    tf = import_tensorflow()
    with quiet_stderr():
        try:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
            if not has_gpu():  # a training step is as fast without it, and the first one starts 0.2 to 0.4 s sooner
                tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        except RuntimeError:
            raise UsageError(
                f"TensorFlow already runs in this process and cannot change to {threads} threads: "
                f"train in a new process, or with the same number of threads"
            ) from None
        if not is_distributed:
            tf.constant(0.0)  # the first operation prints messages too


def import_tensorflow() -> Any:
    """Imports TensorFlow without its banner and returns the module; no operation runs.

    Raises:
        UnavailableError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr(), paused_garbage_collection():
        try:
            import tensorflow as tf
        except ModuleNotFoundError as error:
            if error.name != "tensorflow":
                raise
            raise UnavailableError(
                "training needs TensorFlow, which is not installed: pip install tensorflow (Python 3.11 to 3.13)"
            ) from None
    return tf


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Does not look for cyclic garbage while many objects are made that stay, nor among them soon afterwards.

    Measured on 2 cores: the import of TensorFlow takes 1.55 s instead of 2.03, and two collections of 0.17 s after it
    are saved.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.unfreeze()  # to the oldest generation, without the collections that objects pass on their way there
            gc.enable()


def num_gpus() -> int:
    """Number of GPUs that TensorFlow can use."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def has_gpu() -> bool:
    """Whether TensorFlow can use a GPU; training then runs on it."""
    return num_gpus() > 0


def matmul_speed(precision: Precision, threads: int) -> float:
    """Measured speed of matrix products on `threads`: floating-point operations per second. Takes about 50 ms.

    Threads beyond the processors that are available add nothing.
    """
    import tensorflow as tf

    rows, inner, columns, rounds = 32, 512, 2048, 20  # a microbatch's product in a typical training step
    a, b = tf.ones([rows, inner], precision), tf.ones([inner, columns], precision)
    tf.matmul(a, b)  # the first product initializes oneDNN
    started = time.perf_counter()
    for _ in range(rounds):
        tf.matmul(a, b)
    return min(threads, available_threads()) * rounds * 2 * rows * inner * columns / (time.perf_counter() - started)


def preferred_precision() -> Precision:
    """bfloat16 if the processor multiplies bfloat16 tiles (Intel AMX), else float32.

    The choice depends on the processor's features, not on a measurement, so that a run is reproducible. AVX-512's
    bfloat16 instructions do not suffice: measured without AMX, bfloat16 products ran at 0.55 times the speed of float32
    (benchmarks/gemm_ceiling.py).
    """
    return "bfloat16" if "amx_bf16" in vector_extensions() else "float32"


def vector_extensions() -> list[str]:
    """The processor's vector and matrix instruction sets, sorted; empty if Linux does not list them.

    Libraries select their code by these, so sums are rounded differently on processors that differ in them.
    """
    if not CPU_INFORMATION.exists():
        return []
    words = set(CPU_INFORMATION.read_text(encoding="utf-8", errors="replace").split())
    return sorted(word for word in words if word.startswith(("avx", "amx", "fma", "sse4")))
