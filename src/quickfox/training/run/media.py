"""Runs on corpora with signals: how the signals are read, and the length of the rows that their documents need."""

import dataclasses
import math
from collections.abc import Iterator

from quickfox.config.media import KIND_NAMES, MediaConfig
from quickfox.config.model import Architecture
from quickfox.data.dataset import Tokens
from quickfox.data.encoding import Split
from quickfox.data.signal_batches import ROW_LENGTH_MULTIPLE
from quickfox.errors import UsageError
from quickfox.media.signals import choose_media
from quickfox.text.corpus import Corpus
from quickfox.text.documents import Document
from quickfox.training.run.transfer import ResolvedRequest

DEFAULT_ARCHITECTURE: Architecture = "attention-rnn"
"""Of a model of signals: an lstm alone learns half as much in as many steps, see benchmarks/LOG.md."""

MAX_ROW_LENGTH = 512
"""Positions of a row by default, at most: each one adds to the time to compile the first step."""


def prepare_media(
    corpus: Corpus, split: Split | None, resolved: ResolvedRequest, workers: int
) -> tuple[ResolvedRequest, MediaConfig | None]:
    """How the signals of a corpus are read, and the request without n-grams, which do not read them.

    They are read as by the pretrained model, if that reads signals; None: the corpus has no signals.

    Raises:
        UsageError: a requested setting does not go with signals, or the pretrained model reads other ones.
        QuickfoxError: as `choose_media`.
    """
    kind, pretrained = corpus.media_kind, resolved.pretrained.bundle.config.media if resolved.pretrained else None
    if kind is None:
        if pretrained is not None:
            raise UsageError(
                f"the pretrained model reads {KIND_NAMES[pretrained.kind]}, and the corpus has none", "init_from"
            )
        if resolved.training.no_augmentation:
            raise UsageError("no_augmentation is for sound and pictures, and the corpus has none", "no_augmentation")
        return resolved, None
    request = resolved.training
    if request.architecture == "ngram" or request.ngram not in ("auto", "off"):
        raise UsageError(f"n-grams do not read {KIND_NAMES[kind]}: leave them out, and choose a network", "ngram")
    if workers > 1:
        raise UsageError(
            f"a run on {KIND_NAMES[kind]} is for one process, not for {workers} workers: start it without TF_CONFIG"
        )
    if pretrained is not None and pretrained.kind != kind:
        names = KIND_NAMES[pretrained.kind], KIND_NAMES[kind]
        raise UsageError("the pretrained model reads {}, and the corpus has {}".format(*names), "init_from")
    media = pretrained or choose_media(_training_documents(corpus, split), kind)
    request = dataclasses.replace(request, ngram="off", architecture=request.architecture or DEFAULT_ARCHITECTURE)
    return dataclasses.replace(resolved, training=request), media


def choose_rows(resolved: ResolvedRequest, training: Tokens) -> tuple[ResolvedRequest, int | None]:
    """The request with a window that holds the longest document, unless another is requested; the mean row.

    Returns:
        The request, and `TrainingConfig.tokens_per_row`.
    """
    if training.frames is None:
        return resolved, None
    lengths = training.signal_documents.lengths
    window = resolved.training.window or min(
        math.ceil(lengths.max() / ROW_LENGTH_MULTIPLE) * ROW_LENGTH_MULTIPLE, MAX_ROW_LENGTH
    )
    kept = lengths[lengths <= window]
    resolved = dataclasses.replace(resolved, training=dataclasses.replace(resolved.training, window=window))
    return resolved, max(1, round(float(kept.mean()))) if len(kept) else None


def _training_documents(corpus: Corpus, split: Split | None) -> Iterator[Document]:
    for number, document in enumerate(corpus.iter_documents()):
        if split is None or split.are_training(number, 1)[0]:
            yield document
