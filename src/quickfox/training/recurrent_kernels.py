"""The fast recurrent layers: hand-written forward and backward passes through time, for the processor.

What makes them fast, each measured (benchmarks/LOG.md):

- the input projection of all time steps is ONE product before the loop (or a table look-up, `look_up`);
- the backward loop carries only the gradients of the state; the gradient of the recurrent kernel is ONE
  product over all time steps after it;
- the gates' element-wise arithmetic is one XLA-compiled cluster forward and one backward; matrix products stay
  outside XLA, in oneDNN, which is several times faster at them;
- products are done with row-major operands as they lie: oneDNN takes 1.5 to 2 times as long for a transposed
  one, so what must be transposed is transposed once, before the loop.

Sequences are time-major here: (T, B, features). Matrix products are in `compute_dtype` (float32 or bfloat16);
the state, the gates' arithmetic and all returned gradients of parameters are float32.
"""

from typing import Any

import tensorflow as tf

Tensor = Any  # TensorFlow ships no useful types

LSTM_GATES = 4
# sigmoid(z) = tanh(z / 2) / 2 + 1/2, so all four gates are one tanh over the whole row, scaled per gate
# (i, f, g, o): twice as fast as four different functions over four slices.
GATE_SCALE = ((0.5,), (0.5,), (1.0,), (0.5,))
GATE_SHIFT = ((0.5,), (0.5,), (0.0,), (0.5,))


