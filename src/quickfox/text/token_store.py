"""Token ids on disk: a corpus encoded once, then read through the memory map whatever its size.

The file is raw: the ids one after another, little-endian, in the tokenizer's `token_dtype`, nothing else. It belongs
to one run of the program on one machine; what it means (tokenizer, corpus) its owner knows.
"""

import hashlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quickfox.durable import output_errors
from quickfox.errors import DataError, NoInputError, StorageError
from quickfox.text.corpus import Corpus
from quickfox.text.segments import iter_blocks
from quickfox.text.tokenizers.protocol import TokenIds, Tokenizer

_BYTES_IN_MEMORY = 2**26


@dataclass(frozen=True)
class EncodedCorpus:
    """What was found while a corpus was encoded.

    Attributes:
        tokens: number of token ids written.
        characters: number of characters read, those left out included.
        unknown: characters that the vocabulary lacks, left out, and how often each occurs.
        digest: sha256 of the text's UTF-8 bytes, in hexadecimal; equal to `Corpus.digest()` unless a file changed.
    """

    tokens: int
    characters: int
    unknown: Counter[str]
    digest: str


def encode_corpus(corpus: Corpus, tokenizer: Tokenizer, path: Path) -> EncodedCorpus:
    """Write the corpus's token ids to the file `path`, in bounded memory; on failure no file is left.

    Raises:
        CannotCreateError: `path` cannot be created.
        StorageError: reading the corpus or writing failed.
        DataError, NoInputError: the corpus is not readable text, or a file of it has gone.
    """
    tokens = characters = 0
    unknown: Counter[str] = Counter()
    sha256 = hashlib.sha256()
    file_dtype = _little_endian(tokenizer.token_dtype)
    with output_errors(path):
        file = path.open("wb")
    try:
        with output_errors(path), file:
            for text in iter_blocks(corpus.iter_text()):
                ids = tokenizer.encode(text, unknown)
                file.write(ids.astype(file_dtype, copy=False).data)
                tokens += len(ids)
                characters += len(text)
                sha256.update(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return EncodedCorpus(tokens, characters, unknown, sha256.hexdigest())


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


def split_tokens(ids: TokenIds, validation_split: float) -> tuple[TokenIds, TokenIds]:
    """Training tokens and held-out tokens, the LAST share of a text, as two views of `ids`.

    Args:
        ids: (n,) token ids of the whole text.
        validation_split: share to hold out, in [0, 1).

    Returns:
        train: (k,) and validation: (n - k,), k = floor(n * (1 - validation_split)).
    """
    num_training_tokens = count_training_tokens(len(ids), validation_split)
    return ids[:num_training_tokens], ids[num_training_tokens:]


def count_training_tokens(tokens: int, validation_split: float) -> int:
    """How many of a text's tokens are for training: the first floor(tokens * (1 - validation_split))."""
    return math.floor(round(tokens * (1.0 - validation_split), 6))  # rounded, as 10 * (1 - 0.9) is a hair below 1


def _little_endian(dtype: npt.DTypeLike) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
