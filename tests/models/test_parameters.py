"""The contract, by hand: a change here makes every saved model unreadable."""

from quickfox.config import ModelConfig
from quickfox.models.parameters import parameter_count, parameter_shapes

CONFIG = ModelConfig(vocabulary_size=65, embedding_dim=16, hidden_dim=32, num_layers=2)


def test_lstm_tensors() -> None:
    assert parameter_shapes(CONFIG) == {
        "embedding.weight": (65, 16),
        "recurrent.0.input_kernel": (16, 128),
        "recurrent.0.recurrent_kernel": (32, 128),
        "recurrent.0.bias": (128,),
        "recurrent.1.input_kernel": (32, 128),
        "recurrent.1.recurrent_kernel": (32, 128),
        "recurrent.1.bias": (128,),
        "output.kernel": (32, 65),
        "output.bias": (65,),
    }


def test_parameter_count() -> None:
    embedding, first, second, output = 65 * 16, (16 + 32 + 1) * 128, (32 + 32 + 1) * 128, (32 + 1) * 65
    assert parameter_count(CONFIG) == embedding + first + second + output


def test_the_largest_configuration_is_counted_without_being_made() -> None:
    config = ModelConfig(vocabulary_size=2**24, embedding_dim=2**16, hidden_dim=2**16, num_layers=64)
    assert parameter_count(config) > 2**40
