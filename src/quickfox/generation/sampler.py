"""From a prompt to its continuations: read the prompt, then process the logits, draw a token, read it, and so on.

It knows token ids only: what they stand for is the tokenizer's business, what a model is made of the model's.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.errors import DataError, UsageError
from quickfox.generation.logits_processors import (
    build_processors,
    build_truncations,
    sort_descending,
    unnormalized_probs,
)
from quickfox.generation.token_history import History
from quickfox.models.registry import LanguageModel
from quickfox.models.state import State, select_rows

PREFILL_TOKENS = 256
"""Prompt tokens read at a time: enough to be fast, few enough for the memory to stay small whatever the prompt."""
NO_TOKEN = -1
"""Drawn in place of a token where none is allowed."""

_UNIFORMS = 64  # drawn at a time


def generate(
    model: LanguageModel, prompt_ids: Sequence[int] | np.ndarray, config: SamplingConfig, sample: int = 0
) -> Iterator[int]:
    """Draw one continuation of a prompt.

    Args:
        model: the language model.
        prompt_ids: (n,) token ids to continue, n >= 1.
        config: how to draw.
        sample: which of the samples this is, >= 0; its draws depend on `config.random_seed` and this number alone.

    Yields:
        `config.length` token ids, each as soon as it is drawn; fewer if a time comes when none is allowed.

    Raises:
        UsageError: the prompt is empty.
        DataError: the model's logits are no numbers.
    """
    sampler = Sampler(model, prompt_ids, config, [sample])
    for _ in range(config.length):
        (token_id,) = sampler.step()
        if token_id == NO_TOKEN:
            return
        yield token_id


class Sampler:
    """Draws several continuations of one prompt side by side, a token of each at a time.

    Args:
        model: the language model.
        prompt_ids: (n,) token ids to continue, n >= 1.
        config: how to draw; of texts, lengths and times it takes no notice, they are the caller's business.
        samples: the number of each continuation, >= 0; its draws depend on `config.random_seed` and that number alone.
        logit_bias: (V,) float64 added to the logits; None: nothing is.
        veto: is asked about each token drawn, by the number of the continuation and the token's id; if it says
            yes, that token is not allowed and another is drawn. None: all are allowed.

    Raises:
        UsageError: the prompt is empty.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt_ids: Sequence[int] | np.ndarray,
        config: SamplingConfig,
        samples: Sequence[int] = (0,),
        *,
        logit_bias: np.ndarray | None = None,
        veto: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.samples = list(samples)
        """The numbers of the continuations, in the order of the rows."""
        prompt = np.asarray(prompt_ids, np.int64)
        logits, state = prefill(model, prompt)  # (V,)
        rows = np.zeros(len(self.samples), np.int64)
        self.logits = logits[np.newaxis][rows]
        """(B, V) float32: what the model says before the tokens drawn last, or, at first, before the first."""
        self._model = model
        self._state = select_rows(state, rows)
        self._history = build_history(prompt, len(rows), len(logits), config)
        self._processors = build_processors(config, self._history, logit_bias)
        self._truncations = build_truncations(config, len(logits))
        self._is_greedy = config.temperature == 0
        self._uniforms = [_uniforms(config.random_seed, sample) for sample in self.samples]
        self._veto = veto
        self._unread: list[int] = []

    def step(self) -> list[int]:
        """Draws the next token of each continuation: B token ids, NOTHING where none is allowed.

        A continuation of which NOTHING was drawn must be dropped before the next step.

        Raises:
            DataError: the model's logits are no numbers.
        """
        if self._unread:
            logits, self._state = self._model.forward(np.array(self._unread)[:, np.newaxis], self._state)
            self.logits = logits[:, -1]
            self._history.append(self._unread)
        logits = self.logits.astype(np.float64)
        for process in self._processors:
            logits = process(logits)
        token_ids = self._choose(logits, self._uniforms)
        if self._veto is not None:
            for row, sample in enumerate(self.samples):
                while token_ids[row] != NO_TOKEN and self._veto(sample, token_ids[row]):
                    logits[row, token_ids[row]] = -np.inf
                    token_ids[row] = self._choose(logits[[row]], self._uniforms[row : row + 1])[0]
        self._unread = token_ids
        return token_ids

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with the continuations in `rows` alone, different ones in ascending order."""
        self.samples = [self.samples[row] for row in rows]
        self._uniforms = [self._uniforms[row] for row in rows]
        self._state = select_rows(self._state, np.array(rows, np.int64))
        self._history.take(rows)
        self.logits = self.logits[rows]
        self._unread = [self._unread[row] for row in rows] if self._unread else []

    def _choose(self, logits: np.ndarray, uniforms: Sequence[Iterator[float]]) -> list[int]:
        """A token for each row of processed logits, (B, V)."""
        if self._is_greedy:
            return argmax(logits)
        uniform = [next(stream) for stream in uniforms]
        if not self._truncations:
            return sample_categorical(unnormalized_probs(logits), uniform)
        weights, token_ids = sort_descending(logits)
        for truncate in self._truncations:
            weights = truncate(weights)
        places = sample_categorical(weights, uniform)
        return [place if place == NO_TOKEN else int(row[place]) for row, place in zip(token_ids, places, strict=True)]


def build_history(prompt_ids: np.ndarray, num_texts: int, vocabulary_size: int, config: SamplingConfig) -> History:
    """What the processors that `config` asks for must know of what was said."""
    is_counting = config.repetition_penalty != 1.0 or config.presence_penalty or config.frequency_penalty
    return History(
        prompt_ids,
        num_texts,
        vocabulary_size=vocabulary_size if is_counting else None,
        window=config.penalty_window,
        ngram=config.no_repeat_ngram,
    )


def prefill(model: LanguageModel, prompt_ids: np.ndarray) -> tuple[np.ndarray, State]:
    """The logits (V,) after a prompt, (n,) token ids, and the state of that one text.

    Raises:
        UsageError: the prompt is empty.
    """
    if len(prompt_ids) == 0:
        raise UsageError("nothing to continue: the model knows no character of the seed, nor a newline to start from")
    state = model.initial_state(1)
    for start in range(0, len(prompt_ids), PREFILL_TOKENS):
        logits, state = model.forward(prompt_ids[np.newaxis, start : start + PREFILL_TOKENS], state)  # (1, T, V)
    return logits[0, -1], state


def sample_categorical(weights: np.ndarray, uniforms: Sequence[float]) -> list[int]:
    """For each row the place that is so far on the way through its weights (inverse transform sampling).

    Args:
        weights: (B, V) float64, >= 0; 0 is never drawn.
        uniforms: B of them, in [0, 1).

    Returns:
        a place 0 ... V - 1 for each row, or NOTHING for one that has nothing but 0.

    Raises:
        DataError: a weight is NaN or infinite.
    """
    places = []
    for cumulative, uniform in zip(weights.cumsum(axis=-1), uniforms, strict=True):
        total = float(cumulative[-1])
        if not math.isfinite(total):
            raise not_finite_error()
        # A factor below 1 is at most 1 - 2**-53: the product stays below the total, also when it is rounded.
        places.append(int(cumulative.searchsorted(uniform * total, "right")) if total > 0 else NO_TOKEN)
    return places


def argmax(logits: np.ndarray) -> list[int]:
    """For each row of logits, (B, V), the place of the largest, the first of equals; NOTHING if all are -inf.

    Raises:
        DataError: a logit is NaN, or the largest infinite.
    """
    places = []
    for row in logits:
        place = int(row.argmax())  # that of a NaN, if there is one
        largest = float(row[place])
        if math.isnan(largest) or largest == math.inf:
            raise not_finite_error()
        places.append(NO_TOKEN if largest == -math.inf else place)
    return places


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log softmax(logits), in nats: (..., V) -> (..., V) float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def not_finite_error() -> DataError:
    """The error of a model whose logits are NaN or infinite."""
    return DataError("the model's output is not a number: its weights are damaged or too large")


def _uniforms(random_seed: int, sample: int) -> Iterator[float]:
    """Numbers in [0, 1), the same for ever for the same seed and sample."""
    bits = np.random.Philox(np.random.SeedSequence(random_seed, spawn_key=(sample,)))
    while True:
        # Of NumPy's generators only the raw bits are promised to stay the same; 53 of them make a float in [0, 1).
        yield from ((bits.random_raw(_UNIFORMS) >> np.uint64(11)) * 2.0**-53).tolist()
