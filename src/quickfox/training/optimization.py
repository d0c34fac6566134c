"""The optimizer: AdamW, its learning-rate schedule, and clipping by global norm.

Knows variables and gradients, not the network they belong to.
"""

from typing import Any

import tensorflow as tf

from quickfox.config import TrainingConfig

Tensor = Any

BETA_1, BETA_2 = 0.9, 0.99
EPSILON = 1e-8


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then linear decay to 0 at `total_steps`.

    The warm-up does not depend on the total, so that a run can be re-planned after its first steps.
    """
    warm_up = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.learning_rate * warm_up * max(0.0, 1.0 - step / total_steps)


class AdamW:
    """Adam with decoupled weight decay, after clipping of the gradients by their global norm.

    With g the clipped gradient, t = 1, 2, ... and r the learning rate:

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
        w = w - r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) - r * decay * w

    Decay applies to matrices, not to biases. (Kingma & Ba 2015; Loshchilov & Hutter 2019; clipping: Pascanu,
    Mikolov & Bengio 2013.) Slots are float32, named after the parameter they belong to.
    """

    def __init__(self, parameters: dict[str, Any], weight_decay: float, clip_norm: float) -> None:
        self._parameters = parameters
        self._weight_decay = weight_decay
        self._clip_norm = clip_norm
        self._slots = {
            f"{slot}.{name}": tf.Variable(tf.zeros_like(variable), trainable=False)
            for name, variable in parameters.items()
            for slot in ("first_moment", "second_moment")
        }

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
        norm = tf.linalg.global_norm(list(gradients.values()))
        scale = tf.minimum(1.0, self._clip_norm / (norm + 1e-12))
        t = tf.cast(step + 1, tf.float32)
        for name, variable in self._parameters.items():
            first, second = self._slots[f"first_moment.{name}"], self._slots[f"second_moment.{name}"]
            decay = self._weight_decay if len(variable.shape) > 1 else 0.0
            updated = _adamw(variable, first, second, gradients[name], scale, rate, t, decay)
            for target, value in zip((variable, first, second), updated, strict=True):
                target.assign(value)


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
    """New weight and moments of one parameter, in one pass over memory; equations in `AdamW`."""
    gradient = gradient * scale
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * gradient * gradient
    direction = (first / (1 - BETA_1**t)) / (tf.sqrt(second / (1 - BETA_2**t)) + EPSILON)
    return weight - rate * (direction + decay * weight), first, second
