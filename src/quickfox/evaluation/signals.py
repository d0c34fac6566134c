"""The loss of a model on documents with signals, and the control, in which the signals are exchanged.

Every document is read on its own, from the initial state, as in the validation of training. What a model predicts with
the signals of other documents is what the texts alone give away.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from quickfox.config.media import MediaConfig
from quickfox.data.dataset import Tokens
from quickfox.data.document_order import random_permutation
from quickfox.data.frames import Row
from quickfox.evaluation.bootstrap import standard_error
from quickfox.models.inputs import Frames, collect_frames
from quickfox.models.language_model import LanguageModel
from quickfox.models.losses import cross_entropy
from quickfox.text.documents import Document

Bind = Callable[[Frames | None], LanguageModel]
"""The language model that reads these frames."""


class SignalReader(NamedTuple):
    """How a model reads signals, and the model that reads the given frames."""

    media: MediaConfig
    bind: Bind


BATCH_SIZE = 64
_WINDOW = 16  # positions per call of the model: bounds the memory of the logits


def measure_documents(bind: Bind, tokens: Tokens) -> tuple[float, float | None]:
    """The mean cross-entropy of every target of documents with signals, nats per token, and its standard error."""
    sums, counts = document_losses(bind, tokens)
    return float(sums.sum() / counts.sum()), standard_error(sums, counts)


def document_losses(bind: Bind, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the losses of each document in nats, and its number of targets: (documents,) each, by length."""
    documents = tokens.signal_documents
    order = np.argsort(documents.lengths, kind="stable").tolist()
    results = [
        _batch_losses(bind, [documents.row(number) for number in order[first : first + BATCH_SIZE]], tokens)
        for first in range(0, len(order), BATCH_SIZE)
    ]
    sums, counts = (np.concatenate(parts) for parts in zip(*results, strict=True))
    return sums, counts


def _batch_losses(bind: Bind, rows: list[Row], tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    assert tokens.frames is not None
    first_id, end = tokens.frames.first_id, tokens.frames.end_of_text
    frames, texts = collect_frames([(row.ids, row.frames) for row in rows], first_id)
    model = bind(frames)
    length = max(map(len, texts))
    ids = np.full((len(rows), length), end, np.int64)
    is_target = np.zeros((len(rows), length), bool)
    for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
        ids[number, : len(text)], is_target[number, : len(text)] = text, row.is_target
    state, sums = model.initial_state(len(rows)), np.zeros(len(rows))
    for start in range(0, length - 1, _WINDOW):
        stop = min(start + _WINDOW, length - 1)
        logits, state = model.forward(ids[:, start:stop], state)
        mask = is_target[:, start + 1 : stop + 1]
        if not mask.any():
            continue
        targets = np.where(mask, ids[:, start + 1 : stop + 1], 0)
        losses = cross_entropy(logits, targets)
        if tokens.unknown_token is not None:
            tokens.unknown_token.add_cost(losses, targets)
        sums += np.where(mask, losses, 0).sum(axis=1)
    return sums, is_target.sum(axis=1)


def exchange_signals(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents, each with the signal of another one; those without a signal are left out."""
    with_signal = [document for document in documents if document.signal is not None]
    order = random_permutation(len(with_signal), 0).tolist()
    donors = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    for number, document in enumerate(with_signal):
        yield dataclasses.replace(document, signal=with_signal[donors[number]].signal)
