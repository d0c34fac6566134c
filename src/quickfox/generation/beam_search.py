"""Beam search: the most probable continuation of a prompt, searched for instead of drawn.

Of all continuations by one token of the texts on the beam, the most probable stay on it. A text that has ended leaves
the beam; the search is over when as many have ended as the beam is wide and none on it could still be better. Texts are
compared by their mean log-probability per token (Wu et al. 2016, "Google's neural machine translation system", 7, with
a length penalty of 1). Token ids only.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quickfox.config.sampling import SamplingConfig
from quickfox.generation.logits_processors import build_processors
from quickfox.generation.sampler import build_history, log_softmax, not_finite_error, prefill
from quickfox.models.registry import LanguageModel
from quickfox.models.state import select_rows


@dataclass(frozen=True)
class Hypothesis:
    """A continuation and its log-probability, in nats, after the processors; the likelier per token, the better."""

    token_ids: tuple[int, ...]
    logprob: float

    @property
    def score(self) -> float:
        """Mean log-probability per token; 0 of an empty continuation."""
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
        config: `length` tokens at most, `num_beams`, and the penalties and the n-gram ban, which apply to the
            log-probabilities; temperature and truncations do not.
        has_ended: whether a continuation is complete with its last token.
        is_out_of_time: asked after each token; if so, the search ends with what it has.
        logit_bias: (V,) float64 added to the log-probabilities; None: nothing is.

    Returns:
        At most `num_beams` continuations, at least one; one after which no token is allowed is as complete as it is.

    Raises:
        UsageError: the prompt is empty.
        DataError: the model's logits are no numbers.
    """
    prompt = np.asarray(prompt_ids, np.int64)
    first_logits, state = prefill(model, prompt)
    width = config.num_beams
    history = build_history(prompt, 1, len(first_logits), config)
    processors = build_processors(dataclasses.replace(config, temperature=1.0), history, logit_bias)
    logits = first_logits[np.newaxis]  # (B, V), B <= width: what may follow each text on the beam
    beam = [Hypothesis((), 0.0)]
    ended: list[Hypothesis] = []
    for length in range(1, config.length + 1):
        logprobs = log_softmax(logits)
        if np.isnan(logprobs).any():
            raise not_finite_error()
        for process in processors:
            logprobs = process(logprobs)
        ended += [text for text, row in zip(beam, logprobs, strict=True) if row.max() == -np.inf]
        scores = np.array([[text.logprob] for text in beam]) + logprobs
        # Twice as many as needed: half of them may be ends, no more than one a text and mark.
        flat = scores.reshape(-1)
        places = (-flat).argsort(kind="stable")[: 2 * width].tolist()
        candidates = [(*divmod(place, scores.shape[1]), float(flat[place])) for place in places]
        rows: list[int] = []
        extend_run: list[Hypothesis] = []
        for row, token_id, score in candidates:
            if score == -np.inf:
                break
            text = Hypothesis((*beam[row].token_ids, token_id), score)
            if has_ended(text.token_ids):
                ended.append(text)
            else:
                rows.append(row)
                extend_run.append(text)
            if len(extend_run) == width:
                break
        ended = sorted(ended, key=lambda text: -text.score)[:width]
        beam = extend_run
        if not beam or is_out_of_time() or length == config.length or _is_decided(beam, ended, width):
            break
        history.take(rows)
        tokens = [text.token_ids[-1] for text in beam]
        history.append(tokens)
        step_logits, state = model.forward(np.array(tokens)[:, np.newaxis], select_rows(state, np.array(rows)))
        logits = step_logits[:, -1]
    return sorted([*ended, *beam], key=lambda text: -text.score)[:width]


def _is_decided(beam: list[Hypothesis], ended: list[Hypothesis], width: int) -> bool:
    """Whether enough texts have ended and none on the beam is better than the worst of them, as it stands."""
    return len(ended) == width and max(text.score for text in beam) <= ended[-1].score
