"""Autoregressive sampling of token ids: read the prompt, then repeatedly process the logits, sample, read the token.

Independent of tokenizers and text.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.errors import DataError, UsageError
from quickfox.generation.healing import PromptRests
from quickfox.generation.logits_processors import (
    build_processors,
    build_truncations,
    sort_descending,
    unnormalized_probs,
)
from quickfox.generation.token_history import TokenHistory
from quickfox.models.language_model import LanguageModel, State, select_rows
from quickfox.models.mixture import begin_sampling

PREFILL_TOKENS = 256
"""Prompt tokens per call of the model: a bound on the memory, whatever the length of the prompt."""
NO_TOKEN = -1
"""The sampled token id where every token is banned."""
NON_FINITE_LOGITS = "the model's output is not a number: its weights are damaged or too large"

_RANDOM_BATCH = 64  # random numbers generated at a time


def generate(
    model: LanguageModel, prompt_ids: Sequence[int] | np.ndarray, config: SamplingConfig, sample: int = 0
) -> Iterator[int]:
    """Sample one continuation of a prompt; arguments and errors are those of `Sampler`.

    Yields:
        `config.length` token ids, each as soon as it is sampled; fewer if every token is banned.
    """
    sampler = Sampler(model, prompt_ids, config, [sample])
    for _ in range(config.length):
        (token_id,) = sampler.step()
        if token_id == NO_TOKEN:
            return
        yield token_id


class TokenSelector:
    """Selects the next token of several texts from the logits of a model: processes them, then samples.

    Args:
        prompt_ids: (n,) token ids that all texts begin with.
        config: the sampling configuration; its length, stop strings and time limit are not applied here.
        samples: number of each text, >= 0; its tokens depend only on `config.random_seed` and this number.
        vocabulary_size: V.
        logit_bias: (V,) float64 added to the logits; None: no bias.
        is_banned: (number of a text, token id) -> whether that token must not be its next one; called for each
            sampled token, and another is sampled if so. None: no token is banned.
        rest, token_bytes: what the first tokens of each text must spell, see `healing.PromptRests`.
    """

    def __init__(
        self,
        prompt_ids: np.ndarray,
        config: SamplingConfig,
        samples: Sequence[int],
        vocabulary_size: int,
        *,
        logit_bias: np.ndarray | None = None,
        is_banned: Callable[[int, int], bool] | None = None,
        rest: bytes = b"",
        token_bytes: Sequence[bytes] = (),
    ) -> None:
        self.samples = list(samples)
        """The number of the text in each row."""
        self._config = config
        self._logit_bias = logit_bias
        self._history = TokenHistory(prompt_ids, len(self.samples), vocabulary_size, config)
        self._processors = build_processors(config, self._history, logit_bias)
        self._truncations = build_truncations(config, vocabulary_size)
        self._is_greedy = config.temperature == 0
        self._uniforms = [iter_uniforms(config.random_seed, sample) for sample in self.samples]
        self._is_banned = is_banned
        self._rests = PromptRests(rest, len(self.samples), token_bytes)

    def select(self, logits: np.ndarray) -> list[int]:
        """The next token of each text: logits (B, V) float32 -> B token ids, NO_TOKEN where every token is banned.

        Raises:
            DataError: the logits are NaN or infinite.
        """
        logits = logits.astype(np.float64)
        for process in self._processors:
            logits = process(logits)
        logits = self._rests.mask(logits)
        token_ids = self._sample(logits, self._uniforms)
        if self._is_banned is not None:
            for row, sample in enumerate(self.samples):
                while token_ids[row] != NO_TOKEN and self._is_banned(sample, token_ids[row]):
                    logits[row, token_ids[row]] = -np.inf
                    token_ids[row] = self._sample(logits[[row]], self._uniforms[row : row + 1])[0]
        return token_ids

    def append(self, token_ids: list[int]) -> None:
        """Append one token to each text."""
        self._history.append(token_ids)
        self._rests.append(token_ids)

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep only the texts `rows`, distinct and ascending."""
        self.samples = [self.samples[row] for row in rows]
        self._uniforms = [self._uniforms[row] for row in rows]
        self._rests.select_rows(rows)
        self._history.select_rows(rows)

    def split(self, row: int) -> "TokenSelector":
        """A selector of the text in `row` alone, which must then be removed from this one before the next step."""
        part = copy.copy(self)
        part._history, part._rests = copy.copy(self._history), copy.copy(self._rests)
        part.select_rows([row])
        part._processors = build_processors(self._config, part._history, self._logit_bias)
        return part

    def extend(self, other: "TokenSelector") -> None:
        """Add the texts of another selector, whose configuration differs in the random seed only, as the last rows."""
        self.samples += other.samples
        self._uniforms += other._uniforms
        self._rests.extend(other._rests)
        self._history.extend(other._history)

    def _sample(self, logits: np.ndarray, uniforms: Sequence[Iterator[float]]) -> list[int]:
        """A token id for each row of processed logits, (B, V)."""
        if self._is_greedy:
            return argmax(logits)
        uniform = [next(stream) for stream in uniforms]
        if not self._truncations:
            return sample_categorical(unnormalized_probs(logits), uniform)
        probs, token_ids = sort_descending(logits)
        for truncate in self._truncations:
            probs = truncate(probs)
        ranks = sample_categorical(probs, uniform)
        return [rank if rank == NO_TOKEN else int(row[rank]) for row, rank in zip(token_ids, ranks, strict=True)]


