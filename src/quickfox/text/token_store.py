"""Token ids on disk: a corpus encoded once, then read through the memory map whatever its size.

The file is raw: the ids one after another, little-endian, in the tokenizer's `token_dtype`, nothing else; beside it, if
not all of them are to be predicted, the loss mask, a byte an id. They belong to one run of the program on one machine;
what they mean (tokenizer, corpus) their owner knows.
"""

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quickfox.durable import output_errors
from quickfox.errors import DataError, NoInputError, StorageError
from quickfox.text.corpus import Corpus
from quickfox.text.documents import has_documents, iter_documents
from quickfox.text.segments import iter_blocks, iter_slices
from quickfox.text.tokenizers.protocol import LossMask, TokenIds, Tokenizer, start_of_text
from quickfox.threads import map_ahead

_BYTES_IN_MEMORY = 2**26


@dataclass(frozen=True)
class EncodedCorpus:
    """What was found while a corpus was encoded.

    Attributes:
        tokens: number of token ids written.
        characters: number of characters read, those left out included.
        unknown: characters that the vocabulary lacks, left out, and how often each occurs.
        digest: sha256 of the corpus's text in UTF-8, in hexadecimal; equal to `Corpus.digest()` unless a file changed.
    """

    tokens: int
    characters: int
    unknown: Counter[str]
    digest: str


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a text.

    Attributes:
        ids: (n,) token ids.
        loss_mask: (n,) bool, which of them a model is to predict; the others it only reads. None: all.
    """

    ids: TokenIds
    loss_mask: LossMask | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, at: int) -> tuple["Tokens", "Tokens"]:
        """The first `at` tokens, and the others, as views."""
        if self.loss_mask is None:
            return Tokens(self.ids[:at]), Tokens(self.ids[at:])
        return Tokens(self.ids[:at], self.loss_mask[:at]), Tokens(self.ids[at:], self.loss_mask[at:])

    @property
    def num_targets(self) -> int:
        """How many tokens are predicted by one who reads all: of those to be predicted, all but the text's first."""
        return max(0, len(self) - 1) if self.loss_mask is None else int(np.count_nonzero(self.loss_mask[1:]))


@dataclass(frozen=True, eq=False)
class Encoded:
    """A piece of a text and its tokens; see `Tokens`."""

    text: str
    ids: TokenIds
    loss_mask: LossMask | None


def encoded_text(chunks: Iterable[str], tokenizer: Tokenizer, unknown: Counter[str] | None = None) -> Iterator[Encoded]:
    """A plain text piece by piece; an unknown character is counted in `unknown`, or raises DataError."""
    pieces = iter_slices(chunks) if tokenizer.kind in ("char", "byte") else iter_blocks(chunks)
    for piece in pieces:
        yield Encoded(piece, tokenizer.encode(piece, unknown), None)


def iter_encoded(corpus: Corpus, tokenizer: Tokenizer, unknown: Counter[str] | None = None) -> Iterator[Encoded]:
    """The corpus piece by piece as a model reads it.

    Documents begin and end with the end of text, of which the first is read only, as are the prompts.

    Raises:
        DataError: a character is unknown, and `unknown` is not given; or the corpus is not what it should be.
        NoInputError, StorageError: a file of it has gone, or reading failed.
    """
    if not has_documents(corpus):
        yield from encoded_text(corpus.iter_text(), tokenizer, unknown)
        return
    if tokenizer.end_of_text is None:
        raise DataError("the model has learnt plain text, which has no end: it cannot read a corpus of JSON lines")
    end = start_of_text(tokenizer)
    yield Encoded("", end, np.zeros(1, np.bool_))
    for document in iter_documents(corpus):
        prompt, completion = (tokenizer.encode(text, unknown) for text in (document.prompt, document.completion))
        ids = np.concatenate([prompt, completion, end])
        yield Encoded(document.prompt + document.completion, ids, np.arange(len(ids)) >= len(prompt))


