"""Encode a corpus to token files, in bounded memory, and split it into training and validation tokens.

The ids are in files of `token_file.py` in the tokenizer's `token_dtype`; if not all of them are training targets, the
loss mask is in a second file, one byte per id. The files belong to one run on one machine. Their digest shows damage.
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
    little_endian,
    shard_paths,
)
from quickfox.errors import DataError, NoInputError
from quickfox.files.errors import translate_read_errors, translate_write_errors
from quickfox.system.threads import map_ahead
from quickfox.text.corpus import Corpus
from quickfox.text.segmentation import align_chunks, limit_chunks, split_chunks
from quickfox.tokenizers.base import LossMask, TokenIds, Tokenizer, start_of_text

_BYTES_IN_MEMORY = 2**26
_CHUNK_LENGTH = 2**20


@dataclass(frozen=True)
class EncodedCorpus:
    """Counts and digests of an encoded corpus.

    Attributes:
        tokens: number of token ids written.
        training_tokens: number of those before the held-out part.
        characters: number of characters read, unknown ones included.
        unknown: count of each character that is not in the vocabulary; these are skipped.
        digest: hexadecimal sha256 of the text in UTF-8; equals `Corpus.digest()` unless a file changed.
        tokens_digest: the result of `tokens_digest` for undamaged files.
    """

    tokens: int
    training_tokens: int
    characters: int
    unknown: Counter[str]
    digest: str
    tokens_digest: str


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a text.

    Attributes:
        ids: (n,) token ids, an array or a file.
        loss_mask: (n,) bool, whether each is a training target; None: all are.
    """

    ids: TokenSource
    loss_mask: TokenSource | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, at: int) -> tuple["Tokens", "Tokens"]:
        """Views of the first `at` tokens and of the rest."""
        return self._part(0, at), self._part(at, len(self))

    def _part(self, start: int, stop: int) -> "Tokens":
        mask = None if self.loss_mask is None else _part(self.loss_mask, start, stop)
        return Tokens(_part(self.ids, start, stop), mask)

    @cached_property
    def num_targets(self) -> int:
        """Number of targets: all tokens of the loss mask except the first token of the text."""
        if self.loss_mask is None or len(self) == 0:
            return max(0, len(self) - 1)
        starts = range(0, len(self), _CHUNK_LENGTH)
        count = sum(np.count_nonzero(self.loss_mask[start : start + _CHUNK_LENGTH]) for start in starts)
        return int(count) - int(self.loss_mask[:1][0])


def _part(source: TokenSource, start: int, stop: int) -> TokenSource:
    return source.part(start, stop) if isinstance(source, TokenFile) else source[start:stop]


@dataclass(frozen=True, eq=False)
class EncodedChunk:
    """A chunk of a text and its tokens; see `Tokens`."""

    text: str
    ids: TokenIds
    loss_mask: LossMask | None


def encode_chunks(
    chunks: Iterable[str], tokenizer: Tokenizer, unknown: Counter[str] | None = None
) -> Iterator[EncodedChunk]:
    """Encodes a plain text; an unknown character is counted in `unknown` if given, else raises DataError."""
    for chunk in limit_chunks(chunks) if tokenizer.kind in ("char", "byte") else align_chunks(chunks):
        yield EncodedChunk(chunk, tokenizer.encode(chunk, unknown), None)