class Sampler:
    """Samples several continuations of one prompt as a batch, one token of each per step.

    Args:
        model: the language model.
        prompt_ids: (n,) token ids to continue, n >= 1.
        config, samples, logit_bias, is_banned, rest, token_bytes: see `TokenSelector`.

    Raises:
        UsageError: the prompt is empty.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt_ids: Sequence[int] | np.ndarray,
        config: SamplingConfig,
        samples: Sequence[int],
        *,
        logit_bias: np.ndarray | None = None,
        is_banned: Callable[[int, int], bool] | None = None,
        rest: bytes = b"",
        token_bytes: Sequence[bytes] = (),
    ) -> None:
        prompt = np.asarray(prompt_ids, np.int64)
        logits, state = prefill(model, prompt)  # (V,)
        rows = np.zeros(len(samples), np.int64)
        self.logits = logits[np.newaxis][rows]  # (V,) -> (B, V)
        """(B, V) float32 logits of the model at the position of the last sampled tokens, unprocessed."""
        self._model = model
        self._state = select_rows(state, rows)
        self._selector = TokenSelector(
            prompt,
            config,
            samples,
            len(logits),
            logit_bias=logit_bias,
            is_banned=is_banned,
            rest=rest,
            token_bytes=token_bytes,
        )
        self._last_tokens: list[int] = []  # sampled, but not yet read by the model

    @property
    def samples(self) -> list[int]:
        """The number of the continuation in each row."""
        return self._selector.samples

    def step(self) -> list[int]:
        """Sample the next token of each continuation: B token ids, NO_TOKEN where every token is banned.

        A row with NO_TOKEN must be removed by `select_rows` before the next step.

        Raises:
            DataError: the model's logits are NaN or infinite.
        """
        if self._last_tokens:
            logits, self._state = self._model.forward(np.array(self._last_tokens)[:, np.newaxis], self._state)
            self.logits = logits[:, -1]  # (B, 1, V) -> (B, V)
            self._selector.append(self._last_tokens)
        self._last_tokens = self._selector.select(self.logits)
        return self._last_tokens

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep only the continuations `rows`, distinct and ascending."""
        self._selector.select_rows(rows)
        self._state = select_rows(self._state, np.array(rows, np.int64))
        self.logits = self.logits[rows]
        self._last_tokens = [self._last_tokens[row] for row in rows] if self._last_tokens else []


def prefill(model: LanguageModel, prompt_ids: np.ndarray) -> tuple[np.ndarray, State]:
    """Logits (V,) after a prompt, (n,) token ids, and the state of that one text, which sampled tokens continue.

    Raises:
        UsageError: the prompt is empty.
    """
    for logits, state in iter_prefill(model, prompt_ids):  # noqa: B007 - the last are the result
        pass
    return logits[-1], state


def iter_prefill(model: LanguageModel, prompt_ids: np.ndarray) -> Iterator[tuple[np.ndarray, State]]:
    """Read a prompt, (n,) token ids, in parts of at most PREFILL_TOKENS.

    Yields:
        After each part the logits after each of its tokens, (T, V) float32, and the state of the text; the last state
        is for sampled tokens: see `mixture.begin_sampling`.

    Raises:
        UsageError: the prompt is empty.
    """
    if len(prompt_ids) == 0:
        raise UsageError("the prompt is empty: the model knows none of its characters, and no newline to start from")
    state = model.initial_state(1)
    for start in range(0, len(prompt_ids), PREFILL_TOKENS):
        logits, state = model.forward(prompt_ids[np.newaxis, start : start + PREFILL_TOKENS], state)  # (1, T, V)
        if start + PREFILL_TOKENS >= len(prompt_ids):
            state = begin_sampling(model, state)
        yield logits[0], state


def sample_categorical(probs: np.ndarray, uniforms: Sequence[float]) -> list[int]:
    """Sample an index for each row by inverse transform sampling.

    Args:
        probs: (B, V) float64 unnormalized probabilities, >= 0; an index of probability 0 is never sampled.
        uniforms: B random numbers in [0, 1).

    Returns:
        An index 0 ... V - 1 for each row, NO_TOKEN for a row of zeros.

    Raises:
        DataError: a probability is NaN or infinite.
    """
    indices = []
    for cumulative, uniform in zip(probs.cumsum(axis=-1), uniforms, strict=True):
        total = float(cumulative[-1])
        if not math.isfinite(total):
            raise DataError(NON_FINITE_LOGITS)
        # A factor below 1 is at most 1 - 2**-53, so the product is below the total even after rounding.
        indices.append(int(cumulative.searchsorted(uniform * total, "right")) if total > 0 else NO_TOKEN)
    return indices


def argmax(logits: np.ndarray) -> list[int]:
    """The index of the largest logit of each row of (B, V), the first of equal ones; NO_TOKEN for a row of -inf.

    Raises:
        DataError: a logit is NaN, or the largest is infinite.
    """
    indices = []
    for row in logits:
        index = int(row.argmax())  # of a NaN, if there is one
        largest = float(row[index])
        if math.isnan(largest) or largest == math.inf:
            raise DataError(NON_FINITE_LOGITS)
        indices.append(NO_TOKEN if largest == -math.inf else index)
    return indices


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log softmax(logits), in nats: (..., V) -> (..., V) float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def iter_uniforms(random_seed: int, sample: int) -> Iterator[float]:
    """Random numbers in [0, 1), a function of seed and sample that no version of NumPy changes."""
    bits = np.random.Philox(np.random.SeedSequence(random_seed, spawn_key=(sample,)))
    while True:
        # NumPy guarantees the raw bits of its generators only; 53 of them make a float in [0, 1).
        yield from ((bits.random_raw(_RANDOM_BATCH) >> np.uint64(11)) * 2.0**-53).tolist()
