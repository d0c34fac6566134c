"""The parameter schema by hand: a change makes every saved model unreadable."""

import dataclasses

import numpy as np
import pytest

from quickfox.config.model import ATTENTION_ARCHITECTURES, Architecture, ModelConfig
from quickfox.models.parameters import (
    feed_forward_dim,
    hidden_kernels,
    ngram_specs,
    parameter_count,
    parameter_shapes,
    tensor_specs,
    token_dtype,
)
from toy_models import NETWORK_ARCHITECTURES

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


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_tensors_of_the_ngram_gate_are_the_last_of_a_network(architecture: Architecture) -> None:
    config = ModelConfig(
        architecture=architecture,
        vocabulary_size=65,
        embedding_dim=32,
        hidden_dim=32,
        context=8 if architecture in ATTENTION_ARCHITECTURES else None,
    )
    gated = dataclasses.replace(config, ngram_gate=6)
    gate = {"ngram_gate.kernel": (32,), "ngram_gate.length_bias": (6,)}
    assert list(parameter_shapes(gated).items()) == [*parameter_shapes(config).items(), *gate.items()]
    assert parameter_count(gated) == parameter_count(config) + 32 + 6
    assert hidden_kernels(gated) == hidden_kernels(config)
    with_tables = dataclasses.replace(gated, ngrams=(65, 9, 9, 9, 9, 9))
    assert list(tensor_specs(with_tables)) == [*parameter_shapes(gated), *ngram_specs(with_tables)]


@pytest.mark.parametrize(("hidden_dim", "expected"), [(6, 16), (128, 352), (256, 688), (384, 1024), (512, 1376)])
def test_feed_forward_dim_is_eight_thirds_of_hidden_dim(hidden_dim: int, expected: int) -> None:
    assert feed_forward_dim(hidden_dim) == expected


def test_parameter_count_by_hand() -> None:
    embedding, first, second, output = 65 * 16, (16 + 32 + 1) * 128, (32 + 32 + 1) * 128, (32 + 1) * 65
    assert parameter_count(CONFIG) == embedding + first + second + output


def test_counting_parameters_allocates_no_tensor() -> None:
    config = ModelConfig(vocabulary_size=2**24, embedding_dim=2**16, hidden_dim=2**16, num_layers=64)
    assert parameter_count(config) > 2**40


def test_an_ngram_model_has_no_trainable_parameters() -> None:
    config = ModelConfig(
        architecture="ngram", vocabulary_size=65, embedding_dim=0, hidden_dim=0, num_layers=0, ngrams=(65, 9)
    )
    assert (parameter_shapes(config), hidden_kernels(config), parameter_count(config)) == ({}, {}, 0)
    assert tensor_specs(config) == ngram_specs(config) != {}
    assert tensor_specs(dataclasses.replace(config, ngrams=())) == {}


def test_tensors_of_the_ngram_tables() -> None:
    config = dataclasses.replace(CONFIG, ngrams=(65, 700, 0))
    tables = {
        "ngram.1.probs": ((65,), np.float32),
        "ngram.2.offsets": ((66,), np.uint32),
        "ngram.2.tokens": ((700,), np.uint8),
        "ngram.2.probs": ((700,), np.float32),
        "ngram.3.offsets": ((701,), np.uint32),
        "ngram.3.tokens": ((0,), np.uint8),
        "ngram.3.probs": ((0,), np.float32),
    }
    assert ngram_specs(config) == tables
    network = {name: (shape, np.float32) for name, shape in parameter_shapes(CONFIG).items()}
    assert list(tensor_specs(config).items()) == [*network.items(), *tables.items()]
    assert tensor_specs(CONFIG) == network
    assert (parameter_shapes(config), parameter_count(config)) == (parameter_shapes(CONFIG), parameter_count(CONFIG))
    assert ngram_specs(config)["ngram.2.tokens"].nbytes == 700
    assert ngram_specs(config)["ngram.2.offsets"].nbytes == 264


@pytest.mark.parametrize(
    ("vocabulary_size", "dtype"),
    [(1, np.uint8), (256, np.uint8), (257, np.uint16), (2**16, np.uint16), (2**16 + 1, np.uint32), (2**24, np.uint32)],
)
def test_tokens_have_the_smallest_dtype_that_holds_them(vocabulary_size: int, dtype: type) -> None:
    assert token_dtype(vocabulary_size) == dtype
    assert np.iinfo(dtype).max >= vocabulary_size - 1
