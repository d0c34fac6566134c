"""The mixture of a network and an n-gram model, whose exponents adapt to each text.

    log p(token) = a log p_network(token) + b log p_ngram(token) - log Z

is a log-linear mixture (Genest & Zidek 1986, "Combining probability distributions", section 3.3). After each token
read, a step of gradient descent on its cross-entropy moves the exponents. With x(token) the pair of both logarithms,
E the mean under p, and n the number of tokens read before,

    (a, b) <- (a, b) - eta (E[x] - x(token)) METRIC,    eta = max(1 / (n + PRIOR_TOKENS), MIN_RATE),

so that the mixture depends on the text read so far (as in Mahoney 2005, "Adaptive weighing of context models for
lossless data compression"). Each text begins with the exponents that fit the validation text (`fit_exponents`). They
stay the same in a model of documents: the tokens of a prompt, which the network has not learned to predict, would
change them for the completion. METRIC has a larger rate for a - b than for a + b. Measured against the linear mixture
w p_network + (1 - w) p_ngram in benchmarks/LOG.md. A network with an n-gram gate reads the n-gram model too, to compute
p_network (see `ngram.gate`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from quickfox.config.model import DEFAULT_EXPONENTS, MAX_EXPONENT
from quickfox.models.language_model import LanguageModel, LayerState, NetworkLanguageModel, State, TokenExclusion
from quickfox.models.losses import CACHED_LOGITS, cross_entropy
from quickfox.models.ngram.model import NgramLanguageModel

PRIOR_TOKENS = 64
MIN_RATE = 0.004
RATE_OF_SUM, RATE_OF_DIFFERENCE = 0.25, 1.0
_OWN, _OTHER = (RATE_OF_SUM + RATE_OF_DIFFERENCE) / 2, (RATE_OF_SUM - RATE_OF_DIFFERENCE) / 2
METRIC = np.array([[_OWN, _OTHER], [_OTHER, _OWN]], np.float32)
_MAX_FIT_STEPS = 20
_FIT_TOLERANCE = 1e-3
FIXED = np.inf
"""In place of the number of tokens read before: the exponents of that text do not change."""


class MixtureLanguageModel:
    """A network and an n-gram model as one `LanguageModel`.

    Its state is that of the network, that of the n-gram model, and one more layer, see `initial_mixing`.
    """

    def __init__(
        self,
        network: NetworkLanguageModel,
        ngram: NgramLanguageModel,
        vocabulary_size: int,
        exponents: tuple[float, float] = DEFAULT_EXPONENTS,
        *,
        adapts: bool = True,
    ) -> None:
        self.context = network.context
        self._network = network
        self.ngram = ngram
        """The n-gram model."""
        self._vocabulary_size = vocabulary_size
        self._exponents = exponents
        self._adapts = adapts

    def initial_state(self, batch_size: int) -> State:
        mixing = initial_mixing(batch_size, self._vocabulary_size, self._exponents, adapts=self._adapts)
        return (*self._network.initial_state(batch_size), *self.ngram.initial_state(batch_size), mixing)

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        prior, ngram_state = self.ngram.prior(token_ids, state[-2:-1])
        logits, network_state = self._network.forward(token_ids, state[:-2], prior)
        mixed, mixing = mix(logits, prior.log_probs, token_ids, state[-1])
        return mixed, (*network_state, *ngram_state, mixing)


def begin_sampling(model: LanguageModel, state: State, rows: np.ndarray | slice = slice(None)) -> State:
    """The state of texts whose prompt was read, to which sampled tokens are appended.

    The exponents of a mixture no longer change: sampled tokens say nothing about which of both models is right. At
    temperature 1 they would move the exponents at random, and below 1, where tokens are more probable than the mixture
    says, upwards, so that a text would become more and more predictable (see benchmarks/LOG.md). The n-gram model of
    a mixture does without its highest order (see `ngram.model`).

    Args:
        model: the model whose state it is; that of another model than a mixture stays the same.
        state: of B texts; not changed.
        rows: which texts.
    """
    if isinstance(model, TokenExclusion):  # has the state of its model
        model = model.model
    if not isinstance(model, MixtureLanguageModel):
        return state
    *network_state, ngram_state, (exponents, count, *features) = state
    count = count.copy()
    count[rows] = FIXED
    (ngram_state,) = model.ngram.leave_out_highest_order((ngram_state,), rows)
    return (*network_state, ngram_state, (exponents, count, *features))


def initial_mixing(
    batch_size: int,
    vocabulary_size: int,
    exponents: tuple[float, float] = DEFAULT_EXPONENTS,
    *,
    adapts: bool = True,
) -> LayerState:
    """The state of the mixture before any token, with these (a, b), which adapt to the text or not.

    Returns:
        (a, b) (B, 2); the number of tokens read, or FIXED, (B,); x of each possible next token, log p_network up to a
        constant and log p_ngram, (B, V) each; E[x] (B, 2); all float32. x and E[x] are zeros, so that the first token
        read, which was not predicted, does not move a and b.
    """
    zeros = np.zeros((batch_size, 2), np.float32)
    count = np.full(batch_size, 0 if adapts else FIXED, np.float32)
    features = np.zeros((batch_size, vocabulary_size), np.float32)
    return np.tile(np.array(exponents, np.float32), (batch_size, 1)), count, features, features, zeros


def mix(
    network_logits: np.ndarray, ngram_log_probs: np.ndarray, token_ids: np.ndarray, state: LayerState
) -> tuple[np.ndarray, LayerState]:
    """The logits of the mixture after each token of a window.

    Args:
        network_logits: (B, T, V) float32, of the network.
        ngram_log_probs: (B, T, V) float32, of the n-gram model.
        token_ids: (B, T) integers, the tokens read.
        state: before the window, see `initial_mixing`; not changed.

    Returns:
        (B, T, V) float32, and the state after the window.
    """
    if token_ids.size == 1:
        return _mix_one(network_logits, ngram_log_probs, token_ids.item(0), state)
    if state[1].min() == FIXED:
        a, b = state[0].T[..., np.newaxis, np.newaxis]  # (B, 1, 1) each
        return a * network_logits + b * ngram_log_probs, state
    exponents, count, network, ngram, means = state
    texts = np.arange(len(token_ids))
    mixed = np.empty_like(ngram_log_probs)
    for position, tokens in enumerate(token_ids.T):
        rates = np.where(count == FIXED, 0, np.maximum(1 / (count + PRIOR_TOKENS), MIN_RATE)).astype(np.float32)
        observed = np.stack([network[texts, tokens], ngram[texts, tokens]], axis=1)
        exponents = _bound(exponents - rates[:, None] * (means - observed) @ METRIC)
        count = count + np.float32(1)
        network, ngram = network_logits[:, position], ngram_log_probs[:, position]
        logits = exponents[:, :1] * network + exponents[:, 1:] * ngram
        probs = softmax(logits)
        means = np.stack([(probs * network).sum(axis=-1), (probs * ngram).sum(axis=-1)], axis=1)
        mixed[:, position] = logits
    return mixed, (exponents, count, network, ngram, means)


def _mix_one(
    network_logits: np.ndarray, ngram_log_probs: np.ndarray, token_id: int, state: LayerState
) -> tuple[np.ndarray, LayerState]:
    """`mix` for one token of one text, in a third of the time: sampling one text spends a fifth of its time here."""
    exponents, count, network, ngram, means = state
    if count.item() == FIXED:
        a, b = exponents[0]
        mixed: np.ndarray = network_logits[0, 0] * a
        mixed += ngram_log_probs[0, 0] * b
        return mixed[np.newaxis, np.newaxis], state
    a, b = exponents[0].tolist()
    mean_network, mean_ngram = means[0].tolist()
    rate = max(1 / (count.item(0) + PRIOR_TOKENS), MIN_RATE)
    slope_a = rate * (mean_network - network.item(0, token_id))
    slope_b = rate * (mean_ngram - ngram.item(0, token_id))
    a -= slope_a * _OWN + slope_b * _OTHER
    b -= slope_a * _OTHER + slope_b * _OWN
    if not (0 <= a <= MAX_EXPONENT and 0 <= b <= MAX_EXPONENT):
        a, b = _bound(np.array([[a, b]], np.float32))[0].tolist()
    network, ngram = network_logits[0, 0], ngram_log_probs[0, 0]
    mixed = network * np.float32(a)
    mixed += ngram * np.float32(b)
    weights = np.exp(mixed - mixed.max())
    total = float(weights.sum())
    new_means = np.array([[float(weights.dot(network)) / total, float(weights.dot(ngram)) / total]], np.float32)
    new_exponents = np.array([[a, b]], np.float32)
    features = network[np.newaxis], ngram[np.newaxis]
    return mixed[np.newaxis, np.newaxis], (new_exponents, count + np.float32(1), *features, new_means)


def _bound(exponents: np.ndarray) -> np.ndarray:
    """(a, b) (B, 2) float32 within [0, MAX_EXPONENT].

    What one of them exceeds its bound by moves the other as METRIC does: it is the nearest point of the line along
    which the step moved both.
    """
    excess = exponents - np.minimum(np.maximum(exponents, 0), np.float32(MAX_EXPONENT))
    exponents = exponents - excess[:, ::-1] * np.float32(_OTHER / _OWN)
    bounded: np.ndarray = np.minimum(np.maximum(exponents, 0), np.float32(MAX_EXPONENT))
    return bounded


class Predictions(NamedTuple):
    """What both models predict of N tokens.

    Attributes:
        network_logits: (N, V) float32.
        ngram_log_probs: (N, V) float32.
        targets: (N,) integers, the tokens.
    """

    network_logits: np.ndarray
    ngram_log_probs: np.ndarray
    targets: np.ndarray


def fit_exponents(predictions: Sequence[Predictions], poll: Callable[[], None] = lambda: None) -> tuple[float, float]:
    """The exponents (a, b) in [0, MAX_EXPONENT] with the least cross-entropy of tokens, the same for all of them.

    `poll` is called before each pass over the predictions, and ends this function by raising an exception.

    The cross-entropy is convex in (a, b). Newton's method, in which an exponent at its bound does not move further and
    a step that does not lower the cross-entropy is halved, finds its minimum in a few steps. A small quadratic term
    keeps exponents on which the tokens do not depend at DEFAULT_EXPONENTS.
    """

    def derivatives(exponents: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        poll()
        return _fit_derivatives(exponents, predictions)

    exponents = np.array(DEFAULT_EXPONENTS)
    loss, slope, curvature = derivatives(exponents)
    for _ in range(_MAX_FIT_STEPS):
        is_free = ((exponents > 0) | (slope < 0)) & ((exponents < MAX_EXPONENT) | (slope > 0))
        if not is_free.any():
            break
        step = np.zeros(2)
        step[is_free] = np.linalg.solve(curvature[np.ix_(is_free, is_free)], slope[is_free])
        while np.abs(step).max() > _FIT_TOLERANCE:
            moved = np.clip(exponents - step, 0, MAX_EXPONENT)
            moved_loss, slope, curvature = derivatives(moved)
            if moved_loss < loss:
                exponents, loss = moved, moved_loss
                break
            step /= 2
        else:
            break
    a, b = exponents.tolist()
    return a, b


def _fit_derivatives(exponents: np.ndarray, predictions: Sequence[Predictions]) -> tuple[float, np.ndarray, np.ndarray]:
    """What `fit_exponents` minimizes, its gradient (2,) and its Hessian matrix (2, 2), float64."""
    distance = exponents - DEFAULT_EXPONENTS
    loss, slope, curvature = float(distance @ distance) / 2, distance, np.eye(2)  # of the quadratic term
    for network, ngram, targets in _iter_parts(predictions):
        tokens = np.arange(len(targets))
        logits = network * np.float32(exponents[0]) + ngram * np.float32(exponents[1])
        loss += float(cross_entropy(logits, targets).sum())
        probs = softmax(logits)
        # x - E[x] of both models, (N, V) each.
        deviations = [model - (probs * model).sum(axis=-1, keepdims=True) for model in (network, ngram)]
        slope = slope - [float(each[tokens, targets].sum(dtype=np.float64)) for each in deviations]
        weighted = [probs * each for each in deviations]
        curvature = curvature + [[float(np.vdot(p, q)) for q in deviations] for p in weighted]
    return loss, slope, curvature


def _iter_parts(predictions: Sequence[Predictions]) -> Iterator[Predictions]:
    """The predictions of a few tokens at a time."""
    for each in predictions:
        rows = max(1, CACHED_LOGITS // each.network_logits.shape[1])
        for start in range(0, len(each.targets), rows):
            yield Predictions(*(array[start : start + rows] for array in each))


def softmax(logits: np.ndarray) -> np.ndarray:
    """The probabilities of logits (..., V) float32, as a new array."""
    probs: np.ndarray = logits - logits.max(axis=-1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=-1, keepdims=True)
    return probs
