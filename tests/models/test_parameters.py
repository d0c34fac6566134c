"""The parameter schema by hand: a change makes every saved model unreadable."""

import dataclasses

import pytest

from quickfox.config.model import ModelConfig
from quickfox.models.parameters import feed_forward_dim, hidden_kernels, parameter_count, parameter_shapes

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


def test_gru_tensors() -> None:
    config = ModelConfig(architecture="gru", vocabulary_size=65, embedding_dim=16, hidden_dim=32)
    assert parameter_shapes(config) == {
        "embedding.weight": (65, 16),
        "recurrent.0.input_kernel": (16, 96),
        "recurrent.0.recurrent_kernel": (32, 96),
        "recurrent.0.bias": (2, 96),
        "output.kernel": (32, 65),
        "output.bias": (65,),
    }
    assert hidden_kernels(config) == {"recurrent.0.input_kernel": 3, "recurrent.0.recurrent_kernel": 3}


def test_rnn_tensors() -> None:
    config = ModelConfig(architecture="rnn", vocabulary_size=65, embedding_dim=16, hidden_dim=32)
    assert parameter_shapes(config) == {
        "embedding.weight": (65, 16),
        "recurrent.0.input_kernel": (16, 32),
        "recurrent.0.recurrent_kernel": (32, 32),
        "recurrent.0.bias": (32,),
        "output.kernel": (32, 65),
        "output.bias": (65,),
    }


def test_attention_rnn_tensors() -> None:
    config = ModelConfig(
        architecture="attention-rnn", vocabulary_size=65, embedding_dim=16, hidden_dim=32, num_heads=4, context=8
    )
    assert parameter_shapes(config) == {
        "embedding.weight": (65, 16),
        "encoder.0.input_kernel": (16, 128),
        "encoder.0.recurrent_kernel": (32, 128),
        "encoder.0.bias": (128,),
        "attention.input_kernel": (32, 96),
        "decoder.0.input_kernel": (64, 128),
        "decoder.0.recurrent_kernel": (32, 128),
        "decoder.0.bias": (128,),
        "output.kernel": (32, 65),
        "output.bias": (65,),
    }
    assert hidden_kernels(config)["attention.input_kernel"] == 3
    assert hidden_kernels(config)["decoder.0.input_kernel"] == 4


def test_transformer_tensors() -> None:
    config = ModelConfig(architecture="transformer", vocabulary_size=65, embedding_dim=32, hidden_dim=32, context=8)
    shapes = {
        "embedding.weight": (65, 32),
        "layers.0.attention_norm.weight": (32,),
        "layers.0.attention.input_kernel": (32, 96),
        "layers.0.attention.output_kernel": (32, 32),
        "layers.0.feed_forward_norm.weight": (32,),
        "layers.0.feed_forward.input_kernel": (32, 192),
        "layers.0.feed_forward.output_kernel": (96, 32),
        "norm.weight": (32,),
        "output.kernel": (32, 65),
    }
    assert parameter_shapes(config) == shapes
    assert parameter_shapes(dataclasses.replace(config, tied_embeddings=True)).keys() == shapes.keys() - {
        "output.kernel"
    }
    assert list(hidden_kernels(config).values()) == [3, 1, 2, 1]


@pytest.mark.parametrize(("hidden_dim", "expected"), [(6, 16), (128, 352), (256, 688), (384, 1024), (512, 1376)])
def test_feed_forward_dim_is_eight_thirds_of_hidden_dim(hidden_dim: int, expected: int) -> None:
    assert feed_forward_dim(hidden_dim) == expected


def test_parameter_count_by_hand() -> None:
    embedding, first, second, output = 65 * 16, (16 + 32 + 1) * 128, (32 + 32 + 1) * 128, (32 + 1) * 65
    assert parameter_count(CONFIG) == embedding + first + second + output


def test_counting_parameters_allocates_no_tensor() -> None:
    config = ModelConfig(vocabulary_size=2**24, embedding_dim=2**16, hidden_dim=2**16, num_layers=64)
    assert parameter_count(config) > 2**40
