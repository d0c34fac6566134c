"""The trainable attention-rnn: a recurrent encoder, self-attention over its outputs, a recurrent decoder.

For equations and papers see `models/attention_rnn.py`.
"""

from typing import Any

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.models.parameters import ATTENTION_PROJECTIONS, parameter_shapes
from quickfox.training.networks.attention_kernels import attention, empty_cache, reset_cache_rows
from quickfox.training.networks.layers import (
    NO_DROPOUT,
    Dropout,
    State,
    Tensor,
    compute_dtype_of,
    embedding_layer,
    output_layer,
    seeded_initializers,
)
from quickfox.training.networks.matmul import dense, matmul
from quickfox.training.networks.recurrent import RecurrentStack


class AttentionRNNNetwork:
    """Embedding -> encoder -> self-attention, concatenated with the encoder's outputs -> decoder -> dense.

    A `registry.Network`. Its state is the encoder's layers, the attention's cache, the decoder's layers. Initial
    weights: the attention's kernel Glorot-uniform; all others as in `RecurrentNetwork`.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        assert config.context is not None
        self.config = config
        self.compute_dtype = compute_dtype_of(precision)
        self._cache_shape = (config.num_heads, config.context, config.hidden_dim // config.num_heads)
        initializer = seeded_initializers(random_seed)
        self.embedding = embedding_layer(config, initializer)
        self.encoder = RecurrentStack(config, config.embedding_dim, initializer, self.compute_dtype)
        self.attention = keras.layers.Dense(
            ATTENTION_PROJECTIONS * config.hidden_dim,
            use_bias=False,
            kernel_initializer=initializer(keras.initializers.GlorotUniform),
        )
        self.attention.build((None, None, config.hidden_dim))
        self.decoder = RecurrentStack(config, 2 * config.hidden_dim, initializer, self.compute_dtype)
        self.output = output_layer(config, initializer)

    def parameters(self) -> dict[str, Any]:
        """Parameter name -> tf.Variable, in the order of `parameter_shapes`."""
        variables = [
            self.embedding.embeddings.value,
            *self.encoder.variables(),
            self.attention.kernel.value,
            *self.decoder.variables(),
            self.output.kernel.value,
            self.output.bias.value,
        ]
        return dict(zip(parameter_shapes(self.config), variables, strict=True))

    def initial_state(self, batch_size: int) -> State:
        """Zeros, and an empty cache."""
        cache = empty_cache(batch_size, *self._cache_shape)
        return (*self.encoder.initial_state(batch_size), cache, *self.decoder.initial_state(batch_size))

    def reset_rows(self, state: State, is_reset: Tensor) -> State:
        """See `registry.Network.reset_rows`."""
        encoder_state, cache, decoder_state = self._split_state(state)
        return (
            *self.encoder.reset_rows(encoder_state, is_reset),
            reset_cache_rows(cache, is_reset),
            *self.decoder.reset_rows(decoder_state, is_reset),
        )

    def forward(self, token_ids: Tensor, state: State, dropout: Dropout = NO_DROPOUT) -> tuple[Tensor, State]:
        """See `registry.Network.forward`."""
        layers, embeddings = self.config.num_layers, self.embedding.embeddings.value
        encoder_state, cache, decoder_state = self._split_state(state)
        token_ids = tf.transpose(token_ids)  # (B, T) -> (T, B)
        encoded, encoder_state = self.encoder.run_tokens(embeddings, token_ids, encoder_state, dropout)  # (T, B, H)
        projected = matmul(encoded, self.attention.kernel.value, self.compute_dtype)  # (T, B, 3H)
        attended, cache = attention(tf.transpose(projected, [1, 0, 2]), cache, self.compute_dtype)  # (B, T, H)
        attended = dropout.apply_variational(tf.transpose(attended, [1, 0, 2]), layers)  # (T, B, H)
        decoder_inputs = tf.concat([tf.cast(encoded, self.compute_dtype), attended], axis=-1)  # (T, B, 2H)
        decoded, decoder_state = self.decoder.run(decoder_inputs, decoder_state, dropout, layers + 1)  # (T, B, H)
        logits = dense(decoded, self.output.kernel.value, self.output.bias.value, self.compute_dtype)  # (T, B, V)
        return logits, (*encoder_state, cache, *decoder_state)

    def _split_state(self, state: State) -> tuple[State, tuple[Tensor, Tensor, Tensor], State]:
        """The encoder's state, the cache, the decoder's state."""
        layers = self.config.num_layers
        keys, values, positions_read = state[layers]
        return state[:layers], (keys, values, positions_read), state[layers + 1 :]
