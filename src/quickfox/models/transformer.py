"""The transformer in NumPy: decoder-only, in exactly the parameterisation of Llama. Only runs it.

    x = embedding of the token
    x = x + attention(norm(x)) Wo            for each layer; queries and keys turned by their positions
    x = x + swiglu(norm(x) Wi) Wd
    logits = norm(x) W                       W the embedding transposed, where that is tied

No recurrence: what a token needs of those before it, it fetches by attention, layer upon layer. (Vaswani et al. 2017,
"Attention is all you need"; Touvron et al. 2023, "LLaMA", for norms before, rotary positions, SwiGLU and no biases.)
"""

from collections.abc import Mapping

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.models.attention import (
    attend,
    empty_cache,
    rms_norm,
    rotary_angles,
    rotate,
    split_heads,
    swiglu,
    visible,
)
from quickfox.models.state import LayerState, State


class TransformerLanguageModel:
    """A language model that is ready to run; see `language_model.LanguageModel` for the protocol.

    Its state is a cache a layer, of keys that are turned already.

    Args:
        config: of a model with the architecture "transformer".
        parameters: name -> float32 array, as `parameters.parameter_shapes(config)` lists them; not changed.
    """

    context: int | None

    def __init__(self, config: ModelConfig, parameters: Mapping[str, np.ndarray]) -> None:
        assert config.context is not None
        self.context = config.context
        self._cache_shape = (config.num_heads, config.context, config.hidden_dim // config.num_heads)
        self._parameters = parameters
        self._num_layers = config.num_layers
        tied = config.tied_embeddings
        self._output_kernel = parameters["embedding.weight"].T if tied else parameters["output.kernel"]  # (H, V)

    def initial_state(self, batch_size: int) -> State:
        """The state before any token: empty caches."""
        return tuple(empty_cache(batch_size, *self._cache_shape) for _ in range(self._num_layers))

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Logits after each token, and the state after the last: see `language_model.LanguageModel.forward`."""
        _, context, head_dim = self._cache_shape
        window, positions_read = token_ids.shape[1], state[0][2]
        shown = visible(positions_read, window, context)
        positions = positions_read[:, None] + np.arange(window)  # (B, T)
        cosine, sine = (angles[:, None] for angles in rotary_angles(positions, head_dim))  # (B, 1, T, d/2)
        x = self._parameters["embedding.weight"][token_ids]  # (B, T, H)
        new_state = []
        for layer, cache in enumerate(state):
            found, cache = self._attention(layer, x, cache, shown, cosine, sine)
            x = x + found
            x = x + self._feed_forward(layer, x)
            new_state.append(cache)
        logits: np.ndarray = rms_norm(x, self._parameters["norm.weight"]) @ self._output_kernel  # (B, T, V)
        return logits, tuple(new_state)

    def _attention(
        self, layer: int, x: np.ndarray, cache: LayerState, shown: np.ndarray, cosine: np.ndarray, sine: np.ndarray
    ) -> tuple[np.ndarray, LayerState]:
        """(B, T, H) -> (B, T, H), and the cache after the window."""
        parameters, name = self._parameters, f"layers.{layer}.attention"
        projected = rms_norm(x, parameters[f"{name}_norm.weight"]) @ parameters[f"{name}.input_kernel"]  # (B, T, 3H)
        queries, keys, values = split_heads(projected, self._cache_shape[0])
        queries, keys = rotate(queries, cosine, sine), rotate(keys, cosine, sine)
        found, cache = attend(queries, keys, values, cache, shown)
        return found @ parameters[f"{name}.output_kernel"], cache

    def _feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        """(B, T, H) -> (B, T, H)."""
        parameters, name = self._parameters, f"layers.{layer}.feed_forward"
        gate_and_up = rms_norm(x, parameters[f"{name}_norm.weight"]) @ parameters[f"{name}.input_kernel"]
        fed: np.ndarray = swiglu(gate_and_up) @ parameters[f"{name}.output_kernel"]
        return fed
