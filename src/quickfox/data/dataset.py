"""Token ids on disk: a corpus encoded once, in bounded memory, then read in place whatever its size.

The ids are in files as `token_file.py` describes them, in the tokenizer's `token_dtype`; beside them, if not all are to
be predicted, the loss mask, a byte an id. They belong to one run of the program on one machine; what they mean
(tokenizer, corpus) their owner knows, and by their digest that they are whole.
"""

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quickfox.data.token_file import (
    SHARD_BYTES,
    ShardWriter,
    TokenFile,
    TokenSource,
    iter_pieces,
    little_endian,
    remove_shards,
    shard_paths,
)
from quickfox.errors import DataError, StorageError
from quickfox.files.errors import translate_write_errors
from quickfox.system.threads import map_ahead
from quickfox.text.corpus import Corpus
from quickfox.text.jsonl import has_documents, iter_documents
from quickfox.text.segmentation import iter_blocks, iter_slices
from quickfox.tokenizers.base import LossMask, TokenIds, Tokenizer, start_of_text

_BYTES_IN_MEMORY = 2**26


@dataclass(frozen=True)
class EncodedCorpus:
    """What was found while a corpus was encoded.

    Attributes:
        tokens: number of token ids written.
        characters: number of characters read, those left out included.
        unknown: characters that the vocabulary lacks, left out, and how often each occurs.
        digest: sha256 of the corpus's text in UTF-8, in hexadecimal; equal to `Corpus.digest()` unless a file changed.
        tokens_digest: what `tokens_digest` finds in the files, as long as they are whole.
    """

    tokens: int
    characters: int
    unknown: Counter[str]
    digest: str
    tokens_digest: str


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a text.

    Attributes:
        ids: (n,) token ids, an array or a file.
        loss_mask: (n,) bool, which of them a model is to predict; the others it only reads. None: all.
    """

    ids: TokenSource
    loss_mask: TokenSource | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, at: int) -> tuple["Tokens", "Tokens"]:
        """The first `at` tokens, and the others, as views."""
        return self._part(0, at), self._part(at, len(self))

    def _part(self, start: int, stop: int) -> "Tokens":
        mask = None if self.loss_mask is None else _part(self.loss_mask, start, stop)
        return Tokens(_part(self.ids, start, stop), mask)

    @cached_property
    def num_targets(self) -> int:
        """How many tokens are predicted by one who reads all: of those to be predicted, all but the text's first."""
        if self.loss_mask is None or len(self) == 0:
            return max(0, len(self) - 1)
        return sum(int(np.count_nonzero(piece)) for piece in iter_pieces(self.loss_mask)) - int(self.loss_mask[:1][0])


def _part(source: TokenSource, start: int, stop: int) -> TokenSource:
    return source.part(start, stop) if isinstance(source, TokenFile) else source[start:stop]


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


def encode_corpus(corpus: Corpus, tokenizer: Tokenizer, path: Path, shard_bytes: int = SHARD_BYTES) -> EncodedCorpus:
    """Write the corpus's token ids to the file `path`, in bounded memory, and the loss mask, if it has one, beside it.

    On failure no file is left. The files are not flushed to the disk: a power cut may cost them.

    Args:
        corpus: the text.
        tokenizer: knows its characters.
        path: of the first shard.
        shard_bytes: most bytes of a file; a multiple of the token's size.

    Raises:
        CannotCreateError: `path` cannot be created.
        StorageError: reading the corpus or writing failed.
        DataError, NoInputError: the corpus is not readable text, or a file of it has gone.
    """
    tokens = characters = 0
    unknown: Counter[str] = Counter()
    file_dtype = little_endian(tokenizer.token_dtype)
    with_mask = has_documents(corpus)
    sha256 = hashlib.sha256()
    remove_tokens(path)  # of an earlier run, perhaps of more shards
    ids, masks = ShardWriter(path, shard_bytes), ShardWriter(loss_mask_path(path), shard_bytes)
    with translate_write_errors(path):

        def write(piece: Encoded) -> Encoded:
            ids.write(piece.ids.astype(file_dtype, copy=False).tobytes())
            if piece.loss_mask is not None:
                masks.write(piece.loss_mask.tobytes())
            else:
                sha256.update(piece.text.encode())
            return piece

        try:
            with ids, masks:
                ids.write(b"")  # a file, if there is nothing to write
                for piece in map_ahead(write, iter_encoded(corpus, tokenizer, unknown), threads=1):
                    tokens += len(piece.ids)
                    characters += len(piece.text)
        except BaseException:
            remove_tokens(path)
            raise
    digest = corpus.digest() if with_mask else sha256.hexdigest()
    return EncodedCorpus(tokens, characters, unknown, digest, _joint_digest(ids.sha256, masks.sha256, with_mask))


def _joint_digest(ids: "hashlib._Hash", masks: "hashlib._Hash", with_mask: bool) -> str:
    if with_mask:
        ids.update(masks.digest())
    return ids.hexdigest()


def tokens_digest(path: Path, *, has_loss_mask: bool) -> str | None:
    """The digest of the files that `encode_corpus` wrote to `path`: a sha256 in hexadecimal; None if there are none.

    Raises:
        StorageError: reading failed.
    """
    try:
        ids = _files_digest(path)
        return _joint_digest(ids, _files_digest(loss_mask_path(path)) if has_loss_mask else ids, has_loss_mask)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def _files_digest(path: Path) -> "hashlib._Hash":
    sha256 = hashlib.sha256()
    for shard in shard_paths(path):
        with shard.open("rb") as file:
            hashlib.file_digest(file, lambda: sha256)
    return sha256


def remove_tokens(path: Path) -> None:
    """Removes what `encode_corpus` wrote to `path`, if it is there."""
    remove_shards(loss_mask_path(path))
    remove_shards(path)


def token_paths(path: Path) -> list[Path]:
    """All files that `encode_corpus` wrote to `path`."""
    return [each for each in (*shard_paths(path), *shard_paths(loss_mask_path(path))) if each.exists()]


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


def open_corpus_tokens(
    path: Path, dtype: npt.DTypeLike, *, has_loss_mask: bool, shard_bytes: int = SHARD_BYTES
) -> Tokens:
    """The tokens that `encode_corpus` wrote to `path`, of `dtype`; raises what `TokenFile` does."""
    mask = TokenFile(loss_mask_path(path), np.bool_, shard_bytes) if has_loss_mask else None
    return Tokens(TokenFile(path, dtype, shard_bytes), mask)


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
