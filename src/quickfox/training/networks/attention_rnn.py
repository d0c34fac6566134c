"""The trainable attention-rnn: a recurrent encoder, self-attention over its outputs, a recurrent decoder.

For equations and papers see `models/attention_rnn.py`.
"""

import keras
import tensorflow as tf

from quickfox.config.model import ModelConfig
from quickfox.config.training import Precision
from quickfox.models.parameters import parameter_shapes
from quickfox.training.networks.attention_kernels import attention, empty_cache, reset_cache_rows
from quickfox.training.networks.matmul import Tensor, dense, matmul
from quickfox.training.networks.network import (
    NO_DROPOUT,
    Dropout,
    FrameTensors,
    LayerState,
    Network,
    State,
    seeded_initializers,
)
from quickfox.training.networks.recurrent import RecurrentStack


class AttentionRNNNetwork(Network):
    """Embedding -> encoder -> self-attention, concatenated with the encoder's outputs -> decoder -> dense.

    Its state is the encoder's layers, the attention's cache, the decoder's layers. Initial weights: the attention's
    kernel Glorot-uniform; all others as in `RecurrentNetwork`.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        super().__init__(config, precision)
        initializer, shapes = seeded_initializers(random_seed), parameter_shapes(config)
        embedding = tf.Variable(initializer(keras.initializers.RandomNormal, stddev=1.0)(shapes["embedding.weight"]))
        self._encoder = RecurrentStack(config, config.embedding_dim, initializer, self.compute_dtype)
        attention_kernel = tf.Variable(initializer(keras.initializers.GlorotUniform)(shapes["attention.input_kernel"]))
        self._decoder = RecurrentStack(config, 2 * config.hidden_dim, initializer, self.compute_dtype)
        output_kernel = tf.Variable(initializer(keras.initializers.GlorotUniform)(shapes["output.kernel"]))
        output_bias = tf.Variable(tf.zeros(shapes["output.bias"]))
        stacks = [*self._encoder.variables(), attention_kernel, *self._decoder.variables()]
        variables = [embedding, *stacks, output_kernel, output_bias, *self._last_variables(initializer)]
        self._parameters = dict(zip(shapes, variables, strict=True))

    def initial_state(self, batch_size: int, context: int | None = None) -> State:
        cache = empty_cache(self.config, batch_size, context)
        return (*self._encoder.initial_state(batch_size), cache, *self._decoder.initial_state(batch_size))

    def reset_rows(self, state: State, is_reset: Tensor) -> State:
        encoder_state, cache, decoder_state = self._split_state(state)
        return (
            *self._encoder.reset_rows(encoder_state, is_reset),
            reset_cache_rows(cache, is_reset),
            *self._decoder.reset_rows(decoder_state, is_reset),
        )

    def hidden(
        self, token_ids: Tensor, state: State, dropout: Dropout = NO_DROPOUT, frames: FrameTensors = ()
    ) -> tuple[Tensor, State]:
        weights, layers = self._parameters, self.config.num_layers
        encoder_state, cache, decoder_state = self._split_state(state)
        if frames:
            inputs = tf.transpose(self._embed(token_ids, frames), [1, 0, 2])  # (B, T, D) -> (T, B, D)
            encoded, encoder_state = self._encoder.run(inputs, encoder_state, dropout)  # (T, B, H)
        else:
            encoded, encoder_state = self._encoder.run_tokens(
                weights["embedding.weight"], tf.transpose(token_ids), encoder_state, dropout
            )
        projected = matmul(encoded, weights["attention.input_kernel"], self.compute_dtype)  # (T, B, 3H)
        attended, cache = attention(tf.transpose(projected, [1, 0, 2]), cache, self.compute_dtype)  # (B, T, H)
        attended = dropout.apply_variational(tf.transpose(attended, [1, 0, 2]), layers)  # (T, B, H)
        decoder_inputs = tf.concat([tf.cast(encoded, self.compute_dtype), attended], axis=-1)  # (T, B, 2H)
        decoded, decoder_state = self._decoder.run(decoder_inputs, decoder_state, dropout, layers + 1)  # (T, B, H)
        return decoded, (*encoder_state, cache, *decoder_state)

    def output(self, hidden: Tensor) -> Tensor:
        weights = self._parameters
        return dense(hidden, weights["output.kernel"], weights["output.bias"], self.compute_dtype)

    def _split_state(self, state: State) -> tuple[State, LayerState, State]:
        """The encoder's state, the cache, the decoder's state."""
        layers = self.config.num_layers
        return state[:layers], state[layers], state[layers + 1 :]
