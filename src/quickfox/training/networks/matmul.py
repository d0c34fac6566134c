"""Matrix products and embedding lookups with gradients that run fast on a processor.

Operands of a product are row-major and not transposed: oneDNN takes 1.5 to 2 times as long for a transposed one, so a
matrix is transposed once and reused (benchmarks/LOG.md). Products are in `compute_dtype`, float32 or bfloat16; the
gradients of parameters are float32.
"""

from typing import Any

import tensorflow as tf

Tensor = Any  # TensorFlow ships no useful types


def matmul(inputs: Tensor, kernel: Tensor, compute_dtype: Any) -> Tensor:
    """inputs @ kernel, in `compute_dtype`.

    Args:
        inputs: (T, B, D) or (B, T, D), static.
        kernel: (D, N) float32.

    Returns:
        (T, B, N) or (B, T, N) in compute_dtype.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(inputs: Tensor, kernel: Tensor) -> tuple[Tensor, Any]:
        rows = tf.cast(inputs, compute_dtype)
        outer, inner, features = inputs.shape
        low_precision_kernel = tf.cast(kernel, compute_dtype)
        result = tf.matmul(tf.reshape(rows, [-1, features]), low_precision_kernel)  # (T*B, D) -> (T*B, N)

        def gradient(d_result: Tensor) -> tuple[Tensor, Tensor]:
            d_rows = tf.reshape(d_result, [outer * inner, -1])  # (T, B, N) -> (T*B, N)
            d_inputs = tf.matmul(d_rows, transpose(low_precision_kernel))  # (T*B, N) -> (T*B, D)
            return tf.cast(tf.reshape(d_inputs, inputs.shape), inputs.dtype), kernel_gradient(rows, d_result)

        return tf.reshape(result, [outer, inner, -1]), gradient

    return run(inputs, kernel)


def dense(inputs: Tensor, kernel: Tensor, bias: Tensor, compute_dtype: Any) -> Tensor:
    """inputs @ kernel + bias: the product in `compute_dtype`, the sum and the result float32.

    Args:
        inputs: (T, B, D).
        kernel: (D, N) float32.
        bias: (N,) float32.

    Returns:
        (T, B, N) float32.
    """
    return tf.cast(matmul(inputs, kernel, compute_dtype), tf.float32) + bias


def embedding_lookup(table: Tensor, token_ids: Tensor, compute_dtype: Any) -> Tensor:
    """The row of `table` of each token id; its gradient is one product with the one-hot token ids.

    The table need not be an embedding: the first recurrent layer's input projection is a function of the token, so if
    the vocabulary is smaller than the number of tokens in a window, all V projections are computed once and looked up.

    Args:
        table: (V, N) float32.
        token_ids: (T, B) or (B, T) int32.

    Returns:
        (T, B, N) or (B, T, N) in compute_dtype.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(table: Tensor) -> tuple[Tensor, Any]:
        def gradient(d_rows: Tensor) -> Tensor:
            d_rows = tf.reshape(d_rows, [-1, table.shape[1]])  # (T, B, N) -> (T*B, N)
            one_hot = tf.one_hot(tf.reshape(token_ids, [-1]), table.shape[0], axis=0, dtype=compute_dtype)  # (V, T*B)
            return tf.cast(tf.matmul(one_hot, d_rows), tf.float32)  # (V, N)

        return tf.gather(tf.cast(table, compute_dtype), token_ids), gradient

    return run(table)


def sum_features(inputs: Tensor) -> Tensor:
    """The sum over the last axis, (..., D) -> (..., 1); for use within XLA clusters.

    A product with ones: XLA splits a long reduction into several passes over memory, but not a product.
    """
    return tf.matmul(inputs, tf.ones([inputs.shape[-1], 1], inputs.dtype))


def transpose(matrix: Tensor) -> Tensor:
    """(M, N) -> (N, M), materialized in row-major order.

    TensorFlow's graph optimizer merges a plain `tf.transpose` into the next product, which makes that a slow product
    with a transposed operand; the extra axis prevents this.
    """
    rows, columns = matrix.shape
    return tf.reshape(tf.transpose(tf.reshape(matrix, [rows, 1, columns]), [1, 2, 0]), [columns, rows])


def kernel_gradient(inputs: Tensor, d_outputs: Tensor) -> Tensor:
    """Sum over time and batch of inputs^T d_outputs: (T, B, D), (T, B, N), or both batch-major -> (D, N) float32."""
    rows = tf.reshape(inputs, [-1, inputs.shape[2]])  # (T, B, D) -> (T*B, D)
    d_rows = tf.reshape(d_outputs, [-1, d_outputs.shape[2]])  # (T, B, N) -> (T*B, N)
    return tf.cast(tf.matmul(rows, d_rows, transpose_a=True), tf.float32)
