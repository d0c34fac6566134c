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

from quickfox.data.document_order import MAX_UNITS, DocumentOrder, Permutation
from quickfox.data.token_file import TokenFile, TokenSource, gather, shard_paths
from quickfox.errors import NoInputError
from quickfox.files.errors import translate_read_errors, translate_write_errors
from quickfox.tokenizers.base import TokenIds, Tokenizer, UnknownToken

BYTES_IN_MEMORY = 2**26
_CHUNK_LENGTH = 2**20


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a text.

    Attributes:
        ids: (n,) token ids, an array or a file.
        loss_mask: (n,) bool, whether each is a training target; None: all are.
        unknown_token: the one of them that stands for unknown characters; None: there is none.
        documents: the order in which their documents are read in training; None: that of the text.
    """

    ids: TokenSource
    loss_mask: TokenSource | None = None
    unknown_token: UnknownToken | None = None
    documents: DocumentOrder | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> "Tokens":
        """A view of the tokens from `start` up to `stop`, without an order of documents."""
        mask = None if self.loss_mask is None else _part(self.loss_mask, start, stop)
        return Tokens(_part(self.ids, start, stop), mask, self.unknown_token)

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
        tempfile.SpooledTemporaryFile(max_size=BYTES_IN_MEMORY) as file,
    ):
        for ids in chunks:
            file.write(ids.astype(dtype, copy=False).tobytes())
        if file.tell() > BYTES_IN_MEMORY:
            file.flush()
            return np.memmap(file, dtype=dtype, mode="r")
        file.seek(0)
        return np.frombuffer(file.read(), dtype=dtype)


def open_corpus_tokens(path: Path, tokenizer: Tokenizer, *, has_documents: bool) -> Tokens:
    """The tokens that `encode_corpus` wrote to `path`; raises as `TokenFile`."""
    mask = TokenFile(loss_mask_path(path), np.bool_) if has_documents else None
    return Tokens(TokenFile(path, tokenizer.token_dtype), mask, tokenizer.unknown_token)


def split_tokens(tokens: Tokens, tokenizer: Tokenizer, training_tokens: int, random_seed: int) -> tuple[Tokens, Tokens]:
    """The first `training_tokens` tokens, for training, and the others, for validation.

    Documents, whose tokens have a loss mask, are read in training in an order that `random_seed` determines.
    """
    training, held_out = tokens.part(0, training_tokens), tokens.part(training_tokens, len(tokens))
    if tokens.loss_mask is not None and tokenizer.end_of_text is not None:
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
    lengths = np.array([len(tokenizer.token_bytes(token_id)) for token_id in range(tokenizer.vocabulary_size)])
    count = 0
    for start in range(1, len(tokens), _CHUNK_LENGTH):
        chunk = slice(start, min(start + _CHUNK_LENGTH, len(tokens)))
        of_tokens = lengths[tokens.ids[chunk]]
        count += int(of_tokens.sum() if tokens.loss_mask is None else of_tokens[tokens.loss_mask[chunk]].sum())
    return count
