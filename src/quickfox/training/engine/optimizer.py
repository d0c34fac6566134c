"""The optimizer: Muon for the hidden matrices, AdamW for all other parameters; and the learning-rate schedule.

Except for `build_optimizer`, independent of the network that the parameters belong to.
"""

from typing import Any

import tensorflow as tf

from quickfox.config.training import TrainingConfig
from quickfox.models.parameters import EMBEDDING, hidden_kernels
from quickfox.training.networks.matmul import Tensor, transpose
from quickfox.training.networks.network import Network

BETA_1, BETA_2 = 0.9, 0.99
EPSILON = 1e-8

MUON_RATE = 7.0  # Muon's learning rate as a multiple of AdamW's
MUON_DECAY = 0.5  # Muon's weight decay as a multiple of AdamW's, each relative to its own learning rate
MOMENTUM = 0.9
MIN_FUSED_ELEMENTS = 2**17
"""Elements of a parameter from which its AdamW update is one XLA cluster, in one pass over memory. Each cluster takes
0.1 s to compile before the first step, more than a long run saves with smaller parameters."""

NEWTON_SCHULZ = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
)
"""Coefficients a, b, c of each step of the Newton-Schulz iteration (Amsel et al. 2025, "The Polar Express").

Two steps: a third did not lower the loss, and each step costs three matrix products.
"""


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then linear decay to 0 at `total_steps`.

    The warm-up is independent of the total, so the total can change after the first steps.
    """
    warm_up = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.learning_rate * warm_up * max(0.0, 1.0 - step / total_steps)


class Optimizer:
    """Muon for the matrices in `fused_projections`, AdamW for all other parameters.

    With g the gradient, t = 1, 2, ... and r the learning rate, AdamW is, after clipping of its gradients by their
    global norm,

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
        w = w - r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) - r * decay * w

    (Kingma & Ba 2015, "Adam"; Loshchilov & Hutter 2019, "Decoupled weight decay regularization"; clipping: Pascanu,
    Mikolov & Bengio 2013), and Muon is

        m = b m + (1 - b) g          u = b m + (1 - b) g          (Nesterov momentum)
        w = w - MUON_RATE * r * (orthogonalize(u) + MUON_DECAY * decay * w)

    (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"). If several projections are fused in
    a matrix, such as the gates of an LSTM, each is orthogonalized on its own. Weight decay applies to matrices, not to
    biases. Slots are float32 and named after their parameter.

    Args:
        parameters: name -> variable.
        fused_projections: name of each matrix that Muon updates -> number of projections fused in it, by columns.
        weight_decay, clip_norm: as in TrainingConfig.
        compute_dtype: tf.float32 or tf.bfloat16, of Muon's matrix products.

    Attributes:
        parameters: as given.
        slots: the optimizer's own variables, by name; part of a checkpoint.
    """

    def __init__(
        self,
        parameters: dict[str, Any],
        fused_projections: dict[str, int],
        weight_decay: float,
        clip_norm: float,
        compute_dtype: Any = tf.float32,
    ) -> None:
        self.parameters = parameters
        self._fused_projections = fused_projections
        self._weight_decay = weight_decay
        self._clip_norm = clip_norm
        self._compute_dtype = compute_dtype
        self.slots = {
            f"{slot}.{name}": tf.Variable(tf.zeros_like(variable), trainable=False)
            for name, variable in parameters.items()
            for slot in (("momentum",) if name in fused_projections else ("first_moment", "second_moment"))
        }

    def apply(self, gradients: dict[str, Tensor], rate: Tensor, step: Tensor) -> None:
        """Updates all parameters once.

        Args:
            gradients: by parameter name, dense.
            rate: learning rate, scalar float32.
            step: scalar int64, from 0.
        """
        for name, projections in self._fused_projections.items():
            self._apply_muon(name, projections, gradients[name], rate)
        rest = {name: gradient for name, gradient in gradients.items() if name not in self._fused_projections}
        scale = tf.minimum(1.0, self._clip_norm / (tf.linalg.global_norm(list(rest.values())) + 1e-12))
        t = tf.cast(step + 1, tf.float32)
        for name, gradient in rest.items():
            variable = self.parameters[name]
            first, second = self.slots[f"first_moment.{name}"], self.slots[f"second_moment.{name}"]
            is_matrix = len(variable.shape) > 1 and not name.endswith("bias")  # a gru's two biases are one 2D tensor
            decay = self._weight_decay if is_matrix else 0.0
            # Values, not variables: a traced function does not distinguish mirrored variables of the same shape.
            values = (tf.convert_to_tensor(target) for target in (variable, first, second))
            update: Any = _fused_adamw if variable.shape.num_elements() >= MIN_FUSED_ELEMENTS else _adamw
            updated = update(*values, gradient, scale, rate, t, decay)
            for target, value in zip((variable, first, second), updated, strict=True):
                target.assign(value)

    def _apply_muon(self, name: str, projections: int, gradient: Tensor, rate: Tensor) -> None:
        variable, slot = self.parameters[name], self.slots[f"momentum.{name}"]
        momentum = MOMENTUM * slot + (1 - MOMENTUM) * gradient
        update = tf.cast(MOMENTUM * momentum + (1 - MOMENTUM) * gradient, self._compute_dtype)
        parts = tf.split(update, projections, axis=1)  # (D, G*N) -> G of (D, N)
        direction = tf.concat([_traced_orthogonalize(part) for part in parts], axis=1)
        decay = MUON_DECAY * self._weight_decay * variable
        slot.assign(momentum)
        variable.assign(variable - MUON_RATE * rate * (tf.cast(direction, tf.float32) + decay))


def build_optimizer(network: Network, training: TrainingConfig) -> Optimizer:
    """The optimizer of the parameters of a network that are not frozen."""
    parameters = network.parameters()
    if training.freeze_embeddings:
        del parameters[EMBEDDING]
    kernels = hidden_kernels(network.config)
    return Optimizer(parameters, kernels, training.weight_decay, training.clip_norm, network.compute_dtype)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Approximates the nearest semi-orthogonal matrix: U V^T, with U S V^T the singular value decomposition.

    Newton-Schulz iteration, as in Muon (Jordan et al. 2024), with the coefficients `NEWTON_SCHULZ`: from the matrix
    divided by its Frobenius norm, each step is x <- a x + (b g + c g^2) x with g = x x^T. The two steps multiply the
    smallest singular values by 34, and map those above a hundredth of the norm to between 0.2 and 2.

    Args:
        matrix: (M, N), float32 or bfloat16.

    Returns:
        (M, N), of the same dtype.
    """
    rows, columns = matrix.shape
    if rows > columns:  # the smaller of the two Gram matrices costs less
        return transpose(orthogonalize(transpose(matrix)))
    norm = tf.norm(tf.cast(matrix, tf.float32))
    x = matrix / tf.cast(1.01 * norm + 1e-7, matrix.dtype)
    for a, b, c in NEWTON_SCHULZ:
        gram = tf.matmul(x, transpose(x))  # (M, M)
        x = a * x + tf.matmul(b * gram + c * tf.matmul(gram, gram), x)
    return x


def _adamw(
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    gradient: Tensor,
    scale: Tensor,
    rate: Tensor,
    t: Tensor,
    decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """New weight and moments of one parameter; for the equations see `Optimizer`."""
    gradient = gradient * scale
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * gradient * gradient
    direction = (first / (1 - BETA_1**t)) / (tf.sqrt(second / (1 - BETA_2**t)) + EPSILON)
    return weight - rate * (direction + decay * weight), first, second


_fused_adamw: Any = tf.function(_adamw, jit_compile=True, autograph=False)
_traced_orthogonalize: Any = tf.function(orthogonalize, autograph=False)  # traced once for all projections of a shape
