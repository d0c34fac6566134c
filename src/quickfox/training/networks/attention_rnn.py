"""The trainable attention-rnn: an lstm that can look up what it has read.

Equations and papers stand in `models/attention_rnn`.
"""

from typing import Any

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.models.parameters import ATTENTION_PROJECTIONS, parameter_shapes
from quickfox.training.networks.attention_kernels import attention, empty_cache, restarted
from quickfox.training.networks.layers import Dropout, compute_dtype_of, seeded_initializers
from quickfox.training.networks.matmul import dense, product
from quickfox.training.networks.recurrent import RecurrentStack, State

Tensor = Any


class AttentionRNNNetwork:
    """Embedding -> encoder -> self-attention, joined with the encoder's outputs -> decoder -> dense.

    See `networks.Network`. Its state is the encoder's layers, the cache of the attention, the decoder's layers.
    Initial weights: the attention's kernel Glorot-uniform; all others as of `RecurrentNetwork`.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        assert config.context is not None
        self.config = config
        self.compute_dtype = compute_dtype_of(precision)
        self._cache_shape = (config.num_heads, config.context, config.hidden_dim // config.num_heads)
        initializer = seeded_initializers(random_seed)
        self.embedding = keras.layers.Embedding(
            config.vocabulary_size,
            config.embedding_dim,
            embeddings_initializer=initializer(keras.initializers.RandomNormal, stddev=1.0),
        )
        self.embedding.build((None, None))
        self.encoder = RecurrentStack(config, config.embedding_dim, initializer, self.compute_dtype)
        self.attention = keras.layers.Dense(
            ATTENTION_PROJECTIONS * config.hidden_dim,
            use_bias=False,
            kernel_initializer=initializer(keras.initializers.GlorotUniform),
        )
        self.attention.build((None, None, config.hidden_dim))
        self.decoder = RecurrentStack(config, 2 * config.hidden_dim, initializer, self.compute_dtype)
        self.output = keras.layers.Dense(
            config.vocabulary_size, kernel_initializer=initializer(keras.initializers.GlorotUniform)
        )
        self.output.build((None, None, config.hidden_dim))

    def parameters(self) -> dict[str, Any]:
        """Name in the contract -> tf.Variable, in the contract's order."""
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

    def with_restarts(self, state: State, rows: Tensor) -> State:
        """The state with those rows (B,) bool as in the beginning."""
        layers = self.config.num_layers
        keys, values, positions_read = state[layers]
        cache = restarted((keys, values, positions_read), rows)
        encoder, decoder = self.encoder.with_restarts(state[:layers], rows), state[layers + 1 :]
        return (*encoder, cache, *self.decoder.with_restarts(decoder, rows))

    def forward(
        self, token_ids: Tensor, state: State, dropout: float = 0.0, seed: Tensor = None
    ) -> tuple[Tensor, State]:
        """Logits for each position of a window, and the state after it: see `networks.Network.forward`."""
        masks, layers = Dropout(dropout, seed), self.config.num_layers
        embeddings = self.embedding.embeddings.value
        encoded, encoder_state = self.encoder.run_tokens(embeddings, tf.transpose(token_ids), state[:layers], masks)
        projected = product(encoded, self.attention.kernel.value, self.compute_dtype)  # (T, B, 3H)
        keys, values, positions_read = state[layers]
        cache = (keys, values, positions_read)
        found, cache = attention(tf.transpose(projected, [1, 0, 2]), cache, self.compute_dtype)
        found = masks.same_over_time(tf.transpose(found, [1, 0, 2]), layers)
        connect_workers = tf.concat([tf.cast(encoded, self.compute_dtype), found], axis=-1)  # (T, B, 2H)
        decoded, decoder_state = self.decoder.run(connect_workers, state[layers + 1 :], masks, layers + 1)
        logits = dense(decoded, self.output.kernel.value, self.output.bias.value, self.compute_dtype)
        return logits, (*encoder_state, cache, *decoder_state)
