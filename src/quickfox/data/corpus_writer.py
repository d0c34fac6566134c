"""Write the tokens of a corpus to files, in bounded memory: first its training share, then its held-out part.

The ids are in files of `token_file.py`, of the dtype `input_dtype`; if not all of them are training targets, the loss
mask is in a second file, one byte per id. The frames of signals, if there are any, are in a third, float16. The files
belong to one run on one machine. Their digest shows damage.
Every document is followed by the end-of-text token, and one more comes before the first held-out document, so that its
first token is predicted too.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from quickfox.config.media import MediaConfig
from quickfox.data.dataset import (
    BYTES_IN_MEMORY,
    FRAME_DTYPE,
    frames_path,
    input_dtype,
    loss_mask_path,
    remove_tokens,
)
from quickfox.data.encoding import (
    EncodedChunk,
    Split,
    encode_batch,
    encode_chunks,
    encode_corpus_chunks,
    encode_start,
    iter_batches,
)
from quickfox.data.token_file import SHARD_BYTES, ShardWriter, little_endian
from quickfox.files.errors import translate_write_errors
from quickfox.media.signals import ScaleEstimate
from quickfox.system.threads import map_ahead
from quickfox.text.corpus import Corpus
from quickfox.text.segmentation import split_chunks
from quickfox.tokenizers.base import Tokenizer

_COPIED_TOKENS = 2**20

_UnknownCounts = tuple[Counter[str], Counter[str]]
"""Of the training share and of the held-out part."""

_Shares = tuple[Iterator[EncodedChunk], Iterator[EncodedChunk]]
"""The training share and the held-out part, which is read after it."""


@dataclass(frozen=True)
class EncodedCorpus:
    """Counts and digests of an encoded corpus.

    Attributes:
        tokens: number of token ids written.
        training_tokens: number of those before the held-out part.
        characters: number of characters of the corpus, unknown ones included.
        validation_characters: the same of the text that is held out instead of a part of it; 0: there is none.
        documents: number of documents read; 0 of plain text.
        unknown: count of each character of the training share that is not in the vocabulary.
        held_out_unknown: the same of the held-out part.
        digest: hexadecimal sha256 of the text in UTF-8; equals `Corpus.digest()` unless a file changed.
        tokens_digest: the result of `tokens_digest` for undamaged files.
        media: how signals are read, with the mean and deviation of the training share; None: there are none.
    """

    tokens: int
    training_tokens: int
    characters: int
    validation_characters: int
    documents: int
    unknown: Counter[str]
    held_out_unknown: Counter[str]
    digest: str
    tokens_digest: str
    media: MediaConfig | None = None


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    path: Path,
    split: Split | None = None,
    validation: Corpus | None = None,
    shard_bytes: int = SHARD_BYTES,
    media: MediaConfig | None = None,
) -> EncodedCorpus:
    """Writes the token ids of a corpus to the file `path`, and its loss mask and frames, if any, beside it.

    On failure no file is left. The files are not flushed to the disk: a power failure can lose them.

    Args:
        corpus: plain text or documents.
        tokenizer: its tokens.
        path: of the first file.
        split: the part of it that is held out; None: none.
        validation: the held-out text instead, of the same kind as `corpus`; None: there is none.
        shard_bytes: maximum size of a file, a multiple of the token size; more tokens are split into shards.
        media: how signals are read; None: there are none.

    Raises:
        CannotCreateError: `path` cannot be created.
        StorageError: reading the corpus or writing failed.
        DataError, NoInputError: the corpus is not readable text, or a file was removed.
    """
    remove_tokens(path)  # of an earlier attempt, which may have more shards
    has_mask = corpus.has_documents
    unknown: Counter[str] = Counter()
    held_out_unknown: Counter[str] = Counter()
    with translate_write_errors(path):
        try:
            with (
                _TokenWriter(path, tokenizer, shard_bytes, media, has_loss_mask=has_mask) as writer,
                _Spool(input_dtype(tokenizer, media)) as spool,
            ):
                arguments = corpus, tokenizer, split, (unknown, held_out_unknown)
                training, held_out = (
                    _encode_documents(*arguments, writer, spool) if has_mask else _encode_text(*arguments)
                )
                writer.write(training, is_hashed=not has_mask)
                training_tokens = writer.tokens
                writer.write(held_out, is_hashed=not has_mask)
                characters = writer.characters
                if validation is not None:
                    writer.write(encode_corpus_chunks(validation, tokenizer, held_out_unknown, media))
        except BaseException:
            remove_tokens(path)
            raise
    return EncodedCorpus(
        tokens=writer.tokens,
        training_tokens=training_tokens,
        characters=characters,
        validation_characters=writer.characters - characters,
        documents=writer.documents,
        unknown=unknown,
        held_out_unknown=held_out_unknown,
        digest=corpus.digest() if has_mask else writer.text_sha256.hexdigest(),
        tokens_digest=writer.tokens_digest(),
        media=writer.scale.scaled() if writer.scale else None,
    )


class _TokenWriter:
    """Context manager that writes chunks to token files, and counts them; raises OSError.

    Attributes:
        tokens, characters, documents: number of those written; documents are counted by `_encode_documents`.
        text_sha256: of the text of the chunks that were written with `is_hashed`.
        media: how signals are read; None: there are none.
        scale: of the frames of the training documents, counted by `_encode_documents`.
    """

    def __init__(
        self, path: Path, tokenizer: Tokenizer, shard_bytes: int, media: MediaConfig | None, *, has_loss_mask: bool
    ) -> None:
        self.media = media
        self.scale = None if media is None else ScaleEstimate(media)
        self._frames = None if media is None else ShardWriter(frames_path(path), shard_bytes)
        self._dtype = little_endian(input_dtype(tokenizer, media))
        self._ids = ShardWriter(path, shard_bytes)
        self._masks = ShardWriter(loss_mask_path(path), shard_bytes) if has_loss_mask else None
        self._stack = ExitStack()
        self.tokens = self.characters = self.documents = 0
        self.text_sha256 = hashlib.sha256()

    def __enter__(self) -> Self:
        for writer in filter(None, (self._ids, self._masks, self._frames)):
            self._stack.enter_context(writer)
        self._ids.write(b"")  # creates the file of an empty text
        if self._frames is not None:
            self._frames.write(b"")
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def write(self, chunks: Iterable[EncodedChunk], *, is_hashed: bool = False) -> None:
        """Appends chunks, each of which is written while the next one is encoded."""

        def write_chunk(chunk: EncodedChunk) -> EncodedChunk:
            self._ids.write(chunk.ids.astype(self._dtype, copy=False).tobytes())
            if self._masks is not None and chunk.loss_mask is not None:
                self._masks.write(chunk.loss_mask.tobytes())
            if self._frames is not None and chunk.frames is not None:
                self._frames.write(chunk.frames.astype(FRAME_DTYPE, copy=False).tobytes())
            if is_hashed:
                self.text_sha256.update(chunk.text.encode())
            return chunk

        for chunk in map_ahead(write_chunk, chunks, threads=1):
            self.tokens += len(chunk.ids)
            self.characters += len(chunk.text)

    def tokens_digest(self) -> str:
        """See `dataset.tokens_digest`."""
        for file in filter(None, (self._masks, self._frames)):
            self._ids.sha256.update(file.sha256.digest())
        return self._ids.sha256.hexdigest()


def _encode_text(corpus: Corpus, tokenizer: Tokenizer, split: Split | None, unknown: _UnknownCounts) -> _Shares:
    """Encodes a plain text, each share as a text of its own."""
    texts = split_chunks(corpus.iter_text(), None if split is None else split.training_units)
    training, held_out = (encode_chunks(text, tokenizer, counts) for text, counts in zip(texts, unknown, strict=True))
    return training, held_out


def _encode_documents(
    corpus: Corpus,
    tokenizer: Tokenizer,
    split: Split | None,
    unknown: _UnknownCounts,
    writer: "_TokenWriter",
    spool: "_Spool",
) -> _Shares:
    """Encodes documents; the held-out ones are kept in `spool` until the others are read, and counted in `writer`."""
    start = encode_start(tokenizer)

    def training() -> Iterator[EncodedChunk]:
        for batch, frames in iter_batches(corpus, writer.media):
            is_training = np.ones(len(batch), np.bool_)
            if split is not None:
                is_training = split.are_training(writer.documents, len(batch))
            writer.documents += len(batch)
            if is_training.any():
                if writer.scale is not None and frames is not None:
                    writer.scale.add(frames)
                yield encode_batch(batch.select(is_training), tokenizer, unknown[0], writer.media, frames)
            if not is_training.all():
                chunk = encode_batch(batch.select(~is_training), tokenizer, unknown[1], writer.media, frames)
                writer.characters += len(chunk.text)
                spool.append(chunk)

    def held_out() -> Iterator[EncodedChunk]:
        if not spool.is_empty:
            yield start
            yield from spool.chunks()

    return training(), held_out()


class _Spool:
    """Context manager that keeps encoded documents: above 64 MiB in unnamed temporary files. Raises OSError."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._stack = ExitStack()
        self._ids, self._masks, self._frames = (
            self._stack.enter_context(tempfile.SpooledTemporaryFile(max_size=BYTES_IN_MEMORY))  # noqa: SIM115
            for _ in range(3)
        )
        self.is_empty = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def append(self, chunk: EncodedChunk) -> None:
        """Appends a document."""
        assert chunk.loss_mask is not None
        self._ids.write(chunk.ids.astype(self._dtype, copy=False).tobytes())
        self._masks.write(chunk.loss_mask.tobytes())
        if chunk.frames is not None:
            self._frames.write(chunk.frames.astype(FRAME_DTYPE, copy=False).tobytes())
        self.is_empty = False

    def chunks(self) -> Iterator[EncodedChunk]:
        """The tokens of all documents, in chunks without their texts; then all frames."""
        for file in (self._ids, self._masks, self._frames):
            file.seek(0)
        while mask := self._masks.read(_COPIED_TOKENS):
            ids = self._ids.read(_COPIED_TOKENS * self._dtype.itemsize)
            yield EncodedChunk("", np.frombuffer(ids, self._dtype), np.frombuffer(mask, np.bool_))
        none = EncodedChunk("", np.zeros(0, self._dtype), np.zeros(0, np.bool_))
        while frames := self._frames.read(_COPIED_TOKENS):
            yield replace(none, frames=np.frombuffer(frames, FRAME_DTYPE))
