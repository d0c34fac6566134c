"""Matrix products with gradients that suit the processor, and look-ups in a table.

Products are done with row-major operands as they lie: oneDNN takes 1.5 to 2 times as long for a transposed one, so
what must be transposed is transposed once (benchmarks/LOG.md). They are in `compute_dtype`, float32 or bfloat16; the
gradients of parameters are float32.
"""

from typing import Any

import tensorflow as tf

Tensor = Any  # TensorFlow ships no useful types


def product(inputs: Tensor, kernel: Tensor, compute_dtype: Any) -> Tensor:
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
        result = tf.matmul(tf.reshape(rows, [-1, features]), low_precision_kernel)

        def gradient(d_result: Tensor) -> tuple[Tensor, Tensor]:
            d_rows = tf.reshape(d_result, [outer * inner, -1])
            d_inputs = tf.matmul(d_rows, transposed(low_precision_kernel))
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
    return tf.cast(product(inputs, kernel, compute_dtype), tf.float32) + bias


def look_up(table: Tensor, token_ids: Tensor, compute_dtype: Any) -> Tensor:
    """Rows of `table` for each token id, differentiable in the table by one product.

    The first layer's input projection of an embedded token depends on the token alone, so for a vocabulary
    smaller than the window's tokens the projections of all V tokens are computed once and looked up.

    Args:
        table: (V, N) float32.
        token_ids: (T, B) or (B, T) int32.

    Returns:
        (T, B, N) or (B, T, N) in compute_dtype.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def rows(table: Tensor) -> tuple[Tensor, Any]:
        def gradient(d_rows: Tensor) -> Tensor:
            d_rows = tf.reshape(d_rows, [-1, table.shape[1]])  # (T, B, N) -> (T*B, N)
            one_hot = tf.one_hot(tf.reshape(token_ids, [-1]), table.shape[0], axis=0, dtype=compute_dtype)
            return tf.cast(tf.matmul(one_hot, d_rows), tf.float32)  # (V, T*B) (T*B, N)

        return tf.gather(tf.cast(table, compute_dtype), token_ids), gradient

    return rows(table)


def sum_of_features(rows: Tensor) -> Tensor:
    """The sum over the last axis, kept as one: (..., D) -> (..., 1); for use inside of XLA clusters.

    As a product with ones: XLA splits a reduction of many numbers into passes over memory of their own, a product not.
    """
    return tf.matmul(rows, tf.ones([rows.shape[-1], 1], rows.dtype))


def transposed(matrix: Tensor) -> Tensor:
    """The transpose of an (M, 4K) or any matrix, laid out anew.

    A plain `tf.transpose` before a product is folded by TensorFlow's graph optimizer into a transposed product,
    which is what this exists to avoid; the extra axis hides it.
    """
    rows, columns = matrix.shape
    return tf.reshape(tf.transpose(tf.reshape(matrix, [rows, 1, columns]), [1, 2, 0]), [columns, rows])


def kernel_gradient(inputs: Tensor, d_outputs: Tensor) -> Tensor:
    """Sum over time and batch of inputs^T d_outputs: (T, B, D), (T, B, N), or both batch first -> (D, N) float32."""
    rows = tf.reshape(inputs, [-1, inputs.shape[2]])  # (T*B, D)
    d_rows = tf.reshape(d_outputs, [-1, d_outputs.shape[2]])
    return tf.cast(tf.matmul(rows, d_rows, transpose_a=True), tf.float32)
