"""Runs on corpora with signals: how the signals are read, and the length of the rows that their documents need."""

import dataclasses
from collections.abc import Iterator

from quickfox.config.media import KIND_NAMES, MediaConfig
from quickfox.data.dataset import Tokens
from quickfox.data.encoding import Split
from quickfox.errors import UsageError
from quickfox.media.signals import choose_media
from quickfox.text.corpus import Corpus
from quickfox.text.documents import Document
from quickfox.training.run.transfer import ResolvedRequest

MAX_ROW_LENGTH = 512
"""Positions of a row by default, at most: each one adds to the time to compile the first step."""

_ROW_LENGTH_MULTIPLE = 4


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
    return dataclasses.replace(resolved, training=dataclasses.replace(request, ngram="off")), media


def choose_row_length(resolved: ResolvedRequest, training: Tokens) -> ResolvedRequest:
    """The request with a window that holds the longest document, unless another is requested."""
    if training.frames is None or resolved.training.window is not None:
        return resolved
    longest = max(training.signal_documents.lengths.tolist(), default=1)
    window = min(-(-longest // _ROW_LENGTH_MULTIPLE) * _ROW_LENGTH_MULTIPLE, MAX_ROW_LENGTH)
    return dataclasses.replace(resolved, training=dataclasses.replace(resolved.training, window=window))


def _training_documents(corpus: Corpus, split: Split | None) -> Iterator[Document]:
    for number, document in enumerate(corpus.iter_documents()):
        if split is None or split.are_training(number, 1)[0]:
            yield document
