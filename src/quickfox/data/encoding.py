"""Encode texts and documents in chunks, in bounded memory, and choose the part of a corpus that is held out."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from quickfox.data.document_order import held_out_documents
from quickfox.errors import DataError
from quickfox.text.segmentation import align_chunks, limit_chunks, split_chunks
from quickfox.tokenizers.base import LossMask, TokenIds, Tokenizer, start_of_text

if TYPE_CHECKING:  # the readers of all formats, which a plain text does not need
    from quickfox.text.corpus import Corpus
    from quickfox.text.documents import Document


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

    def is_training(self, number: int) -> bool:
        """Whether a document is one to train on; raises DataError if there are more documents than were counted."""
        if number >= len(self.held_out_documents):
            raise DataError("the corpus changed while it was read: start the run again")
        return not self.held_out_documents[number]


@dataclass(frozen=True, eq=False)
class EncodedChunk:
    """A chunk of a text or a document, and its tokens; see `Tokens`."""

    text: str
    ids: TokenIds
    loss_mask: LossMask | None


def training_share(length: int, validation_split: float) -> int:
    """Number of characters, documents or tokens of `length` to train on; the rest are held out."""
    return math.floor(round(length * (1.0 - validation_split), 6))  # rounded: 10 * (1 - 0.9) is slightly below 1


def iter_training_texts(corpus: "Corpus", split: Split | None) -> Iterator[str]:
    """The text from which a tokenizer is built: chunks of a plain text, or the parts of documents, each on its own."""
    if not corpus.has_documents:
        text, _ = split_chunks(corpus.iter_text(), None if split is None else split.training_units)
        yield from text
        return
    for number, document in enumerate(corpus.iter_documents()):
        if split is None or split.is_training(number):
            yield from (text for text, _ in document.parts)


def encode_chunks(
    chunks: Iterable[str], tokenizer: Tokenizer, unknown: Counter[str] | None = None
) -> Iterator[EncodedChunk]:
    """Encodes a plain text; an unknown character is counted in `unknown` if given, else raises DataError."""
    for chunk in limit_chunks(chunks) if tokenizer.kind in ("char", "byte") else align_chunks(chunks):
        yield EncodedChunk(chunk, tokenizer.encode(chunk, unknown), None)


def encode_document(document: "Document", tokenizer: Tokenizer, unknown: Counter[str] | None = None) -> EncodedChunk:
    """Encodes a document and the end-of-text token after it; parts that are only read are not training targets."""
    parts = [tokenizer.encode(text, unknown) for text, _ in document.parts]
    is_target = [is_learned for _, is_learned in document.parts]
    mask = np.repeat([*is_target, document.is_end_learned], [*map(len, parts), 1])
    return EncodedChunk(document.text, np.concatenate([*parts, start_of_text(tokenizer)]), mask)


def encode_corpus_chunks(
    corpus: "Corpus", tokenizer: Tokenizer, unknown: Counter[str] | None = None
) -> Iterator[EncodedChunk]:
    """Encodes a corpus whose first token is not a target: in chunks, or documents with the end-of-text token before.

    Raises:
        DataError: a character is unknown and `unknown` is not given; or the corpus is damaged or malformed.
        NoInputError, StorageError: a file was removed, or reading failed.
    """
    if not corpus.has_documents:
        yield from encode_chunks(corpus.iter_text(), tokenizer, unknown)
        return
    yield encode_start(tokenizer)
    for document in corpus.iter_documents():
        yield encode_document(document, tokenizer, unknown)


def encode_start(tokenizer: Tokenizer) -> EncodedChunk:
    """The end-of-text token, before the first document; raises DataError if there is none."""
    if tokenizer.end_of_text is None:
        raise DataError("the tokenizer has no end-of-text token, which a corpus of documents requires")
    return EncodedChunk("", start_of_text(tokenizer), np.zeros(1, np.bool_))
