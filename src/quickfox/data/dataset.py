"""The tokens of a text, in memory or in the files that `encoding.py` writes: open, divide, check and remove them."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quickfox.config.media import MediaConfig, num_media_inputs
from quickfox.data.document_order import MAX_UNITS, DocumentOrder, Permutation
from quickfox.data.frames import FrameSource, SignalDocuments, first_frame_id
from quickfox.data.token_file import TokenFile, TokenSource, gather, shard_paths
from quickfox.errors import NoInputError
from quickfox.files.errors import translate_read_errors, translate_write_errors
from quickfox.media.features import Frames
from quickfox.tokenizers.base import TokenIds, Tokenizer, UnknownToken

BYTES_IN_MEMORY = 2**26
_CHUNK_LENGTH = 2**20

IGNORED = -1
"""Replaces a target that the loss mask excludes."""

FRAME_DTYPE = np.dtype("<f2")
"""Of the frames in files."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a text.

    Attributes:
        ids: (n,) token ids, an array or a file.
        loss_mask: (n,) bool, whether each is a training target; None: all are.
        unknown_token: the one of them that stands for unknown characters; None: there is none.
        documents: the order in which their documents are read in training; None: that of the text.
        frames: of the signals before them; None: there are none.
    """

    ids: TokenSource
    loss_mask: TokenSource | None = None
    unknown_token: UnknownToken | None = None
    documents: DocumentOrder | None = None
    frames: FrameSource | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> "Tokens":
        """A view of the tokens from `start` up to `stop`, without an order of documents."""
        mask = None if self.loss_mask is None else _part(self.loss_mask, start, stop)
        frames = self.frames
        if frames is not None:
            frames = frames.part(frames.count(self.ids, start), frames.count(self.ids, stop))
        return Tokens(_part(self.ids, start, stop), mask, self.unknown_token, frames=frames)

    def with_frames(self, frames: Iterable[Frames | None], media: MediaConfig, tokenizer: Tokenizer) -> "Tokens":
        """The same with the frames of its signals."""
        values = np.concatenate([np.zeros(0, FRAME_DTYPE), *(each.reshape(-1) for each in frames if each is not None)])
        return dataclasses.replace(self, frames=make_frame_source(values, media, tokenizer))

    @property
    def signal_documents(self) -> SignalDocuments:
        """The documents of a text with signals."""
        assert self.frames is not None
        assert self.loss_mask is not None
        return SignalDocuments(self.ids, self.loss_mask, self.frames)

    @property
    def in_counting_order(self) -> TokenSource:
        """The ids in the order in which n-grams are counted: that of the first pass, not that of the corpus."""
        return self.ids if self.documents is None else _PermutedTokens(self.ids, self.documents.first)

    def counting_positions(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The positions in `in_counting_order` of the tokens at `positions`."""
        return positions if self.documents is None else self.documents.first.from_text(positions)

    @cached_property
    def num_targets(self) -> int:
        """Number of targets: all tokens of the loss mask except the first token of the text."""
        if self.loss_mask is None or len(self) == 0:
            return max(0, len(self) - 1)
        starts = range(0, len(self), _CHUNK_LENGTH)
        count = sum(np.count_nonzero(self.loss_mask[start : start + _CHUNK_LENGTH]) for start in starts)
        return int(count) - int(self.loss_mask[:1][0])


class _PermutedTokens:
    """Token ids whose documents are in another order."""

    def __init__(self, ids: TokenSource, permutation: Permutation) -> None:
        self._ids = ids
        self._permutation = permutation

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: slice) -> npt.NDArray[Any]:
        start, stop, _ = index.indices(len(self))
        firsts = range(start, max(start, stop), _CHUNK_LENGTH)
        positions = (np.arange(first, min(first + _CHUNK_LENGTH, stop)) for first in firsts)
        parts = [gather(self._ids, self._permutation.to_text(each)) for each in positions]
        return np.concatenate([self._ids[0:0], *parts])


def _part(source: TokenSource, start: int, stop: int) -> TokenSource:
    return source.part(start, stop) if isinstance(source, TokenFile) else source[start:stop]


def tokens_digest(path: Path, *, has_loss_mask: bool, has_frames: bool = False) -> str | None:
    """Hexadecimal sha256 of the files that `encode_corpus` wrote to `path`; None if they do not exist.

    Raises:
        StorageError: reading failed.
    """
    try:
        with translate_read_errors(path):
            sha256 = _hash_shards(path)
            if has_loss_mask:
                sha256.update(_hash_shards(loss_mask_path(path)).digest())
            if has_frames:
                sha256.update(_hash_shards(frames_path(path)).digest())
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
    firsts = path, loss_mask_path(path), frames_path(path)
    return [file for first in firsts for file in shard_paths(first) if file.exists()]


