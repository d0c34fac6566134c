"""Inference of the attention-rnn in NumPy: a recurrent encoder, self-attention over its outputs, a recurrent decoder.

    e_t = encoder(embedding of token t)                  a stack of lstm layers
    a_t = attention of e_t over the last `context` of e_1 ... e_t
    d_t = decoder([e_t ; a_t])                           another stack
    logits_t = d_t W + b

A recurrent state compresses the whole text into one vector; attention retrieves earlier positions by their content.
In Bahdanau, Cho & Bengio 2014, "Neural machine translation by jointly learning to align and translate", the decoder
attends to the encoder's states; here, as in Merity 2019, "Single headed attention RNN", the text attends to its past.
"""

from collections.abc import Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.attention import attend, attention_mask, empty_cache, split_heads
from quickfox.models.inputs import Frames, input_table
from quickfox.models.language_model import LayerTrace, State
from quickfox.models.network import Network
from quickfox.models.recurrent import RecurrentStack, token_projection


class AttentionRNNLanguageModel(Network):
    """The attention-rnn; for its arguments see `registry.build_language_model`.

    Its state is the encoder's layers, the attention's cache, the decoder's layers.
    """

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray], frames: Frames | None = None) -> None:
        super().__init__(config, parameters)
        assert config.context is not None
        self.context = config.context
        self._cache_shape = (config.num_heads, config.context, config.hidden_dim // config.num_heads)
        self._encoder = RecurrentStack("encoder", config, parameters)
        self._decoder = RecurrentStack("decoder", config, parameters)
        inputs = input_table(config, parameters, frames)
        self._project_tokens = token_projection(inputs, self._encoder.layers[0])
        self._attention_kernel = parameters["attention.input_kernel"]  # (H, 3H)

    def initial_state(self, batch_size: int) -> State:
        cache = empty_cache(batch_size, *self._cache_shape)
        return (*self._encoder.initial_state(batch_size), cache, *self._decoder.initial_state(batch_size))

    def _hidden(
        self, token_ids: np.ndarray, state: State, traces: list[LayerTrace] | None = None
    ) -> tuple[np.ndarray, State]:
        layers = len(self._encoder.layers)
        cache = state[layers]
        encoded, encoder_state = self._encoder.run(self._project_tokens(token_ids.T), state[:layers], traces)
        heads, context, _ = self._cache_shape
        projected = encoded.transpose(1, 0, 2) @ self._attention_kernel  # (T, B, H) -> (B, T, 3H)
        queries, keys, values = split_heads(projected, heads)
        mask = attention_mask(cache[2], token_ids.shape[1], context)
        attended, cache, weights = attend(queries, keys, values, cache, mask)  # (B, T, H)
        if traces is not None:
            traces.append(LayerTrace("attention", attended, attention=weights))
        decoder_inputs = np.concatenate([encoded, attended.transpose(1, 0, 2)], axis=-1)  # (T, B, 2H)
        projected = self._decoder.layers[0].project(decoder_inputs)  # (T, B, 2H) -> (T, B, 4H)
        decoded, decoder_state = self._decoder.run(projected, state[layers + 1 :], traces)  # (T, B, H)
        return decoded.transpose(1, 0, 2), (*encoder_state, cache, *decoder_state)
