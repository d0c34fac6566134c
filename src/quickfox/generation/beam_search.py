"""Beam search: find the most probable continuation of a prompt instead of sampling one. Token ids only.

Each step extends every hypothesis on the beam by each token, and keeps the `num_beams` most probable ones. A finished
hypothesis leaves the beam. The search ends when `num_beams` have finished and none on the beam is better. Hypotheses
are compared by their log-probability per token: beam search with length normalization (Wu et al. 2016, "Google's neural
machine translation system", 7, with a length penalty of 1 and without coverage penalty).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.errors import DataError
from quickfox.generation.logits_processors import Processor, build_processors
from quickfox.generation.sampler import NON_FINITE_LOGITS, log_softmax, prefill
from quickfox.generation.token_history import TokenHistory
from quickfox.models.language_model import LanguageModel, select_rows


@dataclass(frozen=True)
class Hypothesis:
    """A continuation, and its log-probability in nats after the processors."""

    token_ids: tuple[int, ...]
    logprob: float

    @property
    def score(self) -> float:
        """Log-probability per token, higher is better; 0 for an empty continuation."""
        return self.logprob / max(1, len(self.token_ids))


def beam_search(
    model: LanguageModel,
    prompt_ids: Sequence[int] | np.ndarray,
    config: SamplingConfig,
    *,
    has_ended: Callable[[Sequence[int]], bool],
    is_out_of_time: Callable[[], bool],
    logit_bias: np.ndarray | None = None,
) -> list[Hypothesis]:
    """The most probable continuations of a prompt, the best first.

    Args:
        model: the language model.
        prompt_ids: (n,) token ids to continue, n >= 1.
        config: `length`, `num_beams`, and the penalties and the n-gram ban, which apply to the log-probabilities;
            temperature and truncations have no effect.
        has_ended: token ids of a continuation -> whether its last token ends it.
        is_out_of_time: called after each step; if True, the search ends with the hypotheses it has.
        logit_bias: (V,) float64 added to the log-probabilities; None: no bias.

    Returns:
        1 to `num_beams` continuations; one after which every token is banned counts as finished.

    Raises:
        UsageError: the prompt is empty.
        DataError: the model's logits are NaN or infinite.
    """
    num_beams = config.num_beams
    prompt = np.asarray(prompt_ids, np.int64)
    first_logits, state = prefill(model, prompt)
    history = TokenHistory(prompt, 1, len(first_logits), config)
    processors = build_processors(dataclasses.replace(config, temperature=1.0), history, logit_bias)
    logits = first_logits[np.newaxis]  # (V,) -> (B, V), B <= num_beams
    beam = [Hypothesis((), 0.0)]
    finished: list[Hypothesis] = []
    for length in range(1, config.length + 1):
        logprobs = _process(logits, processors)
        finished += [each for each, row in zip(beam, logprobs, strict=True) if row.max() == -np.inf]  # all banned
        rows: list[int] = []
        extended: list[Hypothesis] = []
        for row, hypothesis in _iter_extensions(beam, logprobs, 2 * num_beams):  # twice as many, as some of them end
            if has_ended(hypothesis.token_ids):
                finished.append(hypothesis)
            else:
                rows.append(row)
                extended.append(hypothesis)
            if len(extended) == num_beams:
                break
        beam, finished = extended, _best(finished, num_beams)
        if not beam or is_out_of_time() or length == config.length or _is_decided(beam, finished, num_beams):
            break
        tokens = [hypothesis.token_ids[-1] for hypothesis in beam]
        history.select_rows(rows)
        history.append(tokens)
        step_logits, state = model.forward(np.array(tokens)[:, np.newaxis], select_rows(state, np.array(rows)))
        logits = step_logits[:, -1]  # (B, 1, V) -> (B, V)
    return _best([*finished, *beam], num_beams)


def _process(logits: np.ndarray, processors: Iterable[Processor]) -> np.ndarray:
    """(B, V) logits -> (B, V) processed log-probabilities; raises DataError if one is NaN."""
    logprobs = log_softmax(logits)
    if np.isnan(logprobs).any():
        raise DataError(NON_FINITE_LOGITS)
    for process in processors:
        logprobs = process(logprobs)
    return logprobs


def _iter_extensions(beam: list[Hypothesis], logprobs: np.ndarray, count: int) -> Iterator[tuple[int, Hypothesis]]:
    """The `count` most probable extensions of the beam by one token, each with the row it extends, the best first."""
    totals = (np.array([[hypothesis.logprob] for hypothesis in beam]) + logprobs).reshape(-1)  # (B, V) -> (B * V,)
    for index in (-totals).argsort(kind="stable")[:count].tolist():
        if totals[index] == -np.inf:
            return
        row, token_id = divmod(index, logprobs.shape[1])
        yield row, Hypothesis((*beam[row].token_ids, token_id), float(totals[index]))


def _best(hypotheses: list[Hypothesis], count: int) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)[:count]


def _is_decided(beam: list[Hypothesis], finished: list[Hypothesis], num_beams: int) -> bool:
    """Whether enough hypotheses have finished, and none on the beam is better than the worst of them."""
    return len(finished) == num_beams and max(hypothesis.score for hypothesis in beam) <= finished[-1].score