def loss_mask_path(path: Path) -> Path:
    """The file of the loss mask of the tokens in the file `path`."""
    return path.with_suffix(".mask")


def frames_path(path: Path) -> Path:
    """The file of the frames of the tokens in the file `path`."""
    return path.with_suffix(".frames")


def input_dtype(tokenizer: Tokenizer, media: MediaConfig | None) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest unsigned integer type that holds every input id, those of signals included."""
    return np.min_scalar_type(tokenizer.vocabulary_size + num_media_inputs(media) - 1)


def collect_tokens(chunks: Iterable[TokenIds], dtype: npt.DTypeLike) -> TokenIds:
    """Concatenates token ids: (number of tokens,) of `dtype`, read-only.

    Above 64 MiB they are in an unnamed, memory-mapped temporary file, so memory does not limit the text.

    Raises:
        StorageError: the temporary file cannot be created or written.
    """
    with (
        translate_write_errors(None, "write tokens to"),
        tempfile.SpooledTemporaryFile(max_size=BYTES_IN_MEMORY) as file,
    ):
        for ids in chunks:
            file.write(ids.astype(dtype, copy=False).tobytes())
        if file.tell() > BYTES_IN_MEMORY:
            file.flush()
            return np.memmap(file, dtype=dtype, mode="r")
        file.seek(0)
        return np.frombuffer(file.read(), dtype=dtype)


def make_frame_source(values: TokenSource, media: MediaConfig, tokenizer: Tokenizer) -> FrameSource:
    """The frames `values` (n * F,) float16 of a text that is encoded by a tokenizer with an end-of-text token."""
    assert tokenizer.end_of_text is not None
    return FrameSource(values, media, first_frame_id(tokenizer.vocabulary_size), tokenizer.end_of_text)


def open_corpus_tokens(
    path: Path, tokenizer: Tokenizer, *, has_documents: bool, media: MediaConfig | None = None
) -> Tokens:
    """The tokens that `encode_corpus` wrote to `path`; raises as `TokenFile`."""
    frames = None
    if media is not None:
        frames = make_frame_source(TokenFile(frames_path(path), FRAME_DTYPE), media, tokenizer)
    mask = TokenFile(loss_mask_path(path), np.bool_) if has_documents else None
    ids = TokenFile(path, input_dtype(tokenizer, media))
    return Tokens(ids, mask, tokenizer.unknown_token, frames=frames)


def split_tokens(tokens: Tokens, tokenizer: Tokenizer, training_tokens: int, random_seed: int) -> tuple[Tokens, Tokens]:
    """The first `training_tokens` tokens, for training, and the others, for validation.

    Documents, whose tokens have a loss mask, are read in training in an order that `random_seed` determines.
    """
    training, held_out = tokens.part(0, training_tokens), tokens.part(training_tokens, len(tokens))
    if tokens.frames is None and tokens.loss_mask is not None and tokenizer.end_of_text is not None:
        starts = find_documents(training.ids, tokenizer.end_of_text)
        training = dataclasses.replace(training, documents=DocumentOrder(starts, random_seed))
    return training, held_out


def find_documents(ids: TokenSource, end_of_text: int) -> npt.NDArray[np.int64]:
    """The start of each document of a text, and its length; of more than MAX_UNITS only of groups of neighbors.

    Args:
        ids: (n,) token ids, the last of which is `end_of_text`.
        end_of_text: the token after each document.
    """
    starts, group = [np.zeros(1, np.int64)], 1
    number = 0
    for first in range(0, len(ids), _CHUNK_LENGTH):
        ends = first + np.flatnonzero(ids[first : first + _CHUNK_LENGTH] == end_of_text) + 1
        numbers = np.arange(number + 1, number + 1 + len(ends))
        number += len(ends)
        starts.append(ends[numbers % group == 0])
        while sum(map(len, starts)) > MAX_UNITS:
            starts, group = [np.concatenate(starts)[::2]], 2 * group
    found = np.concatenate(starts)
    return found if found[-1] == len(ids) else np.append(found, len(ids))


def count_target_bytes(tokens: Tokens, tokenizer: Tokenizer) -> int:
    """The number of bytes of the predicted tokens of a text, see `Tokens.num_targets`."""
    media = tokens.frames.media if tokens.frames is not None else None
    lengths = np.zeros(tokenizer.vocabulary_size + num_media_inputs(media), np.int64)
    for token_id in range(tokenizer.vocabulary_size):
        lengths[token_id] = len(tokenizer.token_bytes(token_id))
    count = 0
    for start in range(1, len(tokens), _CHUNK_LENGTH):
        chunk = slice(start, min(start + _CHUNK_LENGTH, len(tokens)))
        of_tokens = lengths[tokens.ids[chunk]]
        count += int(of_tokens.sum() if tokens.loss_mask is None else of_tokens[tokens.loss_mask[chunk]].sum())
    return count
