"""Documents in batches, as columns: an object for each of many short documents costs more than to read them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress, islice
from typing import Self

import numpy as np
import numpy.typing as npt

from quickfox.text.documents import Document

MAX_DOCUMENTS, MAX_CHARACTERS = 2**8, 2**18
"""Limits of a batch of document objects; with more of them, collecting garbage costs more than the batches save."""


@dataclass(frozen=True, eq=False)
class DocumentBatch:
    """N documents without signals, of M parts in all.

    Attributes:
        texts: the M parts, document by document.
        is_learned: (M,) whether each part is a training target.
        num_parts: (N,) the number of parts of each document, >= 1.
    """

    texts: Sequence[str]
    is_learned: npt.NDArray[np.bool_]
    num_parts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, documents: Sequence[Document]) -> Self:
        """The batch of at least one document."""
        texts, is_learned = zip(*chain.from_iterable(document.parts for document in documents), strict=True)
        num_parts = np.fromiter((len(document.parts) for document in documents), np.int64, len(documents))
        return cls(texts, np.array(is_learned), num_parts)

    @classmethod
    def of_columns(cls, texts: Sequence[str], num_columns: int) -> Self:
        """The batch of texts (`num_columns` 1), or of prompts each before its completion (2)."""
        is_learned = np.arange(len(texts)) % num_columns == num_columns - 1
        return cls(texts, is_learned, np.full(len(texts) // num_columns, num_columns))

    def __len__(self) -> int:
        return len(self.num_parts)

    def select(self, is_selected: npt.NDArray[np.bool_]) -> Self:
        """The documents for which `is_selected`, (N,), is true."""
        if is_selected.all():
            return self
        of_parts = np.repeat(is_selected, self.num_parts)
        texts = list(compress(self.texts, of_parts.tolist()))
        return type(self)(texts, self.is_learned[of_parts], self.num_parts[is_selected])

    def documents(self) -> Iterator[Document]:
        """The documents as objects."""
        parts = zip(self.texts, self.is_learned.tolist(), strict=True)
        return (Document(tuple(islice(parts, count))) for count in self.num_parts.tolist())


def batch_documents(documents: Iterable[Document]) -> Iterator[DocumentBatch]:
    """The documents in batches, none of which is empty."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        for text, _ in document.parts:
            characters += len(text)
        if len(batch) == MAX_DOCUMENTS or characters >= MAX_CHARACTERS:
            yield DocumentBatch.of(batch)
            batch, characters = [], 0
    if batch:
        yield DocumentBatch.of(batch)
