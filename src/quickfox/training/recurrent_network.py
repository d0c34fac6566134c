"""The trainable rnn, gru and lstm: embedding, a stack of recurrent layers, a dense output layer.

Equations and papers stand with the kernels, in `recurrent_kernels`.
"""

from typing import Any

import keras
import tensorflow as tf

from quickfox.config import ModelConfig, Precision
from quickfox.models.parameters import parameter_shapes
from quickfox.training.dropout import Dropout
from quickfox.training.initialization import compute_dtype_of, seeded_initializers
from quickfox.training.products import dense
from quickfox.training.recurrent_stack import RecurrentStack, State

Tensor = Any


class RecurrentNetwork:
    """Embedding -> recurrent layers -> dense: see `networks.Network`.

    Initial weights: embeddings normal with unit variance, the output kernel Glorot-uniform; the layers': see
    `RecurrentStack`.
    """

    def __init__(self, config: ModelConfig, random_seed: int, precision: Precision) -> None:
        self.config = config
        self.compute_dtype = compute_dtype_of(precision)
        initializer = seeded_initializers(random_seed)
        self.embedding = keras.layers.Embedding(
            config.vocabulary_size,
            config.embedding_dim,
            embeddings_initializer=initializer(keras.initializers.RandomNormal, stddev=1.0),
        )
        self.embedding.build((None, None))
        self.stack = RecurrentStack(config, config.embedding_dim, initializer, self.compute_dtype)
        self.output = keras.layers.Dense(
            config.vocabulary_size, kernel_initializer=initializer(keras.initializers.GlorotUniform)
        )
        self.output.build((None, None, config.hidden_dim))

    def parameters(self) -> dict[str, Any]:
        """Name in the contract -> tf.Variable, in the contract's order."""
        output = [self.output.kernel.value, self.output.bias.value]
        variables = [self.embedding.embeddings.value, *self.stack.variables(), *output]
        return dict(zip(parameter_shapes(self.config), variables, strict=True))

    def initial_state(self, batch_size: int) -> State:
        """Zeros."""
        return self.stack.initial_state(batch_size)

    def with_restarts(self, state: State, rows: Tensor) -> State:
        """The state with those rows (B,) bool as in the beginning."""
        return self.stack.with_restarts(state, rows)

    def forward(
        self, token_ids: Tensor, state: State, dropout: float = 0.0, seed: Tensor = None
    ) -> tuple[Tensor, State]:
        """Logits for each position of a window, and the state after it: see `networks.Network.forward`."""
        embeddings = self.embedding.embeddings.value
        masks = Dropout(dropout, seed)
        outputs, new_state = self.stack.run_tokens(embeddings, tf.transpose(token_ids), state, masks)
        return dense(outputs, self.output.kernel.value, self.output.bias.value, self.compute_dtype), new_state
