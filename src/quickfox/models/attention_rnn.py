"""The attention-rnn in NumPy: an lstm that can look up what it has read. Only runs it.

    e_t = encoder(embedding of token t)                  a stack of lstm layers
    a_t = attention of e_t over the last `context` of e_1 .. e_t
    d_t = decoder([e_t ; a_t])                           another stack
    logits_t = d_t W + b

A recurrent state must hold all that will be needed; attention finds it again by its content. Bahdanau, Cho & Bengio
2014, "Neural machine translation by jointly learning to align and translate", let the decoder attend to the encoder's
states; here, as in Merity 2019, "Single headed attention RNN", the text attends to its own past.
"""

from collections.abc import Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.attention import attend, empty_cache, split_heads, visible
from quickfox.models.recurrent import RecurrentStack, TokenProjection
from quickfox.models.state import State


class AttentionRNNLanguageModel:
    """A language model that is ready to run; see `language_model.LanguageModel` for the protocol.

    Its state is the encoder's layers, the cache of the attention, the decoder's layers.

    Args:
        config: of a model with the architecture "attention-rnn".
        parameters: name -> float32 array, as `parameters.parameter_shapes(config)` lists them; not changed.
    """

    context: int | None

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> None:
        assert config.context is not None
        self.context = config.context
        self._cache_shape = (config.num_heads, config.context, config.hidden_dim // config.num_heads)
        self._encoder = RecurrentStack("encoder", config, parameters)
        self._decoder = RecurrentStack("decoder", config, parameters)
        self._project_tokens = TokenProjection(parameters["embedding.weight"], self._encoder.layers[0])
        self._attention_kernel = parameters["attention.input_kernel"]  # (H, 3H)
        self._output_kernel = parameters["output.kernel"]  # (H, V)
        self._output_bias = parameters["output.bias"]  # (V,)

    def initial_state(self, batch_size: int) -> State:
        """The state before any token: zeros, and an empty cache."""
        cache = empty_cache(batch_size, *self._cache_shape)
        return (*self._encoder.initial_state(batch_size), cache, *self._decoder.initial_state(batch_size))

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Logits after each token, and the state after the last: see `language_model.LanguageModel.forward`."""
        layers = len(self._encoder.layers)
        encoded, encoder_state = self._encoder.run(self._project_tokens(token_ids.T), state[:layers])  # (T, B, H)
        heads, context, _ = self._cache_shape
        queries, keys, values = split_heads(encoded.transpose(1, 0, 2) @ self._attention_kernel, heads)
        shown = visible(state[layers][2], token_ids.shape[1], context)
        found, cache = attend(queries, keys, values, state[layers], shown)  # (B, T, H)
        connect_workers = np.concatenate([encoded, found.transpose(1, 0, 2)], axis=-1)  # (T, B, 2H)
        projected = self._decoder.layers[0].project(connect_workers)
        decoded, decoder_state = self._decoder.run(projected, state[layers + 1 :])
        logits = decoded @ self._output_kernel + self._output_bias  # (T, B, H) -> (T, B, V)
        return logits.transpose(1, 0, 2), (*encoder_state, cache, *decoder_state)