def encode_corpus_chunks(
    corpus: Corpus, tokenizer: Tokenizer, unknown: Counter[str] | None = None, training_units: int | None = None
) -> Iterator[EncodedChunk]:
    """Encodes a corpus, in chunks or documents.

    Before the first document and after each one comes the end-of-text token. That first one and the parts that are only
    read are not training targets. The held-out part of a plain text, after `training_units` characters, is encoded as a
    text of its own, so that no token belongs to both parts.

    Raises:
        DataError: a character is unknown and `unknown` is not given; or the corpus is damaged or malformed.
        NoInputError, StorageError: a file was removed, or reading failed.
    """
    if not corpus.has_documents:
        for part in split_chunks(corpus.iter_text(), training_units):
            yield from encode_chunks(part, tokenizer, unknown)
        return
    if tokenizer.end_of_text is None:
        raise DataError("the tokenizer has no end-of-text token, which a corpus of documents requires")
    end = start_of_text(tokenizer)
    yield EncodedChunk("", end, np.zeros(1, np.bool_))
    for document in corpus.iter_documents():
        parts = [tokenizer.encode(text, unknown) for text, _ in document.parts]
        is_target = [is_learned for _, is_learned in document.parts]
        mask = np.repeat([*is_target, document.is_end_learned], [*map(len, parts), 1])
        yield EncodedChunk(document.text, np.concatenate([*parts, end]), mask)


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    path: Path,
    training_units: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> EncodedCorpus:
    """Writes the token ids of a corpus to the file `path`, and its loss mask, if any, to `loss_mask_path(path)`.

    On failure no file is left. The files are not flushed to the disk: a power failure can lose them.

    Args:
        corpus: plain text or documents.
        tokenizer: its tokens.
        path: of the first file.
        training_units: number of characters of a plain text, or of documents, before the held-out part; None: no part
            is held out.
        shard_bytes: maximum size of a file, a multiple of the token size; more tokens are split into shards.

    Raises:
        CannotCreateError: `path` cannot be created.
        StorageError: reading the corpus or writing failed.
        DataError, NoInputError: the corpus is not readable text, or a file was removed.
    """
    tokens = training_tokens = characters = 0
    unknown: Counter[str] = Counter()
    file_dtype = little_endian(tokenizer.token_dtype)
    with_mask = corpus.has_documents
    sha256 = hashlib.sha256()
    remove_tokens(path)  # of an earlier attempt, which may have more shards
    ids, masks = ShardWriter(path, shard_bytes), ShardWriter(loss_mask_path(path), shard_bytes)
    with translate_write_errors(path):

        def write(chunk: EncodedChunk) -> EncodedChunk:
            ids.write(chunk.ids.astype(file_dtype, copy=False).tobytes())
            if chunk.loss_mask is not None:
                masks.write(chunk.loss_mask.tobytes())
            else:
                sha256.update(chunk.text.encode())
            return chunk

        try:
            with ids, masks:
                ids.write(b"")  # creates the file of an empty text
                chunks = encode_corpus_chunks(corpus, tokenizer, unknown, training_units)
                for number, chunk in enumerate(map_ahead(write, chunks, threads=1)):
                    tokens += len(chunk.ids)
                    characters += len(chunk.text)
                    units = number if with_mask else characters  # chunk 0 of documents is the first end of text
                    if training_units is None or units <= training_units:
                        training_tokens = tokens
        except BaseException:
            remove_tokens(path)
            raise
    if with_mask:
        ids.sha256.update(masks.sha256.digest())
    digest = corpus.digest() if with_mask else sha256.hexdigest()
    return EncodedCorpus(tokens, training_tokens, characters, unknown, digest, ids.sha256.hexdigest())


def tokens_digest(path: Path, *, has_loss_mask: bool) -> str | None:
    """Hexadecimal sha256 of the files that `encode_corpus` wrote to `path`; None if they do not exist.

    Raises:
        StorageError: reading failed.
    """
    try:
        with translate_read_errors(path):
            sha256 = _hash_shards(path)
            if has_loss_mask:
                sha256.update(_hash_shards(loss_mask_path(path)).digest())
            return sha256.hexdigest()
    except NoInputError:
        return None


def _hash_shards(path: Path) -> "hashlib._Hash":
    sha256 = hashlib.sha256()
    for shard in shard_paths(path):
        with shard.open("rb") as file:
            hashlib.file_digest(file, lambda: sha256)
    return sha256


def remove_tokens(path: Path) -> None:
    """Removes the files that `encode_corpus` wrote to `path`, if they exist; raises CannotCreateError, StorageError."""
    with translate_write_errors(path, "remove"):
        for file in reversed(token_paths(path)):
            file.unlink()


def token_paths(path: Path) -> list[Path]:
    """All files that `encode_corpus` wrote to `path`."""
    return [file for file in (*shard_paths(path), *shard_paths(loss_mask_path(path))) if file.exists()]


def loss_mask_path(path: Path) -> Path:
    """The file of the loss mask of the tokens in the file `path`."""
    return path.with_suffix(".mask")


def collect_tokens(chunks: Iterable[TokenIds], dtype: npt.DTypeLike) -> TokenIds:
    """Concatenates token ids: (number of tokens,) of `dtype`, read-only.

    Above 64 MiB they are in an unnamed, memory-mapped temporary file, so memory does not limit the text.

    Raises:
        StorageError: the temporary file cannot be created or written.
    """
    with (
        translate_write_errors(None, "write tokens to"),
        tempfile.SpooledTemporaryFile(max_size=_BYTES_IN_MEMORY) as file,
    ):
        for ids in chunks:
            file.write(ids.astype(dtype, copy=False).tobytes())
        if file.tell() > _BYTES_IN_MEMORY:
            file.flush()
            return np.memmap(file, dtype=dtype, mode="r")
        file.seek(0)
        return np.frombuffer(file.read(), dtype=dtype)


def open_corpus_tokens(path: Path, dtype: npt.DTypeLike, *, has_loss_mask: bool) -> Tokens:
    """The tokens that `encode_corpus` wrote to `path`, of `dtype`; raises as `TokenFile`."""
    mask = TokenFile(loss_mask_path(path), np.bool_) if has_loss_mask else None
    return Tokens(TokenFile(path, dtype), mask)


def training_share(length: int, validation_split: float) -> int:
    """Number of characters, documents or tokens of `length` to train on, which come first; the rest are held out."""
    return math.floor(round(length * (1.0 - validation_split), 6))  # rounded: 10 * (1 - 0.9) is slightly below 1
