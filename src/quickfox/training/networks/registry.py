"""ModelConfig -> trainable network: what each of them can do, and which page each architecture has.

A network owns its weights as TensorFlow variables, named as in `models/parameters.py`, and computes logits from them;
the NumPy models of the same names compute the same.
"""

from collections.abc import Callable
from typing import Any, Protocol

from quickfox.config.model import Architecture, ModelConfig
from quickfox.config.training import Precision
from quickfox.training.networks.attention_rnn import AttentionRNNNetwork
from quickfox.training.networks.recurrent import RecurrentNetwork
from quickfox.training.networks.transformer import TransformerNetwork

Tensor = Any
State = tuple[tuple[Tensor, ...], ...]


class Network(Protocol):
    """A trainable language model.

    Attributes:
        config: fixes the architecture and all shapes.
        compute_dtype: of the matrix products; everything else is float32.
    """

    config: ModelConfig
    compute_dtype: Any

    def parameters(self) -> dict[str, Any]:
        """Name in the contract -> tf.Variable, in the contract's order."""

    def initial_state(self, batch_size: int) -> State:
        """The state of `batch_size` texts of which nothing has been read: zeros, each array (B, ...)."""

    def with_restarts(self, state: State, rows: Tensor) -> State:
        """The state with those rows (B,) bool as in the beginning."""

    def forward(
        self, token_ids: Tensor, state: State, dropout: float = 0.0, seed: Tensor = None
    ) -> tuple[Tensor, State]:
        """Logits for each position of a window, and the state after it.

        Args:
            token_ids: (B, T) int32, both static.
            state: as `initial_state`, or as the window before left it; no gradient flows into it.
            dropout: share of the layers' outputs that is dropped.
            seed: (2,) int32, needed with dropout: fixes the masks.

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
    """The network that `config` describes, with fresh weights that depend on `random_seed` alone."""
    return _NETWORKS[config.architecture](config, random_seed, precision)
