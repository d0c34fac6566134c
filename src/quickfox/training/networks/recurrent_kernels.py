"""Recurrent layers with hand-written forward and backward passes through time, fast on a processor.

Each of these is measured (benchmarks/LOG.md):

- the input projection of all time steps is ONE product before the loop, or an `embedding_lookup`;
- the backward loop computes the gradients of the state only; the gradient of the recurrent kernel is ONE product over
  all time steps after it;
- the element-wise arithmetic of a time step is one XLA cluster forward and one backward; matrix products stay outside
  XLA, in oneDNN, which computes them several times faster;
- a matrix that a product needs transposed is transposed once, before the loop (see `matmul.transpose`).

Sequences are time-major: (T, B, features). Matrix products are in `compute_dtype`, float32 or bfloat16; the state, the
element-wise arithmetic and the gradients of parameters are float32.
"""

from typing import Any

import tensorflow as tf

from quickfox.training.networks.matmul import Tensor, kernel_gradient, transpose

LSTM_GATES, GRU_GATES = 4, 3
# sigmoid(z) = tanh(z / 2) / 2 + 1/2, so the four activations of an lstm (i, f, g, o) are one tanh over the whole row,
# scaled and shifted per gate: twice as fast as four functions over a quarter of the row each.
GATE_SCALE = ((0.5,), (0.5,), (1.0,), (0.5,))
GATE_SHIFT = ((0.5,), (0.5,), (0.0,), (0.5,))