def lstm(projected: Tensor, recurrent_kernel: Tensor, h0: Tensor, c0: Tensor, compute_dtype: Any) -> tuple[Tensor, ...]:
    """Runs an LSTM layer over a window.

    With x_t W + b given as `projected` and U the recurrent kernel, for each time step t:

        z_t = x_t W + b + h_(t-1) U              split into z_i, z_f, z_g, z_o
        i = sigmoid(z_i)   f = sigmoid(z_f)   g = tanh(z_g)   o = sigmoid(z_o)
        c_t = f * c_(t-1) + i * g
        h_t = o * tanh(c_t)

    (Hochreiter & Schmidhuber 1997, "Long short-term memory"; the forget gate: Gers, Schmidhuber & Cummins
    2000, "Learning to forget".) Backwards, with dh_t and dc_t the gradients that arrive at h_t and c_t:

        dc  = dc_t + dh_t * o * (1 - tanh(c_t)^2)
        dz  = [dc*g*i*(1-i),  dc*c_(t-1)*f*(1-f),  dc*i*(1-g^2),  dh_t*tanh(c_t)*o*(1-o)]
        dc_(t-1) = dc * f
        dh_(t-1) = dz U^T   (+ what the layer above sends)          dU = sum over t of h_(t-1)^T dz_t

    Args:
        projected: (T, B, 4H), compute_dtype: x_t W + b; T and all sizes static.
        recurrent_kernel: (H, 4H) float32.
        h0, c0: (B, H) float32: the state before the window.
        compute_dtype: tf.float32 or tf.bfloat16, of the matrix products.

    Returns:
        outputs (T, B, H) in compute_dtype, and the state after the window, h and c, (B, H) float32.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(projected: Tensor, recurrent_kernel: Tensor, h0: Tensor, c0: Tensor) -> tuple[Any, Any]:
        kernel = tf.cast(recurrent_kernel, compute_dtype)
        hs, cs, gates = [tf.cast(h0, compute_dtype)], [c0], []
        for projected_t in tf.unstack(projected):
            gates_t, c, h = _lstm_step(projected_t, tf.matmul(hs[-1], kernel), cs[-1])
            gates.append(gates_t)
            cs.append(c)
            hs.append(h)

        def gradient(d_outputs: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor, ...]:
            kernel_t = transposed(kernel)  # (4H, H)
            d_h = tf.cast(d_h, compute_dtype)
            d_gates: list[Tensor] = []
            for t, d_output in reversed(list(enumerate(tf.unstack(d_outputs)))):
                d_z, d_c = _lstm_step_gradient(gates[t], cs[t], cs[t + 1], d_output, d_h, d_c)
                d_h = tf.matmul(d_z, kernel_t)  # (B, 4H) -> (B, H)
                d_gates.append(d_z)
            d_projected = tf.stack(d_gates[::-1])  # (T, B, 4H)
            return d_projected, _kernel_gradient(tf.stack(hs[:-1]), d_projected), tf.cast(d_h, tf.float32), d_c

        return (tf.stack(hs[1:]), tf.cast(hs[-1], tf.float32), cs[-1]), gradient

    outputs, h, c = run(projected, recurrent_kernel, h0, c0)
    return outputs, h, c


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _lstm_step(projected: Tensor, recurrent: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gates (B, 4H), new cell state (B, H) float32 and output (B, H), from the two halves of z and the old state."""
    z = tf.cast(projected, tf.float32) + tf.cast(recurrent, tf.float32)
    z = tf.reshape(z, [z.shape[0], LSTM_GATES, -1])  # (B, 4H) -> (B, 4, H)
    activated = tf.constant(GATE_SCALE) * tf.tanh(tf.constant(GATE_SCALE) * z) + tf.constant(GATE_SHIFT)
    i, f, g, o = tf.unstack(activated, axis=1)
    c = f * c + i * g
    h = o * tf.tanh(c)
    gates = tf.reshape(activated, [z.shape[0], -1])
    return tf.cast(gates, projected.dtype), c, tf.cast(h, projected.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _lstm_step_gradient(
    gates: Tensor, c_before: Tensor, c: Tensor, d_output: Tensor, d_h: Tensor, d_c: Tensor
) -> tuple[Tensor, Tensor]:
    """dz (B, 4H) and the gradient of the cell state before the step (B, H) float32; equations in `lstm`."""
    i, f, g, o = tf.split(tf.cast(gates, tf.float32), LSTM_GATES, axis=1)
    d_h = tf.cast(d_output, tf.float32) + tf.cast(d_h, tf.float32)
    tanh_c = tf.tanh(c)
    d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
    d_z = tf.stack(
        [d_c * g * i * (1 - i), d_c * c_before * f * (1 - f), d_c * i * (1 - g * g), d_h * tanh_c * o * (1 - o)],
        axis=1,
    )
    return tf.cast(tf.reshape(d_z, tf.shape(gates)), gates.dtype), d_c * f


def dense(inputs: Tensor, kernel: Tensor, bias: Tensor, compute_dtype: Any) -> Tensor:
    """inputs @ kernel + bias: the product in `compute_dtype`, the result float32.

    Args:
        inputs: (T, B, D).
        kernel: (D, N) float32.
        bias: (N,) float32.

    Returns:
        (T, B, N) float32.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def product(inputs: Tensor, kernel: Tensor) -> tuple[Tensor, Any]:
        rows = tf.cast(inputs, compute_dtype)
        steps, batch, features = inputs.shape
        low_precision_kernel = tf.cast(kernel, compute_dtype)
        result = tf.matmul(tf.reshape(rows, [-1, features]), low_precision_kernel)

        def gradient(d_result: Tensor) -> tuple[Tensor, Tensor]:
            d_rows = tf.cast(d_result, compute_dtype)
            d_inputs = tf.matmul(tf.reshape(d_rows, [steps * batch, -1]), transposed(low_precision_kernel))
            return tf.cast(tf.reshape(d_inputs, inputs.shape), inputs.dtype), _kernel_gradient(rows, d_rows)

        return tf.cast(tf.reshape(result, [steps, batch, -1]), tf.float32), gradient

    return product(inputs, kernel) + bias


def look_up(table: Tensor, token_ids: Tensor, compute_dtype: Any) -> Tensor:
    """Rows of `table` for each token id, differentiable in the table by one product.

    The first layer's input projection of an embedded token depends on the token alone, so for a vocabulary
    smaller than the window's tokens the projections of all V tokens are computed once and looked up.

    Args:
        table: (V, N) float32.
        token_ids: (T, B) int32.

    Returns:
        (T, B, N) in compute_dtype.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def rows(table: Tensor) -> tuple[Tensor, Any]:
        def gradient(d_rows: Tensor) -> Tensor:
            d_rows = tf.reshape(d_rows, [-1, table.shape[1]])  # (T, B, N) -> (T*B, N)
            one_hot = tf.one_hot(tf.reshape(token_ids, [-1]), table.shape[0], axis=0, dtype=compute_dtype)
            return tf.cast(tf.matmul(one_hot, d_rows), tf.float32)  # (V, T*B) (T*B, N)

        return tf.gather(tf.cast(table, compute_dtype), token_ids), gradient

    return rows(table)


def transposed(matrix: Tensor) -> Tensor:
    """The transpose of an (M, 4K) or any matrix, laid out anew.

    A plain `tf.transpose` before a product is folded by TensorFlow's graph optimizer into a transposed product,
    which is what this exists to avoid; the extra axis hides it.
    """
    rows, columns = matrix.shape
    return tf.reshape(tf.transpose(tf.reshape(matrix, [rows, 1, columns]), [1, 2, 0]), [columns, rows])


def _kernel_gradient(inputs: Tensor, d_outputs: Tensor) -> Tensor:
    """Sum over time and batch of inputs^T d_outputs: (T, B, D), (T, B, N) -> (D, N) float32."""
    features = inputs.shape[2]
    inputs_t = tf.reshape(tf.transpose(inputs, [2, 0, 1]), [features, -1])  # (D, T*B)
    return tf.cast(tf.matmul(inputs_t, tf.reshape(d_outputs, [-1, d_outputs.shape[2]])), tf.float32)
