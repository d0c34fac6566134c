"""Token ids of any number as one array, in memory or in a temporary file."""

import tempfile
from typing import Any

import numpy as np
import pytest

from quickfox.errors import StorageError
from quickfox.text import token_store
from quickfox.text.token_store import collect_tokens

PIECES = [np.array(piece, dtype=np.uint16) for piece in ([1, 2, 3], [], [65535])]


@pytest.mark.parametrize("bytes_in_memory", [0, 7, 8, 1000])
def test_the_pieces_one_after_another_wherever_they_are_kept(
    monkeypatch: pytest.MonkeyPatch, bytes_in_memory: int
) -> None:
    monkeypatch.setattr(token_store, "_BYTES_IN_MEMORY", bytes_in_memory)
    ids = collect_tokens(PIECES, np.uint16)
    assert ids.tolist() == [1, 2, 3, 65535]
    assert ids.dtype == np.uint16
    assert isinstance(ids, np.memmap) == (bytes_in_memory < 8)


def test_no_pieces() -> None:
    assert collect_tokens([], np.uint8).tolist() == []


def test_a_full_disk_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(**_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", nowhere)
    with pytest.raises(StorageError, match="temporary file: No space left"):
        collect_tokens(PIECES, np.uint16)