def lstm(projected: Tensor, recurrent_kernel: Tensor, h0: Tensor, c0: Tensor, compute_dtype: Any) -> tuple[Tensor, ...]:
    """Runs an LSTM layer over a window.

    With x_t W + b given as `projected` and U the recurrent kernel, for each time step t:

        z_t = x_t W + b + h_(t-1) U              split into z_i, z_f, z_g, z_o
        i = sigmoid(z_i)   f = sigmoid(z_f)   g = tanh(z_g)   o = sigmoid(z_o)
        c_t = f * c_(t-1) + i * g
        h_t = o * tanh(c_t)

    (Hochreiter & Schmidhuber 1997, "Long short-term memory"; forget gate: Gers, Schmidhuber & Cummins 2000, "Learning
    to forget".) Backward pass, with dh_t and dc_t the gradients of h_t and c_t from all later operations:

        dc  = dc_t + dh_t * o * (1 - tanh(c_t)^2)
        dz  = [dc*g*i*(1-i),  dc*c_(t-1)*f*(1-f),  dc*i*(1-g^2),  dh_t*tanh(c_t)*o*(1-o)]
        dc_(t-1) = dc * f
        dh_(t-1) = dz U^T   (+ the gradient of output t-1)          dU = sum over t of h_(t-1)^T dz_t

    Args:
        projected: (T, B, 4H) in compute_dtype: x_t W + b; all sizes static.
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
            kernel_t = transpose(kernel)  # (4H, H)
            d_h = tf.cast(d_h, compute_dtype)
            d_zs: list[Tensor] = []
            for t, d_output in reversed(list(enumerate(tf.unstack(d_outputs)))):
                d_z, d_c = _lstm_step_gradient(gates[t], cs[t], cs[t + 1], d_output, d_h, d_c)
                d_h = tf.matmul(d_z, kernel_t)  # (B, 4H) -> (B, H)
                d_zs.append(d_z)
            d_projected = tf.stack(d_zs[::-1])  # (T, B, 4H)
            return d_projected, kernel_gradient(tf.stack(hs[:-1]), d_projected), tf.cast(d_h, tf.float32), d_c

        return (tf.stack(hs[1:]), tf.cast(hs[-1], tf.float32), cs[-1]), gradient

    outputs, h, c = run(projected, recurrent_kernel, h0, c0)
    return outputs, h, c


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _lstm_step(projected: Tensor, recurrent: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x W + b and h U (B, 4H), c (B, H) -> gates i, f, g, o (B, 4H), new c (B, H) float32, new h (B, H)."""
    z = tf.cast(projected, tf.float32) + tf.cast(recurrent, tf.float32)
    z = tf.reshape(z, [z.shape[0], LSTM_GATES, -1])  # (B, 4H) -> (B, 4, H)
    activated = tf.constant(GATE_SCALE) * tf.tanh(tf.constant(GATE_SCALE) * z) + tf.constant(GATE_SHIFT)
    i, f, g, o = tf.unstack(activated, axis=1)  # (B, H) each
    c = f * c + i * g
    h = o * tf.tanh(c)
    gates = tf.reshape(activated, [z.shape[0], -1])  # (B, 4, H) -> (B, 4H)
    return tf.cast(gates, projected.dtype), c, tf.cast(h, projected.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _lstm_step_gradient(
    gates: Tensor, c_before: Tensor, c: Tensor, d_output: Tensor, d_h: Tensor, d_c: Tensor
) -> tuple[Tensor, Tensor]:
    """dz (B, 4H), and the gradient of c before the step (B, H) float32; for the equations see `lstm`."""
    i, f, g, o = tf.split(tf.cast(gates, tf.float32), LSTM_GATES, axis=1)  # (B, H) each
    d_h = tf.cast(d_output, tf.float32) + tf.cast(d_h, tf.float32)
    tanh_c = tf.tanh(c)
    d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
    d_z = tf.stack(
        [d_c * g * i * (1 - i), d_c * c_before * f * (1 - f), d_c * i * (1 - g * g), d_h * tanh_c * o * (1 - o)],
        axis=1,
    )  # (B, 4, H)
    return tf.cast(tf.reshape(d_z, tf.shape(gates)), gates.dtype), d_c * f


def gru(
    projected: Tensor, recurrent_kernel: Tensor, recurrent_bias: Tensor, h0: Tensor, compute_dtype: Any
) -> tuple[Tensor, Tensor]:
    """Runs a GRU layer over a window.

    With x_t W + a given as `projected`, U and b the recurrent kernel and bias, for each time step t:

        z_t = sigmoid(x_t Wz + az + h_(t-1) Uz + bz)             update gate
        r_t = sigmoid(x_t Wr + ar + h_(t-1) Ur + br)             reset gate
        u_t = h_(t-1) Ug + bg
        g_t = tanh(x_t Wg + ag + r_t * u_t)                      candidate
        h_t = z_t * h_(t-1) + (1 - z_t) * g_t

    (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder"; r_t applies after the product, as in
    cuDNN and in Keras with `reset_after`.) Backward pass, with dh_t the gradient of h_t from all later operations:

        dz = dh_t * (h_(t-1) - g) * z * (1-z)     dg = dh_t * (1-z) * (1-g^2)     dr = dg * u * r * (1-r)
        d_projected = [dz, dr, dg]                d_recurrent = [dz, dr, dg * r]
        dh_(t-1) = dh_t * z + d_recurrent U^T     dU = sum over t of h_(t-1)^T d_recurrent    db = sum of d_recurrent

    Args:
        projected: (T, B, 3H) in compute_dtype: x_t W + a; all sizes static.
        recurrent_kernel: (H, 3H) float32.
        recurrent_bias: (3H,) float32.
        h0: (B, H) float32: the state before the window.
        compute_dtype: tf.float32 or tf.bfloat16, of the matrix products.

    Returns:
        outputs (T, B, H) in compute_dtype, and the state after the window, (B, H) float32.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(projected: Tensor, recurrent_kernel: Tensor, recurrent_bias: Tensor, h0: Tensor) -> tuple[Any, Any]:
        kernel = tf.cast(recurrent_kernel, compute_dtype)
        hs, gates = [h0], []
        for projected_t in tf.unstack(projected):
            recurrent = tf.matmul(tf.cast(hs[-1], compute_dtype), kernel)  # (B, H) -> (B, 3H)
            gates_t, h = _gru_step(projected_t, recurrent, recurrent_bias, hs[-1])
            gates.append(gates_t)
            hs.append(h)

        def gradient(d_outputs: Tensor, d_h: Tensor) -> tuple[Tensor, ...]:
            kernel_t = transpose(kernel)  # (3H, H)
            d_h_direct, d_h = d_h, tf.zeros_like(d_h, compute_dtype)
            d_projected: list[Tensor] = []
            d_recurrent: list[Tensor] = []
            for t, d_output in reversed(list(enumerate(tf.unstack(d_outputs)))):
                d_projected_t, d_recurrent_t, d_h_direct = _gru_step_gradient(
                    gates[t], hs[t], d_output, d_h, d_h_direct
                )
                d_h = tf.matmul(d_recurrent_t, kernel_t)  # (B, 3H) -> (B, H)
                d_projected.append(d_projected_t)
                d_recurrent.append(d_recurrent_t)
            d_all = tf.stack(d_recurrent[::-1])  # (T, B, 3H)
            d_kernel = kernel_gradient(tf.cast(tf.stack(hs[:-1]), compute_dtype), d_all)
            d_bias = tf.reduce_sum(tf.cast(d_all, tf.float32), [0, 1])  # (3H,)
            return tf.stack(d_projected[::-1]), d_kernel, d_bias, d_h_direct + tf.cast(d_h, tf.float32)

        return (tf.cast(tf.stack(hs[1:]), compute_dtype), hs[-1]), gradient

    outputs, h = run(projected, recurrent_kernel, recurrent_bias, h0)
    return outputs, h


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _gru_step(projected: Tensor, recurrent: Tensor, bias: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """x W + a and h U (B, 3H), h (B, H) -> z, r, g, u concatenated (B, 4H), and new h (B, H) float32."""
    input_parts = tf.split(tf.cast(projected, tf.float32), GRU_GATES, axis=1)  # (B, H) each
    state_parts = tf.split(tf.cast(recurrent, tf.float32) + bias, GRU_GATES, axis=1)
    z, r = (0.5 * tf.tanh(0.5 * (input_parts[gate] + state_parts[gate])) + 0.5 for gate in range(2))
    u = state_parts[2]
    g = tf.tanh(input_parts[2] + r * u)
    return tf.cast(tf.concat([z, r, g, u], axis=1), projected.dtype), z * h + (1 - z) * g


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _gru_step_gradient(
    gates: Tensor, h_before: Tensor, d_output: Tensor, d_h: Tensor, d_h_direct: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """d_projected and d_recurrent (B, 3H), and dh * z (B, H) float32; for the equations see `gru`.

    The gradient of h after the step has two parts: `d_h` by way of the product with U, `d_h_direct` without it.
    """
    z, r, g, u = tf.split(tf.cast(gates, tf.float32), GRU_GATES + 1, axis=1)  # (B, H) each
    d_h = tf.cast(d_output, tf.float32) + tf.cast(d_h, tf.float32) + d_h_direct
    d_z = d_h * (h_before - g) * z * (1 - z)
    d_g = d_h * (1 - z) * (1 - g * g)
    d_r = d_g * u * r * (1 - r)
    d_projected = tf.cast(tf.concat([d_z, d_r, d_g], axis=1), gates.dtype)  # (B, 3H)
    return d_projected, tf.cast(tf.concat([d_z, d_r, d_g * r], axis=1), gates.dtype), d_h * z


def rnn(projected: Tensor, recurrent_kernel: Tensor, h0: Tensor, compute_dtype: Any) -> tuple[Tensor, Tensor]:
    """Runs a simple recurrent layer over a window: h_t = tanh(x_t W + b + h_(t-1) U).

    (Elman 1990, "Finding structure in time".) Backward pass, with dh_t the gradient of h_t from all later operations:

        dz = dh_t * (1 - h_t^2)         dh_(t-1) = dz U^T         dU = sum over t of h_(t-1)^T dz_t

    Args:
        projected: (T, B, H) in compute_dtype: x_t W + b; all sizes static.
        recurrent_kernel: (H, H) float32.
        h0: (B, H) float32: the state before the window.
        compute_dtype: tf.float32 or tf.bfloat16, of the matrix products.

    Returns:
        outputs (T, B, H) in compute_dtype, and the state after the window, (B, H) float32.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(projected: Tensor, recurrent_kernel: Tensor, h0: Tensor) -> tuple[Any, Any]:
        kernel = tf.cast(recurrent_kernel, compute_dtype)
        hs = [tf.cast(h0, compute_dtype)]
        for projected_t in tf.unstack(projected):
            hs.append(_rnn_step(projected_t, tf.matmul(hs[-1], kernel)))

        def gradient(d_outputs: Tensor, d_h: Tensor) -> tuple[Tensor, ...]:
            kernel_t = transpose(kernel)
            d_h = tf.cast(d_h, compute_dtype)
            d_zs: list[Tensor] = []
            for t, d_output in reversed(list(enumerate(tf.unstack(d_outputs)))):
                d_zs.append(_rnn_step_gradient(hs[t + 1], d_output, d_h))
                d_h = tf.matmul(d_zs[-1], kernel_t)
            d_projected = tf.stack(d_zs[::-1])  # (T, B, H)
            return d_projected, kernel_gradient(tf.stack(hs[:-1]), d_projected), tf.cast(d_h, tf.float32)

        return (tf.stack(hs[1:]), tf.cast(hs[-1], tf.float32)), gradient

    outputs, h = run(projected, recurrent_kernel, h0)
    return outputs, h


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _rnn_step(projected: Tensor, recurrent: Tensor) -> Tensor:
    return tf.cast(tf.tanh(tf.cast(projected, tf.float32) + tf.cast(recurrent, tf.float32)), projected.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _rnn_step_gradient(h: Tensor, d_output: Tensor, d_h: Tensor) -> Tensor:
    d_h, activated = tf.cast(d_output, tf.float32) + tf.cast(d_h, tf.float32), tf.cast(h, tf.float32)
    return tf.cast(d_h * (1 - activated * activated), h.dtype)
