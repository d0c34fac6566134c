"""ModelConfig -> trainable network: the Network protocol and the class of each architecture.

A network owns its weights as TensorFlow variables, named as in `models/parameters.py`, and computes logits from them.
The NumPy model of the same architecture in `models/` computes the same function.
"""

from collections.abc import Callable
from typing import Any, Protocol

from quickfox.config.model import Architecture, ModelConfig
from quickfox.config.training import Precision
from quickfox.training.networks.attention_rnn import AttentionRNNNetwork
from quickfox.training.networks.layers import NO_DROPOUT, Dropout, State, Tensor
from quickfox.training.networks.recurrent import RecurrentNetwork
from quickfox.training.networks.transformer import TransformerNetwork


class Network(Protocol):
    """A trainable language model.

    Attributes:
        config: determines the architecture and all shapes.
        compute_dtype: of the matrix products; everything else is float32.
    """

    config: ModelConfig
    compute_dtype: Any

    def parameters(self) -> dict[str, Any]:
        """Parameter name -> tf.Variable, in the order of `parameter_shapes`."""

    def initial_state(self, batch_size: int) -> State:
        """The state before the first token of `batch_size` sequences: zeros, each tensor (B, ...)."""

    def reset_rows(self, state: State, is_reset: Tensor) -> State:
        """The state, with the initial state in the rows where `is_reset` (B,) bool is true."""

    def forward(self, token_ids: Tensor, state: State, dropout: Dropout = NO_DROPOUT) -> tuple[Tensor, State]:
        """Logits at each position of a window, and the state after it.

        Args:
            token_ids: (B, T) int32, both static.
            state: as returned by `initial_state` or for the previous window; receives no gradient.
            dropout: the masks of the layers' outputs.

        Returns:
            logits (T, B, V) float32, TIME-major, and the new state.
        """


_NETWORKS: dict[Architecture, Callable[[ModelConfig, int, Precision], Network]] = {
    "rnn": RecurrentNetwork,
    "gru": RecurrentNetwork,
    "lstm": RecurrentNetwork,
    "attention-rnn": AttentionRNNNetwork,
    "transformer": TransformerNetwork,
}


def build_network(config: ModelConfig, random_seed: int, precision: Precision) -> Network:
    """The network that `config` describes; its initial weights are a function of `random_seed`."""
    return _NETWORKS[config.architecture](config, random_seed, precision)
