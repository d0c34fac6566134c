"""The memory allocator of the C library: what is freed is used again, and given back to the system now and then.

Where the C library is not glibc nothing happens.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_PIECE = 2**22  # bytes; the largest that reading a text makes, about
_LARGEST = 2**25  # up to which glibc raises the first threshold by itself, as a program uses ever larger pieces


@contextmanager
def reused_memory() -> Iterator[None]:
    """Within the block, pieces that are freed are kept for the next ones, if they are as large as those of a text.

    By itself glibc maps a piece of a megabyte and unmaps it when it is freed, so that the system clears the same pages
    again and again: texts were decoded at half the speed. Afterwards it is as in a program that has long been running.
    """
    _keep_free(pieces=_PIECE, in_all=_PIECE)
    try:
        yield
    finally:
        _keep_free(pieces=_LARGEST, in_all=2 * _LARGEST)


def _keep_free(pieces: int, in_all: int) -> None:
    """Sets up to how many bytes freed pieces are kept, and how much is kept at the end of the heap."""
    library = _c_library()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, pieces)
        library.mallopt(_M_TRIM_THRESHOLD, in_all)


def give_back_free_memory() -> None:
    """Returns what is free between pieces in use.

    Decoding text makes strings of ever different sizes, and leaves holes behind: reading 2.5 GB, the memory of the
    process grew from 60 to 80 MB; with this after every 32 MB it stayed below 60, in the same time.
    """
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _c_library() -> "CDLL | None":
    import ctypes  # here: it is needed for texts only
    import sys

    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None  # musl has none
