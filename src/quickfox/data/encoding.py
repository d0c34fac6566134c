"""Encode texts and documents in chunks, in bounded memory, and choose the part of a corpus that is held out."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from quickfox.config.media import NUM_BORDERS, MediaConfig
from quickfox.data.dataset import input_dtype
from quickfox.data.document_order import held_out_documents
from quickfox.errors import DataError
from quickfox.media.features import Frames
from quickfox.media.signals import frame_kinds, iter_frames
from quickfox.text.batches import DocumentBatch, batch_documents
from quickfox.text.documents import Document
from quickfox.text.segmentation import align_chunks, limit_chunks, split_chunks
from quickfox.tokenizers.base import LossMask, TokenIds, Tokenizer, start_of_text

if TYPE_CHECKING:  # the readers of all formats, which a plain text does not need
    from quickfox.text.corpus import Corpus

Unit = tuple[DocumentBatch, Frames | None]
"""Documents, or one and the frames of its signal."""


@dataclass(frozen=True)
class Split:
    """Which part of a corpus is held out: the end of a plain text, or documents that are drawn at random.

    Attributes:
        training_units: number of characters of a plain text, or of documents, to train on.
        documents: number of all documents; None: a plain text.
        random_seed: determines the documents; >= 0.
    """

    training_units: int
    documents: int | None
    random_seed: int

    @classmethod
    def of(cls, corpus: "Corpus", validation_split: float, random_seed: int) -> Self:
        """The split that holds out a fraction of a corpus; raises as `Corpus.count_units`."""
        units = corpus.count_units()
        training_units = training_share(units, validation_split)
        return cls(training_units, units if corpus.has_documents else None, random_seed)

    @cached_property
    def held_out_documents(self) -> npt.NDArray[np.bool_]:
        """Whether each document is held out."""
        assert self.documents is not None
        return held_out_documents(self.documents, self.training_units, self.random_seed)

    def are_training(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        """Whether each of `count` documents, from number `first` on, is one to train on.

        Raises:
            DataError: there are more documents than were counted.
        """
        held_out = self.held_out_documents[first : first + count]
        if len(held_out) < count:
            raise DataError("the corpus changed while it was read: start the run again")
        return ~held_out


@dataclass(frozen=True, eq=False)
class EncodedChunk:
    """A chunk of a text, or documents, and its tokens; see `Tokens`.

    Attributes:
        frames: of the signal of a document; None: it has none.
    """

    text: str
    ids: TokenIds
    loss_mask: LossMask | None
    frames: Frames | None = None


def training_share(length: int, validation_split: float) -> int:
    """Number of characters, documents or tokens of `length` to train on; the rest are held out."""
    return math.floor(round(length * (1.0 - validation_split), 6))  # rounded: 10 * (1 - 0.9) is slightly below 1


def iter_training_texts(corpus: "Corpus", split: Split | None) -> Iterator[str]:
    """The text from which a tokenizer is built: chunks of a plain text, or the parts of documents, each on its own."""
    if not corpus.has_documents:
        text, _ = split_chunks(corpus.iter_text(), None if split is None else split.training_units)
        yield from text
        return
    first = 0
    for batch in corpus.iter_batches():
        yield from (batch if split is None else batch.select(split.are_training(first, len(batch)))).texts
        first += len(batch)


def encode_chunks(
    chunks: Iterable[str], tokenizer: Tokenizer, unknown: Counter[str] | None = None
) -> Iterator[EncodedChunk]:
    """Encodes a plain text; an unknown character is counted in `unknown` if given, else raises DataError."""
    for chunk in limit_chunks(chunks) if tokenizer.kind in ("char", "byte") else align_chunks(chunks):
        yield EncodedChunk(chunk, tokenizer.encode(chunk, unknown), None)


def iter_batches(corpus: "Corpus", media: MediaConfig | None) -> Iterator[Unit]:
    """The documents of a corpus in batches; with signals, each on its own, with its frames made as `media` says."""
    if media is not None:
        return _read_signals(corpus.iter_documents(), media)
    batches = corpus.iter_batches()
    if "jsonl" in corpus.formats:  # lines that name signals are refused
        batches = batch_documents(document for document, _ in iter_frames(corpus.iter_documents(), None))
    return ((batch, None) for batch in batches)


def _read_signals(documents: Iterable[Document], media: MediaConfig | None) -> Iterator[Unit]:
    return ((DocumentBatch.of([document]), frames) for document, frames in iter_frames(documents, media))


def encode_batch(
    batch: DocumentBatch,
    tokenizer: Tokenizer,
    unknown: Counter[str] | None = None,
    media: MediaConfig | None = None,
    frames: Frames | None = None,
) -> EncodedChunk:
    """Encodes documents, each followed by the end-of-text token; parts that are only read are not training targets.

    Args:
        batch: the documents.
        tokenizer: their tokens.
        unknown: receives the count of each unknown character, which else raises DataError.
        media: how signals are read; None: there are none.
        frames: of the signal of the only document; None: it has none.
    """
    ids, counts = tokenizer.encode_all(batch.texts, unknown)
    last_parts = np.cumsum(batch.num_parts) - 1
    ids = np.insert(ids, np.cumsum(counts)[last_parts], start_of_text(tokenizer))
    counts[last_parts] += 1  # the end-of-text token, which is learned if the last part is
    mask = np.repeat(batch.is_learned, counts)
    if media is not None and frames is not None:
        before = signal_ids(frames, tokenizer, media)
        ids, mask = np.concatenate([before, ids]), np.concatenate([np.zeros(len(before), np.bool_), mask])
    return EncodedChunk("".join(batch.texts), ids, mask, frames)


def signal_ids(frames: Frames, tokenizer: Tokenizer, media: MediaConfig) -> TokenIds:
    """The input ids of a signal, see `models/inputs.py`: its begin, the kinds of its frames, its end."""
    begin = tokenizer.vocabulary_size
    kinds = frame_kinds(len(frames), media) + begin + NUM_BORDERS
    return np.concatenate([[begin], kinds, [begin + 1]]).astype(input_dtype(tokenizer, media))


def encode_corpus_chunks(
    corpus: "Corpus", tokenizer: Tokenizer, unknown: Counter[str] | None = None, media: MediaConfig | None = None
) -> Iterator[EncodedChunk]:
    """Encodes a corpus whose first token is not a target: in chunks, or documents with the end-of-text token before.

    Raises:
        DataError: a character is unknown and `unknown` is not given; or the corpus is damaged or malformed.
        NoInputError, StorageError: a file was removed, or reading failed.
    """
    if corpus.has_documents:
        yield from _encode_units(iter_batches(corpus, media), tokenizer, unknown, media)
    else:
        yield from encode_chunks(corpus.iter_text(), tokenizer, unknown)


def encode_with_signals(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    unknown: Counter[str] | None = None,
    media: MediaConfig | None = None,
) -> Iterator[EncodedChunk]:
    """Encodes documents with the end-of-text token before them; errors as of `encode_corpus_chunks`."""
    return _encode_units(_read_signals(documents, media), tokenizer, unknown, media)


def _encode_units(
    units: Iterable[Unit], tokenizer: Tokenizer, unknown: Counter[str] | None, media: MediaConfig | None
) -> Iterator[EncodedChunk]:
    yield encode_start(tokenizer)
    for batch, frames in units:
        yield encode_batch(batch, tokenizer, unknown, media, frames)


def encode_start(tokenizer: Tokenizer) -> EncodedChunk:
    """The end-of-text token, before the first document; raises DataError if there is none."""
    if tokenizer.end_of_text is None:
        raise DataError("the tokenizer has no end-of-text token, which a corpus of documents requires")
    return EncodedChunk("", start_of_text(tokenizer), np.zeros(1, np.bool_))
