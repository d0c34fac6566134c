"""How well a model predicts a text: nats per token, perplexity, bits per character and per byte.

The rule is that of validation in training: every token but the first is predicted once, from the text before it,
with the state zero at the start and then carried. NumPy only.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from quickfox.errors import NoInputError
from quickfox.models.language_model import LanguageModel
from quickfox.models.state import replace_row
from quickfox.text.batching import iter_validation_windows, validation_lanes
from quickfox.text.token_store import collect_tokens
from quickfox.text.tokenizers import CharacterTokenizer

LANES = 64
WINDOW = 16
WARM_UP = 256
"""Places in the text read side by side, tokens a window, tokens each lane reads ahead of its place (see batching)."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured; in all, tokens * nats_per_token = ln 2 * characters * bits_per_character, bytes alike.

    Attributes:
        tokens: predicted tokens: all but the first.
        characters: that these tokens stand for.
        bytes: of these characters in UTF-8.
        unknown_characters: left out, because the model does not know them.
        nats_per_token: mean cross-entropy.
        perplexity: exp of it: as uncertain as a choice among so many equally likely tokens.
        bits_per_character: comparable between tokenizers.
        bits_per_byte: comparable between writing systems too.
    """

    tokens: int
    characters: int
    bytes: int
    unknown_characters: int
    nats_per_token: float
    perplexity: float
    bits_per_character: float
    bits_per_byte: float


def evaluate(
    model: LanguageModel, tokenizer: CharacterTokenizer, chunks: Iterable[str], unknown: Counter[str] | None = None
) -> Evaluation:
    """Measure how well `model` predicts a text.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        chunks: the text, in pieces of any size.
        unknown: if given, characters that the tokenizer does not know are left out and counted here.

    Raises:
        NoInputError: the text is empty.
        DataError: fewer than two tokens are known; or a character is unknown, and `unknown` is not given.
        StorageError: a long text cannot be kept in a temporary file.
    """
    left_out: Counter[str] = Counter()
    characters = size = 0

    def encoded() -> Iterator[np.ndarray]:
        nonlocal characters, size
        for chunk in chunks:
            yield tokenizer.encode(chunk, None if unknown is None else left_out)
            characters += len(chunk)
            size += len(chunk.encode())

    ids = collect_tokens(encoded(), tokenizer.token_dtype)
    if characters == 0:
        raise NoInputError("the text is empty: there is nothing to evaluate")
    if unknown is not None:
        unknown.update(left_out)
    nats_per_token = mean_loss(model, ids)
    not_predicted = left_out + Counter(tokenizer.decode(ids[:1]))
    characters -= not_predicted.total()
    size -= sum(len(character.encode()) * count for character, count in not_predicted.items())
    bits = nats_per_token * (len(ids) - 1) / math.log(2)
    with np.errstate(over="ignore"):  # infinite for a model that is sure of what never comes
        perplexity = float(np.exp(nats_per_token))
    return Evaluation(
        tokens=len(ids) - 1,
        characters=characters,
        bytes=size,
        unknown_characters=left_out.total(),
        nats_per_token=nats_per_token,
        perplexity=perplexity,
        bits_per_character=bits / characters,
        bits_per_byte=bits / size,
    )


def mean_loss(model: LanguageModel, ids: np.ndarray) -> float:
    """The mean cross-entropy, in nats per token, of every token of `ids` but the first.

    Args:
        model: the language model.
        ids: (n,) token ids of the text.

    Raises:
        DataError: n < 2.
    """
    state = model.initial_state(validation_lanes(len(ids), LANES, WARM_UP))
    total = weights = 0.0
    for window in iter_validation_windows(ids, LANES, WINDOW, WARM_UP):
        if window.reset_first:
            state = replace_row(state, 0, model.initial_state(1))
        logits, state = model.forward(window.x, state)
        total += float(np.vdot(cross_entropy(logits, window.y), window.weight))
        weights += float(window.weight.sum())
    return total / weights


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[target], in nats: (..., V) float32, (...) integers -> (...) float64."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    target_logits: np.ndarray = np.take_along_axis(logits, targets[..., np.newaxis], axis=-1)[..., 0]
    losses: np.ndarray = np.log(np.exp(logits).sum(axis=-1)) - target_logits
    return losses
