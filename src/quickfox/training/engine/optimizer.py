"""The optimizer: Muon for the large matrices, AdamW for the rest; the learning-rate schedule.

Knows variables and gradients, not the network they belong to.
"""

from typing import Any

import tensorflow as tf

from quickfox.config.training import TrainingConfig
from quickfox.training.networks.matmul import transpose

Tensor = Any

BETA_1, BETA_2 = 0.9, 0.99
EPSILON = 1e-8

MUON_RATE = 7.0  # Muon's learning rate as a multiple of AdamW's
MUON_DECAY = 0.5  # Muon's weight decay as a multiple of AdamW's, each relative to its own learning rate
MOMENTUM = 0.9
NEWTON_SCHULZ = (  # two steps: more brought the loss no further, and each costs three products
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
)
"""Coefficients a, b, c of each step of the iteration (Amsel et al. 2025, "The Polar Express")."""


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then linear decay to 0 at `total_steps`.

    The warm-up does not depend on the total, so that a run can be re-planned after its first steps.
    """
    warm_up = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.learning_rate * warm_up * max(0.0, 1.0 - step / total_steps)


class Optimizer:
    """Muon for the matrices named in `blocks`, AdamW for all other parameters.

    With g the gradient, t = 1, 2, ... and r the learning rate, AdamW is, after clipping of its gradients by
    their global norm,

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
        w = w - r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) - r * decay * w

    (Kingma & Ba 2015; Loshchilov & Hutter 2019; clipping: Pascanu, Mikolov & Bengio 2013), and Muon

        m = b m + (1 - b) g          u = b m + (1 - b) g          (Nesterov's momentum)
        w = w - MUON_RATE * r * (orthogonalised(u) + MUON_DECAY * decay * w)

    (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"). A matrix that holds several
    maps side by side, such as the gates of an LSTM, is orthogonalised block by block. Decay applies to matrices,
    not to biases. Slots are float32, named after the parameter they belong to.

    Args:
        parameters: name -> variable.
        blocks: name -> number of maps that stand side by side in that matrix, of those that Muon is for.
        weight_decay, clip_norm: as in TrainingConfig.
        compute_dtype: tf.float32 or tf.bfloat16, of Muon's matrix products.
    """

    def __init__(
        self,
        parameters: dict[str, Any],
        blocks: dict[str, int],
        weight_decay: float,
        clip_norm: float,
        compute_dtype: Any = tf.float32,
    ) -> None:
        self._parameters = parameters
        self._blocks = blocks
        self._weight_decay = weight_decay
        self._clip_norm = clip_norm
        self._compute_dtype = compute_dtype
        self._slots = {
            f"{slot}.{name}": tf.Variable(tf.zeros_like(variable), trainable=False)
            for name, variable in parameters.items()
            for slot in (("momentum",) if name in blocks else ("first_moment", "second_moment"))
        }

    @property
    def parameters(self) -> dict[str, Any]:
        """What it updates, by name."""
        return self._parameters

    @property
    def slots(self) -> dict[str, Any]:
        """Every optimizer tensor by name, for checkpoints."""
        return self._slots

    def apply(self, gradients: dict[str, Tensor], rate: Tensor, step: Tensor) -> None:
        """One update of all parameters.

        Args:
            gradients: by parameter name, dense.
            rate: scalar float32.
            step: scalar int64, from 0.
        """
        for name, blocks in self._blocks.items():
            self._apply_muon(name, blocks, gradients[name], rate)
        rest = {name: gradient for name, gradient in gradients.items() if name not in self._blocks}
        scale = tf.minimum(1.0, self._clip_norm / (tf.linalg.global_norm(list(rest.values())) + 1e-12))
        t = tf.cast(step + 1, tf.float32)
        for name, gradient in rest.items():
            variable = self._parameters[name]
            first, second = self._slots[f"first_moment.{name}"], self._slots[f"second_moment.{name}"]
            is_matrix = len(variable.shape) > 1 and not name.endswith("bias")  # a gru has two biases, as one tensor
            decay = self._weight_decay if is_matrix else 0.0
            # Values, not variables: to a traced function all mirrored variables of one shape are the same.
            values = (tf.convert_to_tensor(each) for each in (variable, first, second))
            updated = _adamw(*values, gradient, scale, rate, t, decay)
            for target, value in zip((variable, first, second), updated, strict=True):
                target.assign(value)

    def _apply_muon(self, name: str, blocks: int, gradient: Tensor, rate: Tensor) -> None:
        variable, slot = self._parameters[name], self._slots[f"momentum.{name}"]
        momentum = MOMENTUM * slot + (1 - MOMENTUM) * gradient
        update = tf.cast(MOMENTUM * momentum + (1 - MOMENTUM) * gradient, self._compute_dtype)
        direction = tf.concat([orthogonalize(block) for block in tf.split(update, blocks, axis=1)], axis=1)
        decay = MUON_DECAY * self._weight_decay * variable
        slot.assign(momentum)
        variable.assign(variable - MUON_RATE * rate * (tf.cast(direction, tf.float32) + decay))


def orthogonalize(matrix: Tensor) -> Tensor:
    """The matrix with its singular values brought to the order of 1: with U S V^T its decomposition, roughly U V^T.

    By a few steps of x <- a x + (b g + c g^2) x, g = x x^T, from the matrix divided by its Frobenius norm on. Two
    steps lift the smallest singular values 34-fold, and leave those above a hundredth of the norm between 0.2 and 2.

    Args:
        matrix: (M, N), float32 or bfloat16.

    Returns:
        (M, N), of the same type.
    """
    rows, columns = matrix.shape
    if rows > columns:  # the smaller of the two Gram matrices costs less
        return transpose(orthogonalize(transpose(matrix)))
    norm = tf.norm(tf.cast(matrix, tf.float32))
    x = matrix / tf.cast(1.01 * norm + 1e-7, matrix.dtype)
    for a, b, c in NEWTON_SCHULZ:
        gram = tf.matmul(x, transpose(x))
        x = a * x + tf.matmul(b * gram + c * tf.matmul(gram, gram), x)
    return x


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
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
    """New weight and moments of one parameter, in one pass over memory; equations in `Optimizer`."""
    gradient = gradient * scale
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * gradient * gradient
    direction = (first / (1 - BETA_1**t)) / (tf.sqrt(second / (1 - BETA_2**t)) + EPSILON)
    return weight - rate * (direction + decay * weight), first, second