def encode_corpus(corpus: Corpus, tokenizer: Tokenizer, path: Path) -> EncodedCorpus:
    """Write the corpus's token ids to the file `path`, in bounded memory, and the loss mask, if it has one, beside it.

    On failure no file is left. The files are not flushed to the disk: a power cut may cost them.

    Raises:
        CannotCreateError: `path` cannot be created.
        StorageError: reading the corpus or writing failed.
        DataError, NoInputError: the corpus is not readable text, or a file of it has gone.
    """
    tokens = characters = 0
    unknown: Counter[str] = Counter()
    file_dtype = _little_endian(tokenizer.token_dtype)
    with_mask = has_documents(corpus)
    paths = [path, loss_mask_path(path)] if with_mask else [path]
    sha256 = hashlib.sha256()
    with output_errors(path), ExitStack() as opened:
        files = [opened.enter_context(each.open("wb")) for each in paths]

        def write(piece: Encoded) -> Encoded:
            files[0].write(piece.ids.astype(file_dtype, copy=False).data)
            if piece.loss_mask is not None:
                files[1].write(piece.loss_mask.data)
            else:
                sha256.update(piece.text.encode())
            return piece

        try:
            for piece in map_ahead(write, iter_encoded(corpus, tokenizer, unknown), threads=1):
                tokens += len(piece.ids)
                characters += len(piece.text)
            for file in files:
                file.flush()
        except BaseException:
            for each in paths:
                each.unlink(missing_ok=True)
            raise
    return EncodedCorpus(tokens, characters, unknown, corpus.digest() if with_mask else sha256.hexdigest())


def loss_mask_path(path: Path) -> Path:
    """Where the loss mask of the tokens in the file `path` belongs."""
    return path.with_suffix(".mask")


def collect_tokens(pieces: Iterable[TokenIds], dtype: npt.DTypeLike) -> TokenIds:
    """The token ids of all pieces, one after another: (number of tokens,) of `dtype`, read-only.

    Many of them are kept in an unnamed temporary file and memory-mapped, so that memory does not bound the text.

    Raises:
        StorageError: the temporary file cannot be made or written.
    """
    try:
        with tempfile.SpooledTemporaryFile(max_size=_BYTES_IN_MEMORY) as file:
            for ids in pieces:
                file.write(ids.astype(dtype, copy=False).tobytes())
            if file.tell() > _BYTES_IN_MEMORY:
                file.flush()
                return np.memmap(file, dtype=dtype, mode="r")
            file.seek(0)
            return np.frombuffer(file.read(), dtype=dtype)
    except OSError as error:
        raise StorageError(f"cannot keep the text in a temporary file: {error.strerror or error}") from error


def open_tokens(path: Path, dtype: npt.DTypeLike) -> TokenIds:
    """The token ids in the file `path`: (number of tokens,) of `dtype`, read-only, memory-mapped.

    Raises:
        NoInputError: there is no such file.
        DataError: the file's size is no whole number of ids.
        StorageError: the file cannot be opened or mapped.
    """
    file_dtype = _little_endian(dtype)
    try:
        size = path.stat().st_size
        if size % file_dtype.itemsize:
            raise DataError(f"{path}: {size} bytes are no whole number of {file_dtype.itemsize}-byte token ids")
        if size == 0:  # nothing to map
            return np.frombuffer(b"", dtype=file_dtype)
        return np.memmap(path, dtype=file_dtype, mode="r")
    except FileNotFoundError:
        raise NoInputError(f"{path}: no such file") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def open_corpus_tokens(path: Path, dtype: npt.DTypeLike, *, has_loss_mask: bool) -> Tokens:
    """The tokens that `encode_corpus` wrote to `path`, of `dtype`; raises what `open_tokens` does."""
    mask = open_tokens(loss_mask_path(path), np.uint8).view(np.bool_) if has_loss_mask else None
    return Tokens(open_tokens(path, dtype), mask)


def split_tokens(tokens: Tokens, validation_split: float) -> tuple[Tokens, Tokens]:
    """Training tokens and held-out tokens, the LAST share of a text, as views.

    Args:
        tokens: n tokens of the whole text.
        validation_split: share to hold out, in [0, 1).

    Returns:
        The first floor(n * (1 - validation_split)) tokens, and the others.
    """
    return tokens.split(count_training_tokens(len(tokens), validation_split))


def count_training_tokens(tokens: int, validation_split: float) -> int:
    """How many of a text's tokens are for training: the first floor(tokens * (1 - validation_split))."""
    return math.floor(round(tokens * (1.0 - validation_split), 6))  # rounded, as 10 * (1 - 0.9) is a hair below 1


def _little_endian(dtype: npt.DTypeLike) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
