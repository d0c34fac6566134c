"""ModelConfig -> trainable network: the class of each architecture."""

from collections.abc import Callable

from quickfox.config.model import Architecture, ModelConfig
from quickfox.config.training import Precision
from quickfox.training.networks.attention_rnn import AttentionRNNNetwork
from quickfox.training.networks.network import Network
from quickfox.training.networks.recurrent import RecurrentNetwork
from quickfox.training.networks.transformer import TransformerNetwork

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
