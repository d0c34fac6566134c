"""Measures the speed of matrix products in TensorFlow on this machine, in float32 and bfloat16.

usage: python benchmarks/gemm_ceiling.py
Threads are used in two modes: `shared`, all threads work on one product; `microbatches`, one product per thread, as in
training.
"""

import sys
import time

from measuring import report

SHAPES = ((32, 512, 2048), (64, 512, 2048), (1024, 1024, 1024))  # rows, inner, columns
CHAIN_LENGTH, REPETITIONS = 40, 7


def measure(mode: str, threads: int) -> None:
    """Prints GFLOP/s for each shape and precision; needs its own process, because threads can be set only once."""
    import tensorflow as tf

    microbatches = threads if mode == "microbatches" else 1
    tf.config.threading.set_inter_op_parallelism_threads(microbatches)
    tf.config.threading.set_intra_op_parallelism_threads(threads // microbatches)
    for dtype in (tf.float32, tf.bfloat16):
        for rows, inner, columns in SHAPES:
            left = [tf.Variable(tf.random.normal([rows, inner], dtype=dtype)) for _ in range(microbatches)]
            right = tf.Variable(tf.random.normal([inner, columns], dtype=dtype))

            @tf.function(autograph=False)  # type: ignore[untyped-decorator]
            def products(left: list[tf.Variable] = left, right: tf.Variable = right) -> list[tf.Tensor]:
                values = [tf.identity(matrix) for matrix in left]
                for _ in range(CHAIN_LENGTH):  # each product depends on the previous one, so none is optimized away
                    values = [value * tf.matmul(value, right)[0, 0] for value in values]
                return values

            products()
            seconds = []
            for _ in range(REPETITIONS):
                started = time.perf_counter()
                products()
                seconds.append(time.perf_counter() - started)
            operations = 2 * rows * inner * columns * CHAIN_LENGTH * microbatches
            report(
                benchmark="gemm_ceiling", mode=mode, threads=threads, precision=dtype.name,
                shape=[rows, inner, columns],
                gflop_per_second=round(operations / sorted(seconds)[REPETITIONS // 2] / 1e9),
            )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        import os
        import subprocess

        for mode in ("shared", "microbatches"):
            subprocess.run([sys.executable, __file__, mode, str(os.cpu_count() or 1)], check=True)
