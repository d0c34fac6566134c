"""TensorFlow itself: a quiet import, threads, and the precision that suits the processor.

The only place that imports TensorFlow for the first time; it knows nothing of models. Every other module of
`training/` may `import tensorflow` at its top, since it is itself imported only after `start_tensorflow`.
"""

import os
import time
from pathlib import Path
from typing import Any

from quickfox.config.training import Precision
from quickfox.errors import UnavailableError, UsageError
from quickfox.system.stderr import quiet_stderr

CPU_INFORMATION = Path("/proc/cpuinfo")


def start_tensorflow(threads: int, *, is_distributed: bool = False) -> None:
    """Imports TensorFlow without its banner and gives it `threads` processor threads; call it once, first.

    An operation runs on ONE thread, and up to `threads` operations run at a time: the training step is cut
    into that many independent lanes (see `trainer.py`). One lane a core keeps each core's working set in its
    own cache and never waits for another at the end of a small matrix product: measured on 2 cores, 1.3 to
    1.5 times the tokens per second of two threads sharing every product (benchmarks/LOG.md).

    Args:
        threads: operations at a time.
        is_distributed: whether this process is one of several workers; `open_cluster` must then run before any operation.

    Raises:
        UnavailableError: TensorFlow is not installed.
        UsageError: TensorFlow already runs in this process, with another number of threads.
    """
    tf = import_tensorflow()
    with quiet_stderr():
        try:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError:
            raise UsageError(
                f"TensorFlow already runs in this process and cannot change to {threads} threads: "
                f"train in a new process, or with the same number of threads"
            ) from None
        if not is_distributed:
            tf.constant(0.0)  # the first operation prints too


def import_tensorflow() -> Any:
    """The module, imported without its banner; it is not started yet.

    Raises:
        UnavailableError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        try:
            import tensorflow as tf
        except ModuleNotFoundError as error:
            if error.name != "tensorflow":
                raise
            raise UnavailableError(
                "training needs TensorFlow, which is not installed: pip install tensorflow (Python 3.11 to 3.13)"
            ) from None
    return tf


def num_gpus() -> int:
    """How many GPUs TensorFlow sees."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU, which then does the work."""
    return num_gpus() > 0


def matmul_speed(precision: Precision, threads: int) -> float:
    """Measured floating-point operations per second of matrix products, all threads together; takes some 50 ms.

    Args:
        precision: of the operands.
        threads: as given to `start_tensorflow`.
    """
    import tensorflow as tf

    rows, inner, columns, rounds = 32, 512, 2048, 20  # a lane's product in a typical training step
    dtype = tf.bfloat16 if precision == "bfloat16" else tf.float32
    a, b = tf.ones([rows, inner], dtype), tf.ones([inner, columns], dtype)
    tf.matmul(a, b)  # the first product prepares oneDNN
    started = time.perf_counter()
    for _ in range(rounds):
        tf.matmul(a, b)
    return threads * rounds * 2 * rows * inner * columns / (time.perf_counter() - started)


def preferred_precision() -> Precision:
    """bfloat16 where the processor multiplies bfloat16 tiles (Intel AMX), else float32.

    Looks at the processor's features, never at a clock, so that a run can be repeated. AVX-512's bfloat16
    instructions alone are not enough: measured without AMX, bfloat16 products ran at 0.55 times the speed of
    float32 (benchmarks/gemm_ceiling.py).
    """
    return "bfloat16" if "amx_bf16" in vector_extensions() else "float32"


def vector_extensions() -> list[str]:
    """What the processor computes vectors and matrices with, sorted; where Linux does not tell, empty.

    Libraries choose their code by it, so that sums of different processors are rounded differently.
    """
    if not CPU_INFORMATION.exists():
        return []
    words = set(CPU_INFORMATION.read_text(encoding="utf-8", errors="replace").split())
    return sorted(word for word in words if word.startswith(("avx", "amx", "fma", "sse4")))
